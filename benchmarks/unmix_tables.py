"""The tables of unmix.py: rows as it prints them, and as Markdown in a page."""

from collections.abc import Callable

from tables import _short, _table
from unmix_sides import ALL, OURS, PLAIN, Shape

from superpose.statistics import mean_interval

NAMES = {
    "topk": "TopK",
    "batchtopk": "BatchTopK",
    "jumprelu": "JumpReLU",
    "matryoshka": "Matryoshka",
    "l1": "L1",
}
ASKED = {"topk": 2.0, "batchtopk": 4.0, "jumprelu": 4.0, "matryoshka": 4.0, "l1": 1.5}
"""Times faster than the fastest package; of TopK with AVX2 (3 with AVX-512)."""

SCORES = ("fve", "mmcs")
STACKED = ("stack", "loop", PLAIN, "saelens")
TWO = ", two threads"


def shape_of(row: dict) -> Shape:
    """The sizes of a row."""
    return Shape(**row["shape"])


def per_second(us: float) -> str:
    """Samples a second."""
    return f"{1e6 / us:,.0f}"


def ratios(row: dict, of: str = "us") -> dict[str, float]:
    """How many times longer each other side takes for a sample."""
    ours = row["sides"][OURS][of]
    return {side: found[of] / ours for side, found in row["sides"].items() if side != OURS}


def fastest(row: dict, of: str = "us") -> tuple[str, float]:
    """The fastest package, and how many times longer it takes; the plain loop is none."""
    peers = {side: ratio for side, ratio in ratios(row, of).items() if side != PLAIN}
    peers = peers or ratios(row, of) or {"nobody": float("nan")}
    return min(peers.items(), key=lambda item: item[1])


def side_lines(row: dict, shape: str) -> str:
    """A code at a shape."""
    lines = [f"{NAMES[row['code']]}, {shape}"]
    for side in [side for side in ALL if side in row["sides"]]:
        found = row["sides"][side]
        spread = f"{min(found['pieces']):.2f}-{max(found['pieces']):.2f}"
        ratio = "" if side == OURS else f"  ours {ratios(row).get(side, 1.0):.2f}× as fast"
        lines.append(
            f"  {side:>20} {found['us']:>8.2f} µs a sample ({spread}), wall "
            f"{found['us_wall']:.2f}, {per_second(found['us']):>8} samples/s{ratio}"
        )
    return "\n".join(lines)


def stack_line(row: dict) -> str:
    """A stack against its members one by one."""
    us, gigabytes = row["us"], row["peak_gb"]
    parts = [f"{name} {us[name]:.2f} µs, {gigabytes[name]:.2f} GB" for name in us]
    gains = [f"{name} / stack {us[name] / us['stack']:.2f}" for name in STACKED[1:] if name in us]
    wall = row["us_wall"]
    gains.append(f"on two threads {wall[f'loop{TWO}'] / wall[f'stack{TWO}']:.2f} by wall time")
    return f"{shape_of(row)}, {row['members']} members: {'; '.join(parts + gains)}"


def floor_line(row: dict) -> str:
    """The floor and the share reached."""
    return (
        f"{shape_of(row)}: {row['us']:.2f} µs a sample, floor {row['floor_us']:.2f} "
        f"({row['gflops']:.0f} GFLOP/s by {row['by']}): {row['share']:.0%}, best against best "
        f"{row['share_of_best']:.0%}"
    )


def run_line(run: dict) -> str:
    """One whole training."""
    return (
        f"{NAMES[run['code']]:>10} {run['side']:>20} seed {run['seed']}: FVE {run['fve']:.4f}, "
        f"MMCS {run['mmcs']:.4f}, over 0.9 {run['recovered']:.3f}, L0 {run['l0']:.1f}, "
        f"{run['us']:.1f} µs"
    )


def values(runs: list[dict], code: str, side: str, score: str) -> dict[int, float]:
    """A score by seed."""
    return {run["seed"]: run[score] for run in runs if (run["code"], run["side"]) == (code, side)}


def compared(runs: list[dict], code: str, side: str, score: str) -> tuple[float, float, float]:
    """Our score less that of another, paired by seed: mean and interval."""
    ours, theirs = values(runs, code, OURS, score), values(runs, code, side, score)
    gap = mean_interval([ours[seed] - theirs[seed] for seed in sorted(ours) if seed in theirs])
    return gap.estimate, gap.low, gap.high


def no_worse(done: dict, code: str, side: str) -> bool | None:
    """Whether our scores are no worse than another's; None where it was not measured."""
    runs = done.get("quality", {}).get("runs", [])
    shared = set(values(runs, code, OURS, "fve")) & set(values(runs, code, side, "fve"))
    if len(shared) < 2:
        return None
    return all(compared(runs, code, side, score)[2] >= 0 for score in SCORES)


