"""The figure of uniform superposition: which factor is best at each density, and what trains."""

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from superpose.figures.axes import column, density_axis, distinct, points
from superpose.figures.packing import SINGLE
from superpose.figures.style import Style


def factor_ladder(figure: Figure, style: Style, factors: pa.Table, models: pa.Table) -> None:
    """Dimensions per feature against 1/p: each factor alone, the best one, and trained models.

    `factors` has the columns `factor`, `p`, `gain`, `dims_per_feature`; a thin line is what a model
    packed with that factor alone shows, and is thick where its gain is the highest of all.
    `models` has `p` and `dims_per_feature`, a dot each model.
    """
    p, gain = column(factors, "p"), column(factors, "gain")
    name, dims = column(factors, "factor"), column(factors, "dims_per_feature")
    best = np.array([gain[k] >= gain[p == p[k]].max() - 1e-6 for k in range(p.size)])
    figure.set_size_inches(SINGLE * 1.2, 3.4)
    axes = figure.subplots()
    trained = column(models, "p")
    points(axes, 1 / trained, column(models, "dims_per_feature"), style.ink, size=12.0)
    for hue, each in zip(style.hues, distinct(name), strict=False):
        here = np.flatnonzero(name == each)
        here = here[np.argsort(-p[here])]
        axes.plot(1 / p[here], dims[here], color=hue, lw=0.9, alpha=0.8, zorder=3)
        thick = np.where(best[here], dims[here], np.nan)
        look = {"color": hue, "lw": 3.0, "marker": "o", "ms": 4.5, "zorder": 4}
        axes.plot(1 / p[here], thick, label=each, **look)
    density_axis(axes, trained)
    axes.set_ylim(0, 1.08)
    axes.set_ylabel(r"dimensions per feature   $m\,/\,\Vert W\Vert_F^2$")
    axes.legend(title="thick: best factor", handlelength=1.2, labelspacing=0.3)
