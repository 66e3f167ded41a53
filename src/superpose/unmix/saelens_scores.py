"""The scores of SAELens 6.54.12 for synthetic data, number for number, beside this project's own.

They differ in what they count. A cosine of −1 is as good as 1; every latent, dead or not, is
scored on the feature it is closest to, so that a feature which nobody finds costs nothing;
shrinkage is that of whole samples. They are here to be compared with published tables.
"""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from superpose.unmix.detection import Scores, harmonic
from superpose.unmix.evidence import Evidence, assign
from superpose.unmix.firing import Active, Rows, coded, switched_on, turned
from superpose.unmix.matching import checked_samples, checked_truth
from superpose.unmix.sae import Dictionary
from superpose.unmix.weights import Samples


def saelens_scores(
    sae: Dictionary,
    truth: Samples,
    activations: Samples,
    active: Active,
) -> Scores:
    r"""What `sae_lens.synthetic` says of a dictionary on these samples, one number a run.

    `mcc_saelens`: mean |cosine| of the one-to-one matching, over the pairs it has.
    `uniqueness_saelens`: how many features are the closest of some latent, by |cosine|, divided
    by all latents. `precision_saelens`, `recall_saelens`, `f1_saelens`, `accuracy_saelens`: each
    latent as a detector of its closest feature, averaged over latents, an undefined one being 0.
    `shrinkage_saelens`: mean of $\|\hat x\| / \|x\|$ over the samples with $\|x\| > 10^{-6}$.
    `explained_variance_saelens`, `l0_saelens`, and `dead_saelens`, a number of latents.

    Their evaluation draws samples of its own; here they are given. Source: sae_lens 6.54.12,
    `synthetic/evals.py`.

    >>> from superpose.unmix.baselines import neurons
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    >>> saelens_scores(neurons(2), torch.eye(2), x, x)["uniqueness_saelens"]
    array([0.5])
    """
    truth = checked_truth(sae, truth, "saelens_scores")
    x = checked_samples(sae, activations, "saelens_scores")
    found = Evidence.of(sae, x, active, len(truth))
    once = np.ones(len(found.errors.samples))
    measured = found.errors.scores(once)
    shrinkage = _shrinkage(sae, x)
    unit = torch.nn.functional.normalize(truth.detach().double().cpu(), dim=-1).float()
    directions = sae.directions.detach().float().cpu()
    directions = directions.reshape(-1, *directions.shape[-2:])
    rows = []
    for own, latents in zip(directions, found.latents, strict=True):
        cosine = (own @ unit.T).abs().numpy()
        closest = cosine.argmax(1)
        feature = assign(cosine)
        paired = np.take_along_axis(cosine, feature.clip(0)[:, None], 1)[:, 0][feature >= 0]
        rows.append(
            {
                "mcc": paired.mean(dtype=np.float64),
                "uniqueness": len(np.unique(closest)) / len(own),
                **_detection(found.known, latents, closest),
            }
        )
    scores = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    scores |= {
        "shrinkage": shrinkage,
        "explained_variance": measured["explained_variance"],
        "l0": measured["l0"],
        "dead": (~found.fired).sum(-1).astype(float),
    }
    return {f"{name}_saelens": values for name, values in scores.items()}


def _detection(features: Rows, latents: Rows, closest: NDArray[np.int64]) -> dict[str, np.floating]:
    samples = len(features.indptr) - 1
    on, called = switched_on(features), switched_on(latents)
    # The feature of each latent, as one column a latent.
    wanted = turned(Rows(turned(on)[closest]))
    hits, calls, positives = (
        np.asarray(rows.sum(0), np.float64)
        for rows in (Rows(called.multiply(wanted)), called, wanted)
    )
    precision = hits / np.maximum(calls, 1)
    recall = hits / np.maximum(positives, 1)
    wrong = calls + positives - 2 * hits
    return {
        "precision": precision.mean(),
        "recall": recall.mean(),
        "f1": harmonic(precision, recall).mean(),
        "accuracy": (1 - wrong / samples).mean(),
    }


def _shrinkage(sae: Dictionary, x: Tensor) -> Float[np.ndarray, " runs"]:
    total, number = 0.0, 0
    for where, _, back in coded(sae, x):
        length = x[where].norm(dim=-1)
        kept = length > 1e-6
        total = total + (back.norm(dim=-1) / length)[:, kept].double().sum(-1).cpu().numpy()
        number += int(kept.sum())
    return np.asarray(total) / max(number, 1)
