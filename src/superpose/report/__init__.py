"""Findings to one self-contained HTML page: no network, no fonts or scripts from elsewhere."""

import base64
import hashlib
import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup, escape

from superpose.figures import FigureFiles

__all__ = [
    "FigureFiles",
    "Grid",
    "Images",
    "Picture",
    "Report",
    "Section",
    "Text",
    "render",
]

Cell = str | bool | int | float | None


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph. `code` in backticks and *emphasis* in asterisks; all else is shown as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """The figure of that name, with a caption and a description for those who cannot see it."""

    name: str
    caption: str
    alt: str


@dataclass(frozen=True, slots=True)
class Grid:
    """A table. Columns of numbers are set right; floats get three significant digits.

    For another number of digits, or an interval, pass text. None and NaN show as a dash.
    Raises ValueError for a row whose length is not the number of columns.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    def __post_init__(self) -> None:
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"Grid: row {index} has {len(row)} cells for {len(self.columns)} columns; "
                    "pass None for a cell without a value"
                )

    @property
    def numeric(self) -> list[bool]:
        """For each column whether all its cells are numbers (or texts of numbers)."""
        return [all(map(_is_number, column)) for column in zip(*self.rows, strict=True)] or [
            False
        ] * len(self.columns)


@dataclass(frozen=True, slots=True)
class Images:
    """A strip of small images, enlarged without smoothing: (PNG bytes, label) each."""

    items: Sequence[tuple[bytes, str]]
    caption: str = ""


Block = Text | Picture | Grid | Images


@dataclass(frozen=True, slots=True)
class Section:
    """A titled part of a report."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Report:
    """What a page says: the findings first, then the sections, then how to obtain it again.

    `manifest` is JSON data (configuration, seeds, versions, commit); its entry "command", where
    there is one, is shown as the line to run.
    """

    title: str
    subtitle: str
    summary: Sequence[str]
    sections: Sequence[Section]
    manifest: Mapping[str, Any] = field(default_factory=dict)


def render(report: Report, figures: Mapping[str, FigureFiles] | None = None) -> str:
    """The page as HTML. Every text in the report is data and is escaped, never markup.

    Raises ValueError for a picture without its figure.

    >>> page = render(Report("Title", "", ["One finding"], [Section("A", [Text("a < b")])]))
    >>> "a &lt; b" in page
    True
    """
    figures = figures or {}
    for section in report.sections:
        for block in section.blocks:
            if isinstance(block, Picture) and block.name not in figures:
                raise ValueError(
                    f"Picture({block.name!r}): there is no figure of this name; "
                    f"there are {', '.join(sorted(figures)) or 'none'}"
                )
    style, script = _resource("page.css"), _resource("page.js")
    return _template().render(
        report=report,
        figures=figures,
        manifest=json.dumps(dict(report.manifest), indent=2, ensure_ascii=False, default=str),
        command=report.manifest.get("command", ""),
        style=Markup(style),  # both are files of this package, named in the policy by their hash
        script=Markup(script),
        style_hash=_policy_hash(style),
        script_hash=_policy_hash(script),
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters |= {"prose": _prose, "data_uri": _data_uri, "cell": _cell}
    environment.filters["size"] = _size
    environment.tests["kind"] = lambda block, name: type(block).__name__ == name
    return environment.from_string(_resource("page.html.jinja"))


def _resource(name: str) -> str:
    return files("superpose.report").joinpath(name).read_text("utf-8")


def _policy_hash(text: str) -> Markup:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Markup(f"'sha256-{digest}'")


# Control characters and the marks that reorder text can make a label read as something else.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def _visible(value: Any) -> Any:
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return _UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", value)


_MARKED = re.compile(r"`([^`\n]+)`|\*(?=\S)([^*\n]+)(?<=\S)\*")


_TOGETHER = re.compile(r"(?<=\d) (?=%)|(?<=\(1) (?=−)|(?<=−) (?=S\))|(?<=S\)) (?==)")


def _prose(text: str) -> Markup:
    """`code` and *emphasis* as elements; the rest escaped. Numbers keep their units on the line."""
    text = _TOGETHER.sub("\u00a0", text)
    parts, end = [], 0
    for found in _MARKED.finditer(text):
        parts.append(escape(_visible(text[end : found.start()])))
        tag = "code" if found[1] else "em"
        parts.append(Markup("<{0}>{1}</{0}>").format(Markup(tag), _visible(found[1] or found[2])))
        end = found.end()
    return Markup().join([*parts, escape(_visible(text[end:]))])


_PNG = b"\x89PNG\r\n\x1a\n"


def _data_uri(data: bytes) -> Markup:
    kind = "image/png" if data.startswith(_PNG) else "image/svg+xml"
    return Markup(f"data:{kind};base64,{base64.b64encode(data).decode()}")


def _size(data: bytes) -> tuple[int, int]:
    """Width and height at which a figure is shown, in CSS pixels: 9 points read as 14 pixels."""
    if data.startswith(_PNG):
        width, height = struct.unpack(">II", data[16:24])
        return int(width), int(height)
    found = re.search(rb'<svg[^>]*\swidth="([\d.]+)pt"|<svg[^>]*\sheight="([\d.]+)pt"', data)
    both = re.search(rb'viewBox="0 0 ([\d.]+) ([\d.]+)"', data)
    if both is None:
        return (720, 480)
    scale = 1.55 if found else 1.0
    return round(float(both[1]) * scale), round(float(both[2]) * scale)


# A number, with its interval, percentage or range; words make it text.
_NUMBER = re.compile(r"(?=.*\d)[-+−–<>≤≥≈±\d\s.,%\[\]()eE×/]+")


def _is_number(cell: Cell) -> bool:
    if isinstance(cell, str):
        return cell in ("", "–") or bool(_NUMBER.fullmatch(cell))
    return not isinstance(cell, bool)


def _cell(cell: Cell) -> str:
    if cell is None or cell != cell:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    text = f"{cell:.3g}" if isinstance(cell, float) else str(cell)
    return text if isinstance(cell, str) else text.replace("-", "−")
