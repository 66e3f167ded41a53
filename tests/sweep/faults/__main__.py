"""A battery of faults: `python -m faults points --times 3`; what it found comes as JSON.

A process of its own, because the batteries fork: what they fork must not have threads. Without
words it serves one battery after another to the tests.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict

from faults import errors, kills, power, sweeps, writers


def battery(options: argparse.Namespace) -> object:
    """What the chosen battery found."""
    sweeps.choose(sweeps.REFINED if options.refined else sweeps.PLAIN)
    match options.battery:
        case "points":
            words = {"broken": options.broken, "only": options.only, "without": options.without}
            return kills.at_points(options.times, **words)
        case "random":
            return kills.at_random(options.times, options.seed)
        case "power":
            log = power.recorded(options.broken)
            if options.omit:
                log = log.without(power.OMISSIONS[options.omit])
            return power.cut(log, options.times, options.seed)
        case "kills and power":
            return power.cut_after_kills(options.times, options.seed, options.only, options.without)
        case "errors":
            return errors.injected(options.times)
        case "disk":
            return errors.full_disk(options.times)
        case "writers":
            return writers.together(options.seconds, options.each_shard)
    raise ValueError(options.battery)


def parsed(words: list[str]) -> argparse.Namespace:
    """The options of one battery."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    names = ("points", "random", "power", "kills and power", "errors", "disk", "writers")
    parser.add_argument("battery", choices=names)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=0)
    for name in ("broken", "omit", "only", "without"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--each-shard", action="store_true")
    parser.add_argument("--refined", action="store_true")
    return parser.parse_args(words)


def serve() -> None:
    """Answer each line of standard input, the words of a battery as JSON, by what it found."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        found = battery(parsed(json.loads(line)))
        out.write(json.dumps(asdict(found) if found else None) + "\n")
        out.flush()


if __name__ == "__main__":
    if sys.argv[1:]:
        found = battery(parsed(sys.argv[1:]))
        sys.stdout.write(json.dumps(asdict(found) if found else None, indent=1) + "\n")
    else:
        serve()
