"""The tables of sweep.py: rows as it prints them, and as Markdown in a page."""

from collections.abc import Callable
from typing import Any

from superpose.sweep.words import amount, duration


def overhead_line(row: dict[str, Any]) -> str:
    """One round of bare and stored training."""
    return (
        f"bare {row['bare']:.2f} s, with the store {row['stored']:.2f} s of processor time: "
        f"{row['ratio']:+.2%}; by the wall clock {row['ratio_by_wall_clock']:+.2%}; not in train: "
        f"{row['beside_training']:.2%}, {row['beside_training_wall']:.2%} by the wall clock"
    )


def commit_line(row: dict[str, Any]) -> str:
    """The writing of one shard."""
    return (
        f"{row['models']:>7,} models, {amount(row['bytes'])}: {row['cpu'] * 1e3:.1f} ms of "
        f"processor time, {row['wall'] * 1e3:.1f} ms by the wall clock"
    )


def real_lines(found: dict[str, Any]) -> str:
    """The sweep of real models."""
    return (
        f"{found['models']:,} models in {found['shards']} shards: {duration(found['wall'])}, "
        f"{found['models_per_second']:.0f} models/s, with {found['share_of_cores']:.0%} of two "
        f"cores; to start and calibrate {found['start']:.1f} s of processor time, then "
        f"{found['sweep_ms']:.3f} ms a model, bare training {found['bare_ms']:.3f}: "
        f"{found['over_bare']:+.1%}. Two cores that only train: "
        f"{duration(found['floor'])}. {amount(found['bytes'])}; at most {found['peak_gb']:.2f} GB "
        f"of memory; verify {found['verify']['wall']:.2f} s, table {found['table']['wall']:.2f} s"
    )


def rows_lines(found: dict[str, Any]) -> str:
    """Questions to the store of made-up models."""
    sizes = ", ".join(f"{amount(size)} of {name}" for name, size in found["bytes"].items())
    times = "\n".join(
        f"{name:>22} {spent['wall']:>7.3f} s, {spent['cpu']:>7.3f} s of processor time"
        for name, spent in found["times"].items()
    )
    return f"{found['models']:,} rows in {found['shards']} shards; {sizes}\n{times}"


def plan_line(row: dict[str, Any]) -> str:
    """A plan of one size."""
    return (
        f"{row['models']:,} models in {row['shards']:,} shards: made in {row['make_ms']:.1f} ms, "
        f"1,000 models and 1,000 shards in {row['ask_ms']:.0f} ms; {row['objects_kb']:.0f} kB of "
        f"objects, the process grew by {row['growth_mb']:.1f} MB"
    )


def refinement_lines(found: dict[str, Any]) -> str:
    """The refined boundary and the full grid."""
    return (
        f"{found['trained']:,} of {found['full']:,} models in {found['rounds']} rounds: "
        f"{found['times_fewer']:.1f} times fewer; {found['cpu']['refined']:.1f} s against "
        f"{found['cpu']['full']:.1f} s of processor time; {found['missed']} of "
        f"{found['crossings']} changes between neighbours of the full grid were not trained"
    )


def _table(head: str, rows: list[str]) -> str:
    return "\n".join([head, "|" + "---|" * (head.count("|") - 1), *rows])


def _overhead(found: dict[str, Any]) -> str:
    rows = [
        f"| {row['bare']:.2f} | {row['stored']:.2f} | {row['ratio']:+.2%} | "
        f"{row['ratio_by_wall_clock']:+.2%} | {row['beside_training']:.2%} | "
        f"{row['beside_training_wall']:.2%} |"
        for row in [*found["rows"], found]
    ]
    head = "| bare, s | sweep, s | sweep / bare − 1 | by the wall clock | not in `train` | wall |"
    return (
        f"{found['models']:,} models of (5, 2), 2,000 steps, as one shard; the last row has the "
        f"medians (asked: less than {found['asked']:.0%}).\n\n{_table(head, rows)}"
    )


def _commit(found: dict[str, Any]) -> str:
    rows = [
        f"| {row['models']:,} | {amount(row['bytes'])} | {row['cpu'] * 1e3:.1f} | "
        f"{row['wall'] * 1e3:.1f} | {row['wall'] / 60:.3%} |"
        for row in found["rows"]
    ]
    head = "| models of a shard | size | processor, ms | wall, ms | of 60 s |"
    return _table(head, rows)


def _real(found: dict[str, Any]) -> str:
    verify, table = found["verify"], found["table"]
    pairs = {
        "models": f"{found['models']:,} in {found['shards']} shards",
        "time": f"{duration(found['wall'])}, {found['models_per_second']:.0f} models a second, "
        f"with {found['share_of_cores']:.0%} of two cores",
        "processor time to start": f"{found['start']:.1f} s: three processes, the calibration",
        "processor time a model": f"{found['sweep_ms']:.2f} ms beyond that; bare training "
        f"{found['bare_ms']:.2f} ms ({found['over_bare']:+.1%})",
        "two cores that only train": f"{duration(found['floor'])}, had they all of both cores",
        "memory": f"{found['peak_gb']:.2f} GB at most, driver and two workers together",
        "on disk": f"{amount(found['bytes'])}, all weights kept",
        "`verify`": f"{verify['wall']:.2f} s",
        "`table()`": f"{table['wall']:.2f} s",
    }
    return _table("| | |", [f"| {name} | {said} |" for name, said in pairs.items()])


def _rows(found: dict[str, Any]) -> str:
    sizes = found["bytes"]
    rows = [
        f"| {name} | {spent['wall']:.3f} | {spent['cpu']:.3f} |"
        for name, spent in found["times"].items()
    ]
    return (
        f"{found['models']:,} rows, {found['cells']:,} cells, {found['shards']} shards: "
        f"{amount(sizes['parquet'])} of tables ({sizes['parquet'] / found['models']:.0f} bytes a "
        f"row), {amount(sizes['safetensors'])} of weights, {amount(sizes['json'])} of records.\n\n"
        + _table("| | wall, s | processor, s |", rows)
    )


def _plan(found: dict[str, Any]) -> str:
    rows = [
        f"| {row['models']:,} | {row['shards']:,} | {row['make_ms']:.1f} | {row['ask_ms']:.0f} | "
        f"{row['objects_kb']:.0f} | {row['growth_mb']:.1f} |"
        for row in found["rows"].values()
    ]
    head = (
        "| models | shards | made, ms | 1,000 `at` and 1,000 `shard`, ms | objects, kB "
        "| process grew, MB |"
    )
    return _table(head, rows)


def _refinement(found: dict[str, Any]) -> str:
    first, second = found["grid"]
    pairs = {
        "models": f"{found['trained']:,} of the {found['full']:,} of the full {first} × {second} "
        f"grid: {found['times_fewer']:.1f} times fewer, in {found['rounds']} rounds",
        "processor time": f"{found['cpu']['refined']:.1f} s; the full grid "
        f"{found['cpu']['full']:.1f} s",
        "changes of state between neighbours of the full grid": f"{found['crossings']}, of which "
        f"{found['missed']} were not trained by refinement",
    }
    return _table("| | |", [f"| {name} | {said} |" for name, said in pairs.items()])


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "overhead": _overhead,
    "commit": _commit,
    "real": _real,
    "rows": _rows,
    "plan": _plan,
    "refinement": _refinement,
}
