"""How fast capacity grows, as measured and as theory predicts it."""

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from superpose.experiments.capacity.codes import RandomCodes, largest, laws_of, sizes
from superpose.experiments.capacity.points import ROW, TEXT, row_of
from superpose.experiments.capacity.training import TrainedModels
from superpose.statistics import mean_interval
from superpose.theory.bounds import almost_orthogonal
from superpose.theory.capacity import relu_capacity
from superpose.theory.recovery import recovery_probability

KISSING = {2: 6, 3: 12, 4: 24, 5: 40, 6: 72, 7: 126, 8: 240}


def predictions(codes: RandomCodes, trained: TrainedModels) -> pa.Table:
    """What theory says of the same questions: name, law, value, m, n.

    "normal": random codes with binary features, interference taken as normal. "any support":
    so many random directions exist with overlaps below 1/(2k − 1), at which *every* support of
    k is recovered. "random directions": `relu_capacity`, what training has to beat. "kissing": the
    most directions known with all cosines at most 1/2, which leave a loss of just 7/32 (Conway &
    Sloane 1999, Sphere packings, lattices and groups, table 1.5).
    """
    n, number = sizes(codes.limit), np.arange(1, codes.most + 1)
    rows = []
    for m in codes.dims if codes.lowest == 1 else ():
        # The logarithm of the chance is linear in n.
        first, next_ = (
            np.log([recovery_probability(K + more, m, K, threshold=0.5) for K in number.tolist()])
            for more in (0, 1)
        )
        log_chance = first[:, None] + (n - number[:, None]) * (next_ - first)[:, None]
        failed = -np.expm1(log_chance)
        for law, value in laws_of(codes):
            at = largest(law, value, n, failed, number, codes.error)
            rows.append({"name": "normal"} | row_of(law, value, m, at))
    for k in (k for k in codes.active if k > 1):
        for m in codes.dims:
            at = almost_orthogonal(m, 1 / (2 * k - 1))
            rows.append({"name": "any support"} | row_of("exactly k", k, m, at))
    for m in (m for m in trained.one if m > 1):
        at = relu_capacity(m, trained.error)
        rows.append({"name": "random directions"} | row_of("exactly k", 1, m, at))
        if m in KISSING:
            rows.append({"name": "kissing"} | row_of("exactly k", 1, m, KISSING[m]))
    return pa.Table.from_pylist(rows, pa.schema({"name": TEXT} | ROW))


def growth(points: pa.Table) -> pa.Table:
    """How ln n rises in each series: on m ("exponential") and on ln m ("power law").

    Columns: source, law, value, form, the `slope` with its 95 % interval over seeds (`low`,
    `high`), the coefficient of a quadratic term when one is added (`curvature`, with its
    interval: 0 where the law is straight), the `residual` of the straight line (root mean
    square of ln n averaged over seeds), the range `m_from`, `m_to` and the number of `dims`.
    Only m with an n in every seed count and, but for fixed p, with n above m: below, nothing is
    in superposition. Series of less than three such m are left out. The form with the smaller
    residual describes the range better. The intervals tell the noise between seeds, not
    what lies beyond the range.
    """
    series: dict[tuple, list[dict]] = {}
    for row in points.to_pylist():
        series.setdefault((row["source"], row["law"], row["value"]), []).append(row)
    rows = []
    for (source, law, value), found in series.items():
        m, order = np.unique([row["m"] for row in found], return_inverse=True)
        n = np.stack(
            [[r["n"] for r, i in zip(found, order, strict=True) if i == j] for j in range(m.size)]
        )
        kept = np.isfinite(n).all(1) & ((law == "fixed p") | (n.mean(1) > m))
        m, log_n = m[kept], np.log(n[kept])
        if m.size < 3:
            continue
        for form, x in (("exponential", 1.0 * m), ("power law", np.log(m))):
            about = {"source": source, "law": law, "value": value, "form": form}
            span = {"m_from": int(m[0]), "m_to": int(m[-1]), "dims": m.size}
            rows.append(about | _fit(x, log_n) | span)
    return pa.Table.from_pylist(rows)


def _fit(x: Float[np.ndarray, " dims"], y: Float[np.ndarray, "dims seeds"]) -> dict[str, float]:
    slope = mean_interval(np.polyfit(x, y, 1)[0])
    bend = mean_interval(np.polyfit(x, y, 2)[0])
    mean = y.mean(1)
    residual = mean - np.polyval(np.polyfit(x, mean, 1), x)
    return {
        "slope": slope.estimate,
        "low": slope.low,
        "high": slope.high,
        "curvature": bend.estimate,
        "curvature_low": bend.low,
        "curvature_high": bend.high,
        "residual": float(np.sqrt(np.mean(residual**2))),
    }