def verdict(done: dict) -> str:
    """What was asked for, and what was found."""
    lines = []
    for row in [*done.get("topk", {}).get("rows", []), *done.get("codes", {}).get("rows", [])]:
        side, ratio = fastest(row)
        quality = {None: "quality not measured", True: "no worse", False: "WORSE"}[
            no_worse(done, row["code"], side)
        ]
        words = f"{NAMES[row['code']]}: {ratio:.2f}× the fastest package, {side} ({quality})"
        if row["code"] == "l1":
            words += f"; in the last third {fastest(row, 'late')[1]:.2f}×"
        if "saelens" in row["sides"]:
            words += f"; {ratios(row)['saelens']:.2f}× SAELens"
        lines.append(f"{words}; asked: {ASKED[row['code']]:g}")
    return "\n".join(["", *lines])


def _sides(found: dict) -> str:
    """Rates of all sides, one row a code or shape."""
    rows = found["rows"]
    sides = [side for side in ALL if any(side in row["sides"] for row in rows)]
    head = "| | " + " | ".join(sides) + " | ratio to the fastest package | by wall time |"
    lines = []
    for row in rows:
        cells = [
            per_second(row["sides"][side]["us"]) if side in row["sides"] else "" for side in sides
        ]
        (side, ratio), (_, wall) = fastest(row), fastest(row, "us_wall")
        last = f"{ratio:.2f} ({side})"
        if row["code"] == "l1":
            last += f"; {fastest(row, 'late')[1]:.2f} in the last third"
        name = f"{NAMES[row['code']]}, {shape_of(row)}"
        lines.append(f"| {name} | {' | '.join(cells)} | {last} | {wall:.2f} |")
    note = "Samples a second of processor time."
    return f"{_table(head, lines)}\n\n{note}"


def _stack(found: dict) -> str:
    rows = []
    for row in found["rows"]:
        us, size = row["us"], row["peak_gb"]
        times = [_short(us[side]) if side in us else "" for side in STACKED]
        gains = [f"{us[side] / us['stack']:.2f}" if side in us else "" for side in STACKED[1:]]
        wall = row["us_wall"]
        both = f"{_short(wall[f'stack{TWO}'])} | {wall[f'loop{TWO}'] / wall[f'stack{TWO}']:.2f}"
        sizes = [f"{size[side]:.2f}" if side in size else "" for side in STACKED]
        rows.append(f"| {shape_of(row)} | {' | '.join([*times, *gains, both, *sizes])} |")
    head = (
        "| | stack, µs | our single runs | PyTorch, one by one | SAELens, one by one "
        "| single / stack | PyTorch / stack | SAELens / stack | stack on two threads, wall µs "
        "| single / stack | stack, GB | single | PyTorch | SAELens |"
    )
    members = f"{found['rows'][0]['members']} members: k of {found['sparsities']}, "
    return (
        f"{_table(head, rows)}\n\n{members}{found['seeds']} seeds each; µs for a sample of one "
        "member, by whole calls; memory is the most that a process held, the samples with it."
    )


def _floor(found: dict) -> str:
    rows = [
        f"| {shape_of(row)} | {row['gflops']:.0f} ({row['by']}) | {row['floor_us']:.2f} | "
        f"{row['us']:.2f} | {row['share']:.0%} | {row['share_of_best']:.0%} |"
        for row in found["rows"]
    ]
    head = "| | best product, GFLOP/s | floor, µs | TopK step, µs | share | best against best |"
    return _table(head, rows)


def _quality(found: dict) -> str:
    runs = found["runs"]
    rows = []
    trained = {(run["code"], run["side"]) for run in runs}
    for code in NAMES:
        for side in [side for side in ALL if (code, side) in trained]:
            active = mean_interval(list(values(runs, code, side, "l0").values()))
            cells = [f"{active.estimate:.1f}"]
            for score in SCORES:
                interval = mean_interval(list(values(runs, code, side, score).values()))
                cells.append(f"{interval.estimate:.4f} ± {interval.high - interval.estimate:.4f}")
            for score in SCORES:
                if side == OURS:
                    cells.append("")
                    continue
                mean, low, high = compared(runs, code, side, score)
                cells.append(f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]")
            seeds = len(values(runs, code, side, "fve"))
            rows.append(f"| {NAMES[code]} | {side} | {seeds} | {' | '.join(cells)} |")
    head = "| | | seeds | L0 | FVE | MMCS | ours less theirs: FVE | MMCS |"
    steps = sorted({run["steps"] for run in runs})
    note = f"{' or '.join(f'{step:,}' for step in steps)} steps; 95 % intervals over seeds."
    return f"{_table(head, rows)}\n\n{note}"


TABLES: dict[str, Callable[[dict], str]] = {
    "topk": _sides,
    "codes": _sides,
    "shapes": _sides,
    "stack": _stack,
    "floor": _floor,
    "quality": _quality,
}
