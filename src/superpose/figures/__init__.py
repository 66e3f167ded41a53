"""Tables and arrays to pictures. Nothing here trains, reads files or shows windows."""

from superpose.figures.capacity import capacity_regimes
from superpose.figures.ladder import factor_ladder
from superpose.figures.packing import (
    dimensionality_scatter,
    dims_per_feature,
    direction_plot,
    gram_across_densities,
    phase_map,
)
from superpose.figures.planes import phase_planes
from superpose.figures.plot import plot
from superpose.figures.presence import clouds, power_curves
from superpose.figures.saebench import bench_curves, confusion_maps
from superpose.figures.style import DARK, LIGHT, FigureFiles, Style, render, thumbnail
from superpose.figures.unmixing import faithfulness_curves, recovery_bars

__all__ = [
    "DARK",
    "LIGHT",
    "FigureFiles",
    "Style",
    "bench_curves",
    "capacity_regimes",
    "clouds",
    "confusion_maps",
    "dimensionality_scatter",
    "dims_per_feature",
    "direction_plot",
    "factor_ladder",
    "faithfulness_curves",
    "gram_across_densities",
    "phase_map",
    "phase_planes",
    "plot",
    "power_curves",
    "recovery_bars",
    "render",
    "thumbnail",
]
