"""Which polytope: the orthogonal factors a model packs its features into, and their names.

Features of one factor overlap, features of different factors do not, so a factor is a
connected component of the graph of overlaps. Four directions at right angles in a plane are
therefore two digons, an octahedron is three, and a triangular bipyramid is a triangle and a
digon: `classify` names the factors, `polytope` what they make together. `local_bases` and
`asymmetric_motifs` look for two arrangements that are no polytopes.
"""

from superpose.geometry.bases import LocalBases, local_bases
from superpose.geometry.classification import (
    Factor,
    classify,
    noise_overlap,
    polytope,
    summary,
)
from superpose.geometry.ideals import Shape, shapes, tolerance
from superpose.geometry.motifs import AsymmetricMotif, asymmetric_motifs

__all__ = [
    "AsymmetricMotif",
    "Factor",
    "LocalBases",
    "Shape",
    "asymmetric_motifs",
    "classify",
    "local_bases",
    "noise_overlap",
    "polytope",
    "shapes",
    "summary",
    "tolerance",
]
