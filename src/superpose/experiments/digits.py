"""A small network that reads handwritten digits, and what its hidden layer says."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from superpose.activations import Activations
from superpose.measures import explained_variance
from superpose.networks import Measurement, Names, Neurons, harvest, measure, name, untangle
from superpose.unmix import SAE, SAETraining, TopK, unmix

HIDDEN = 32
_LAYER = "relu"
_HELD_OUT = 450
_EPOCHS = 60
_ENOUGH = 0.9

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Digits:
    """The trained network with its data: 1,797 images of 8 × 8 pixels in [0, 1] and their labels.

    `activations` are the hidden layer of all images after the ReLU, labelled; `accuracy` is on
    the `held_out` images, which training did not see, `train_accuracy` on the others.
    """

    network: nn.Sequential
    images: Float[np.ndarray, "samples 8 8"]
    labels: Int[np.ndarray, " samples"]
    activations: Activations
    accuracy: float
    train_accuracy: float
    held_out: Int[np.ndarray, " held_out"]


@dataclass(frozen=True, slots=True, eq=False)
class NetworkFindings:
    """What one layer says: how superposed, its latents with names, its neurons un-mixed."""

    measurement: Measurement
    sae: SAE
    code: TopK
    explained_variance: float
    names: Names
    neurons: Neurons
    advice: tuple[str, ...] = ()

    @property
    def tables(self) -> dict[str, pa.Table]:
        """By name: "measurement", "names" (a row a latent), "neurons"."""
        return {
            "measurement": self.measurement.table(),
            "names": self.names.table(),
            "neurons": self.neurons.table(),
        }


def train_digits(hidden: int = HIDDEN, seed: int = 0) -> Digits:
    """Train 64 → `hidden` ReLU → 10 on scikit-learn's digits; the same seed, the same network."""
    # scikit-learn takes longer to import than the rest of the package, and only this needs it.
    from sklearn.datasets import load_digits

    pixels, target = load_digits(return_X_y=True)
    images = (np.asarray(pixels) / 16).astype(np.float32).reshape(-1, 8, 8)
    labels = np.asarray(target).astype(np.int64)
    x, y = torch.from_numpy(images.reshape(len(images), -1)), torch.from_numpy(labels)
    order = np.random.default_rng(seed).permutation(len(x))
    held_out, rest = order[:_HELD_OUT], order[_HELD_OUT:]
    with _reproducibly(seed):
        network = _fit(x[rest], y[rest], hidden)
        acts = harvest(network, x, layers=[_LAYER])[_LAYER]
        with torch.no_grad():
            right = (network(x).argmax(-1) == y).numpy()
    return Digits(
        network=network,
        images=images,
        labels=labels,
        activations=Activations(acts.x, labels=labels),
        accuracy=float(right[held_out].mean()),
        train_accuracy=float(right[rest].mean()),
        held_out=held_out,
    )


def look(
    acts: Activations,
    *,
    seed: int = 0,
    seeds: int = 3,
    code: TopK | None = None,
    training: SAETraining | None = None,
    progress: Progress | None = None,
) -> NetworkFindings:
    """Measure the superposition of a layer, un-mix it, and name its latents and neurons.

    `acts` may be a user's own; without labels nothing is named and `advice` says so. `code` is
    the autoencoder's, chosen by the data if not given; of its `seeds` members the one that
    explains most is named. `progress(done, total)` counts in
    thousandths of the whole.
    """
    training = training or SAETraining(samples=100_000, lr=1e-2, dead_after=20_000)
    clock = _Clock(progress)
    measurement = measure(
        acts, training=training, seeds=seeds, seed=seed, progress=clock.part(0.0, 0.7)
    )
    code = _choose(acts, training, seed) if code is None else code
    sae = unmix(acts, code, training, seeds=seeds, seed=seed, progress=clock.part(0.7, 0.95))
    best = int(np.argmax([_explained(sae[run], acts.x) for run in range(seeds)]))
    names = name(sae, acts, member=best, seed=seed)
    neurons = untangle(sae, acts, names, member=best, seed=seed)
    clock.part(0.95, 1.0)(1, 1)
    return NetworkFindings(
        measurement=measurement,
        sae=sae[best],
        code=code,
        explained_variance=_explained(sae[best], acts.x),
        names=names,
        neurons=neurons,
        advice=(*measurement.advice, *sae.advice, *names.advice),
    )


def _choose(acts: Activations, training: SAETraining, seed: int) -> TopK:
    """Two latents a unit, and the fewest active that explain 90 % of the variance.

    More latents split a digit into more of its shapes, each rarer and harder to name; more active
    ones let a latent be a part of many digits: on the digits the median effective number of labels
    of a named latent is 2.1 with two active, 2.4 with three and 3.2 with six.
    """
    d = acts.x.shape[1]
    code = TopK(d_sae=2 * d, k=1)
    for k in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32):
        if k > d:
            break
        code = TopK(d_sae=2 * d, k=k)
        if _explained(unmix(acts, code, training, seeds=1, seed=seed)[0], acts.x) >= _ENOUGH:
            break
    return code


@torch.no_grad()
def _explained(sae: SAE, x: Float[Tensor, "samples d"]) -> float:
    return explained_variance(x, sae.decode(sae.encode(x)))


def _fit(
    x: Float[Tensor, "samples pixels"], y: Int[Tensor, " samples"], hidden: int
) -> nn.Sequential:
    network = nn.Sequential()
    network.add_module("hidden", nn.Linear(x.shape[1], hidden))
    network.add_module(_LAYER, nn.ReLU())
    network.add_module("output", nn.Linear(hidden, 10))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(_EPOCHS):
        for batch in torch.randperm(len(x)).split(64):
            loss = nn.functional.cross_entropy(network(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


@contextmanager
def _reproducibly(seed: int) -> Iterator[None]:
    """One thread and one seed, and both as they were afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


class _Clock:
    """Progress of parts, as thousandths of the whole."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress

    def part(self, begin: float, end: float) -> Progress:
        def hear(done: int, total: int) -> None:
            if self.progress is not None:
                self.progress(round(1000 * (begin + (end - begin) * done / total)), 1000)

        return hear
