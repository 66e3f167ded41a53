"""The tables of engine.py: rows as it prints them, and as Markdown in a page."""

from collections.abc import Callable
from pathlib import Path

ASKED = {"small": (100.0, 20.0), "large": (9.0, 5.0)}
"""Times faster than the notebook's loop: in the geometric mean of a group, and in every cell."""

HEAD = (
    f"{'n,m':>7} {'p':>6} {'way':>6} {'notebook':>9} {'fused':>9} {'range':>15} {'ratio':>6} "
    f"{'wall':>6} {'run':>6} | floors: {'dense':>8} "
    f"{'needed':>8} {'random':>8} {'bytes':>7} {'share':>6}"
)


def line(row: dict) -> str:
    """A cell of the groups `small` and `large`."""
    low, high = row["fused_spread"]
    parts = row["floor"]
    return (
        f"{row['n']:>4},{row['m']:<2} {row['p']:>6.3g} {row['way']:>6} {row['notebook']:>9.1f} "
        f"{row['fused']:>9.2f} {f'{low:.2f}-{high:.2f}':>15} {row['ratio']:>6.1f} "
        f"{row['ratio_by_wall_clock']:>6.1f} {row.get('ratio_of_a_run', row['ratio']):>6.1f} | "
        f"{parts['dense']:>16.2f} {parts['needed']:>8.2f} {parts['random']:>8.2f} "
        f"{parts['bytes']:>7.2f} {row['share_of_floor']:>6.0%}"
    )


def summary_line(found: dict) -> str:
    """A group's ratios beside what was asked for."""
    text = (
        f"geometric mean {found['mean_ratio']:.1f} (asked: {found['asked_mean']:g}), worst cell "
        f"{found['worst_ratio']:.1f} (asked: {found['asked_worst']:g})"
    )
    if "dense_rate" in found:
        text += (
            f"; at p = 1 at least {found['dense_rate']:.0%} of the best product rate (asked: 50%)"
        )
    return text


def thread_line(row: dict) -> str:
    """Two threads against one, for one shape."""
    return (
        f"{row['n']:>4},{row['m']:<2} µs by the wall clock, one and two threads: "
        f"fused {row['fused 1']:.2f} and {row['fused 2']:.2f}, gain {row['fused gain']:.2f} "
        f"(asked: 1.8 on a quiet machine); notebook {row['notebook 1']:.0f} and "
        f"{row['notebook 2']:.0f}, gain {row['notebook gain']:.2f}; ratio {row['ratio on two']:.1f}"
    )


def compile_line(name: str, row: dict) -> str:
    """Seconds to a first step, of one path."""
    return f"{name}: {row['first']:.1f} s, in a second process {row['from_disk']:.2f} s"


def peer_line(row: dict) -> str:
    """occhio, the notebook and the fused kernels."""
    return (
        f"{row['n']:>4},{row['m']:<2} {row['p']:>5g} µs: occhio {row['occhio']:.0f}, compiled "
        f"{row['occhio compiled']:.0f}, notebook {row['notebook']:.0f}, fused {row['fused']:.2f}; "
        f"fused against occhio's faster way {row['ratio']:.1f}"
    )


def fill(page: Path, results: dict) -> None:
    """Write each group's table between its two markers in the page."""
    text = page.read_text("utf-8")
    for group, markdown in TABLES.items():
        begin, end = f"<!-- {group} -->\n", f"<!-- end of {group} -->"
        if group in results and begin in text:
            before, _, rest = text.partition(begin)
            _, _, after = rest.partition(end)
            table = f"{markdown(results[group])}\n\n{_where(results[group])}\n"
            text = before + begin + table + end + after
    page.write_text(text, "utf-8")


def _where(found: dict) -> str:
    about = found["machine"]
    quiet = "quiet" if about["quiet"] else "NOT quiet, so times are too long"
    return (
        f"*{about['processor']}, {about['cores']} cores, kernel {about['kernel']}, commit "
        f"{(about['commit'] or 'unknown')[:10]}, load {about['load_before']:.1f} before and "
        f"{about['load_after']:.1f} after: {quiet}.*"
    )


def _table(head: str, rows: list[str]) -> str:
    columns = head.count("|") - 1
    return "\n".join([head, "|" + "---|" * columns, *rows])


def _short(number: float) -> str:
    """Three digits, never an exponent."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _cells(found: dict) -> str:
    """Ratios first, one row a shape; then every cell with its floors."""
    densities = list(dict.fromkeys(row["p"] for row in found["rows"]))
    shapes = list(dict.fromkeys((row["n"], row["m"]) for row in found["rows"]))
    by_cell = {(row["n"], row["m"], row["p"]): row for row in found["rows"]}
    head = "| n, m | " + " | ".join(f"p = {p:.2g}" for p in densities) + " |"
    ratios = [
        f"| {n}, {m} | " + " | ".join(f"{by_cell[n, m, p]['ratio']:.3g}" for p in densities) + " |"
        for n, m in shapes
    ]
    parts = ("dense", "needed", "random", "bytes")
    floors = [
        f"| {row['n']}, {row['m']} | {row['p']:.2g} | {row['way']} | {row['notebook']:,.0f} | "
        f"{_short(row['fused'])} | {row.get('ratio_of_a_run', row['ratio']):.1f} | "
        + " | ".join(f"{_short(row['floor'][part])}" for part in parts)
        + f" | {row['share_of_floor']:.0%} |"
        for row in found["rows"]
    ]
    floor_head = (
        "| n, m | p | way | PyTorch, µs | fused, µs | ratio of a run | dense | needed | random "
        "| bytes | share |"
    )
    return (
        f"{_table(head, ratios)}\n\n{summary_line(found['summary']).capitalize()}.\n\n"
        f"{_table(floor_head, floors)}"
    )


def _threads(found: dict) -> str:
    rows = [
        f"| {row['n']}, {row['m']} | {_short(row['fused 1'])} | {_short(row['fused 2'])} | "
        f"{row['fused gain']:.2f} | {row['notebook 1']:,.0f} | {row['notebook 2']:,.0f} | "
        f"{row['notebook gain']:.2f} | {row['ratio on two']:.0f} |"
        for row in found["rows"]
    ]
    head = "| n, m | fused | on two | gain | PyTorch | on two | gain | ratio on two |"
    return _table(head, rows)


def _memory(found: dict) -> str:
    return (
        f"{found['models']:,} models of (5, 2) in one process: at most {found['peak_gb']:.2f} GB, "
        f"{found['one_model_gb']:.2f} GB of it for the first model (asked: "
        f"{found['asked_gb']:g} GB)."
    )


def _compile(found: dict) -> str:
    rows = [
        f"| {name} | {row['first']:.1f} | {row['from_disk']:.2f} |"
        for name, row in found["rows"].items()
    ]
    return _table("| | first process, s | second process, s |", rows)


def _peers(found: dict) -> str:
    if not found["rows"]:
        return "occhio: not installed."
    rows = [
        f"| {row['n']}, {row['m']} | {row['p']:g} | {row['occhio']:,.0f} | "
        f"{row['occhio compiled']:,.0f} | {row['notebook']:,.0f} | {_short(row['fused'])} | "
        f"{row['ratio']:.0f} |"
        for row in found["rows"]
    ]
    return _table("| n, m | p | occhio | compiled | PyTorch | fused | ratio |", rows)


TABLES: dict[str, Callable[[dict], str]] = {
    "small": _cells,
    "large": _cells,
    "threads": _threads,
    "memory": _memory,
    "compile": _compile,
    "peers": _peers,
}
