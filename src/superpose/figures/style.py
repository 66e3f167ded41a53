"""How figures look: one drawing, for light and for dark pages, the same bytes each time."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

from superpose.records import write_bytes


@dataclass(frozen=True, slots=True)
class FigureFiles:
    """One figure as SVG for light and for dark pages, and as PNG for everywhere else."""

    light: bytes
    dark: bytes
    png: bytes = b""

    def write(self, folder: str | Path, name: str) -> list[Path]:
        """Write `name.svg`, `name-dark.svg` and `name.png` into a folder; returns their paths."""
        files = {f"{name}.svg": self.light, f"{name}-dark.svg": self.dark, f"{name}.png": self.png}
        return [write_bytes(Path(folder) / file, data) for file, data in files.items() if data]


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """Colours of a page.

    The hues are Okabe and Ito's, which every kind of colour vision tells apart, darkened on
    light pages and lightened on dark ones until each has a contrast of at least 3 : 1.
    """

    name: str
    paper: str
    ink: str
    soft: str
    line: str
    hues: tuple[str, ...]
    positive: str
    negative: str

    @property
    def diverging(self) -> LinearSegmentedColormap:
        """From negative over paper to positive: zero is the page itself."""
        return _gradient("diverging", self.negative, self.paper, self.positive)

    @property
    def sequential(self) -> LinearSegmentedColormap:
        """One hue, from nearly the page to full colour: more is further from the page."""
        low, high = ("#d5d2dc", "#84286a") if self.name == "light" else ("#4a4752", "#f0a0d4")
        return _gradient("sequential", low, high)

    def parameters(self) -> dict[str, Any]:
        """Matplotlib parameters for this style, from its defaults, not from the user's settings."""
        return {
            "axes.edgecolor": self.soft,
            "axes.facecolor": "none",
            "axes.grid": False,
            "axes.labelcolor": self.ink,
            "axes.labelpad": 5,
            "axes.labelsize": 9,
            "axes.linewidth": 0.7,
            "axes.prop_cycle": cycler(color=self.hues),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlecolor": self.ink,
            "axes.titlesize": 9,
            "axes.titleweight": "regular",
            "figure.constrained_layout.h_pad": 0.05,
            "figure.constrained_layout.use": True,
            "figure.constrained_layout.w_pad": 0.05,
            "figure.dpi": 100,
            "figure.facecolor": self.paper,
            "font.family": "DejaVu Sans",
            "font.size": 9,
            "grid.color": self.line,
            "grid.linewidth": 0.6,
            "hatch.color": self.paper,
            "image.interpolation": "nearest",
            "legend.borderaxespad": 0.2,
            "legend.columnspacing": 1.6,
            "legend.fontsize": 8.5,
            "legend.frameon": False,
            "legend.handlelength": 1.4,
            "lines.linewidth": 1.6,
            "mathtext.fontset": "dejavusans",
            "path.simplify": True,
            "svg.fonttype": "path",
            "svg.hashsalt": "superpose",
            "text.color": self.ink,
            "xtick.color": self.soft,
            "xtick.labelcolor": self.ink,
            "xtick.labelsize": 8.5,
            "xtick.major.width": 0.7,
            "xtick.minor.width": 0.5,
            "ytick.color": self.soft,
            "ytick.labelcolor": self.ink,
            "ytick.labelsize": 8.5,
            "ytick.major.width": 0.7,
            "ytick.minor.width": 0.5,
        }


LIGHT = Style(
    name="light",
    paper="#fdfdfb",
    ink="#1c1e21",
    soft="#5a6068",
    line="#dddcd6",
    hues=("#0069a6", "#c24e00", "#00805d", "#ad5389", "#9a7400", "#2f87b5", "#5a6068"),
    positive="#b04a00",
    negative="#00619c",
)
DARK = Style(
    name="dark",
    paper="#14171a",
    ink="#e7e5e0",
    soft="#a2a8af",
    line="#30353b",
    hues=("#5cb3e8", "#f08a45", "#3cbf95", "#dd93bf", "#e0b83c", "#9fd4f2", "#a2a8af"),
    positive="#f2914c",
    negative="#5fb4ea",
)

Draw = Callable[..., None]


def render(draw: Draw, *data: Any, **options: Any) -> FigureFiles:
    """Run `draw(figure, style, *data, **options)` once for each style.

    `draw` is a pure function that fills the empty figure it is given. The user's own matplotlib
    settings neither matter nor change; equal data makes equal bytes.
    """
    light, png = _files(draw, LIGHT, ("svg", "png"), data, options)
    (dark,) = _files(draw, DARK, ("svg",), data, options)
    return FigureFiles(light, dark, png)


def drawn(draw: Draw, style: Style, *data: Any, **options: Any) -> Figure:
    """The figure of one style, as an object of matplotlib's; notebooks show it."""
    with _settings(style):
        figure = Figure()
        FigureCanvasAgg(figure)
        draw(figure, style, *data, **options)
        _settle(figure)
        return figure


@contextmanager
def _settings(style: Style) -> Iterator[None]:
    with mpl.rc_context():
        # What is not a setting of the figure (the backend) stays as it is: to touch it would
        # load a window system.
        keep = {"backend", "backend_fallback", "interactive", "toolbar", "timezone"}
        defaults = {k: v for k, v in mpl.rcParamsDefault.items() if k not in keep}
        mpl.rcParams.update({**defaults, **style.parameters()})  # pyright: ignore
        yield


def _files(
    draw: Draw, style: Style, formats: Sequence[str], data: Sequence[Any], options: dict[str, Any]
) -> list[bytes]:
    figure = drawn(draw, style, *data, **options)
    with _settings(style):
        return [_saved(figure, each) for each in formats]


def _settle(figure: Figure) -> None:
    """Lay out once and round the places: the solver's last digits differ from run to run."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, bottom, width, height = np.round(axes.get_position(original=True).bounds, 5)
        axes.set_position((left, bottom, width, height))


def _saved(figure: Figure, kind: str) -> bytes:
    # Without these, the file would name the time and the version of matplotlib.
    metadata = {"Date": None, "Creator": "superpose"} if kind == "svg" else {"Software": None}
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=200, metadata=metadata)
    return file.getvalue()


def _gradient(name: str, *colours: str) -> LinearSegmentedColormap:
    return LinearSegmentedColormap.from_list(name, colours)


def thumbnail(image: np.ndarray) -> bytes:
    """A small grey image `[height, width]` with values in [0, 1] as PNG, dark strokes on white."""
    pixels = np.rint(255 * (1 - np.clip(image, 0, 1))).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()
