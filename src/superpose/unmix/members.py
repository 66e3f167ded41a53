"""One dictionary in training: its parameters, its moments, and what it has seen."""

from collections.abc import Mapping
from math import isfinite, isnan
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from superpose.unmix import fused
from superpose.unmix.codes import Code
from superpose.unmix.optimiser import Adam
from superpose.unmix.plain import Flat, Plain, Slope, Way
from superpose.unmix.recipe import SAETraining
from superpose.unmix.weights import Layout, Weights, aligned

_MEMORY = 0.01  # weight of the newest smallest kept value in its running mean
_CPU = torch.device("cpu")
DIVERGED = "the loss is not finite: the training diverged; lower lr"
_FEW = 256  # samples whose latents are looked at together when latents are revived
_FIRST = 1024  # samples of the first batch that tell how long the encoder's rows begin
COLUMNS = ("step", "loss", "l0", "explained_variance", "dead", "rate")


class Member:
    """One member of a stack.

    It shares nothing with its neighbours but the batches: in a batched product the bits of one
    matrix may depend on how many others there are. It costs four vectors of the size of its
    parameters: these, Adam's two moments, and the gradient. The kernels add lists: k · batch
    entries where k are kept, and for L1, JumpReLU and Gated up to a fifth of batch · d_sae entries,
    or all of them where d_in or d_out is no multiple of 16.
    """

    def __init__(
        self,
        code: Code,
        training: SAETraining,
        layout: Layout,
        key: tuple[int, int],
        device: torch.device = _CPU,
    ) -> None:
        self.code, self.training, self.layout, self.key = code, training, layout, key
        theta, on_cpu = _initial(code, layout, key), device.type == "cpu"
        self.theta: Any = theta if on_cpu else torch.from_numpy(theta).to(device)
        self.adam = (fused.FusedAdam if on_cpu else Adam)(layout, self.theta)
        self.way = way(code, layout, device)
        self.silent = np.zeros(code.d_sae, np.int64)
        self.threshold, self.steps, self.advice = float("nan"), 0, ""
        self.window = np.zeros(4)  # loss, squared error, active latents, steps since the last row
        self.rows: list[tuple[float, ...]] = []

    @torch.no_grad()
    def begin(
        self,
        centre: Float[Tensor, " d_out"],
        x: Float[Tensor, "batch d_in"],
        target: Float[Tensor, "batch d_out"],
    ) -> None:
        """Put the decoder's bias somewhere, and fit the encoder's length to the first samples.

        Where the code asks for it, rows are scaled by the factor at which the first reconstruction
        is nearest to its target.
        """
        parts = self.layout.views(torch.as_tensor(self.theta))
        parts["b_dec"].copy_(centre)
        if not self.code.fitted:
            return
        x, target = (each[:_FIRST].to(parts["E"].device) for each in (x, target))
        nobody = torch.zeros(self.code.d_sae, dtype=torch.bool, device=x.device)
        found = self.code.objective(self.layout.assemble(parts), x, target, nobody)
        wanted = (target - parts["b_dec"]).double()
        given = wanted - found.error.double()
        factor = float((wanted * given).sum() / (given**2).sum())
        if isfinite(factor) and factor > 0:
            parts["E"].mul_(factor)

    def step(self, x: Flat, target: Flat) -> None:
        """Learn from one batch. A member that has diverged stays as it is."""
        if self.advice:
            return
        slope = self.way.gradient(self.theta, x, target, self.dead)
        if not isfinite(slope.loss):
            self.advice = DIVERGED
        else:
            self.adam.step(slope.gradient, self.training.rate(self.steps))
            if self.code.tied:
                parts = self.layout.views(self.theta)
                parts["E"][:] = parts["W_dec"]
        self._notice(slope, len(x))
        self._revive_when_due(x, target)
        self.steps += 1

    @property
    def dead(self) -> Bool[np.ndarray, " d_sae"]:
        """Which latents have been silent for `dead_after` samples."""
        return self.silent >= self.training.dead_after

    def _notice(self, slope: Slope, batch: int) -> None:
        self.silent += batch
        self.silent[slope.fired] = 0
        if not isnan(slope.smallest):
            # The plain mean at first, so that the first value does not stay for long.
            # Of a short training, the last tenth.
            memory = max(_MEMORY, min(1.0, 10 / self.training.steps))
            weight = max(memory, 1 / (self.steps + 1))
            before = 0.0 if isnan(self.threshold) else self.threshold
            self.threshold = before + weight * (slope.smallest - before)
        self.window += (slope.loss, slope.squared_error / batch, slope.active / batch, 1)

    def record(self, step: int, rate: float) -> dict[str, float]:
        """Close the window of steps since the last row with a row of means."""
        loss, error, active, steps = self.window
        steps = steps or float("nan")
        row = (step, loss / steps, active / steps, 1 - error / steps, self.dead.mean(), rate)
        self.rows.append(row)
        self.window[:] = 0
        return dict(zip(COLUMNS, row, strict=True))

    def _revive_when_due(self, x: Flat, target: Flat) -> None:
        training = self.training
        every = max(1, training.dead_after // training.batch)
        if (self.steps + 1) % every or self.steps >= (1 - training.decay) * training.steps:
            return
        # The auxiliary term has as long again to teach them.
        silence = training.dead_after * (2 if self.code.auxk else 1)
        lost = self.silent >= silence
        if lost.any() and not self.advice:
            self._revive(lost, torch.as_tensor(x), torch.as_tensor(target))

    @torch.no_grad()
    def _revive(self, lost: Bool[np.ndarray, " d_sae"], x: Tensor, target: Tensor) -> None:
        """Point latents at what is reconstructed worst in a batch.

        Samples are drawn in proportion to their squared error to the power two, and the latent
        takes the direction of what the others left of its sample.
        """
        parts, weights = self.layout.views(torch.as_tensor(self.theta)), self.weights(x.device)
        # As in use, some samples at a time, which stay in cache.
        pieces = zip(x.split(_FEW), target.split(_FEW), strict=True)
        errors = [y - weights.decode(self.code.latents(weights, part)) for part, y in pieces]
        error = torch.cat(errors)
        weight = ((error.double() ** 2).sum(-1) ** 2).cpu().numpy()
        if not 0.0 < weight.sum() < np.inf:
            return
        rng = np.random.default_rng([*self.key, self.steps])
        # Each sample once: two latents on one direction would have one gradient for ever.
        number = min(int(lost.sum()), int(np.count_nonzero(weight)))
        chosen = rng.choice(len(weight), number, replace=False, p=weight / weight.sum())
        samples = torch.from_numpy(chosen).to(x.device)
        found = np.flatnonzero(lost)[:number]
        places = torch.from_numpy(found).to(x.device)
        written = torch.nn.functional.normalize(error[samples], dim=-1)
        read = written
        if not self.layout.subtract:
            read = torch.nn.functional.normalize(x[samples], dim=-1)
        alive = parts["E"][torch.from_numpy(~lost).to(x.device)].norm(dim=-1)
        parts["W_dec"][places] = written
        parts["E"][places] = read * (alive.mean() if len(alive) and not self.code.tied else 1.0)
        parts["b_enc"][places] = 0.0
        for name, value in self.code.start.items():
            parts[name][places] = value
        self.silent[found] = 0
        self.adam.forget(places)

    def remark(self) -> str:
        """What went wrong, "" if nothing did."""
        if self.advice or not self.rows:
            return self.advice
        return self.code.advice(self.rows[-1][COLUMNS.index("l0")])

    def weights(self, device: torch.device = _CPU) -> Weights:
        """The trained weights in the units of training, with the vectors that the code keeps."""
        trained = self.layout.weights(torch.as_tensor(self.theta).clone().to(device))
        extra = self.code.finished(trained.extra, 0.0 if isnan(self.threshold) else self.threshold)
        return Weights(
            trained.W_enc,
            trained.b_enc,
            trained.W_dec,
            trained.b_dec,
            extra=extra,
            subtract=trained.subtract,
        )

    def state(self) -> dict[str, NDArray]:
        """All that the next step depends on, and the rows so far, as copies."""
        flat = {"theta": self.theta, "mean": self.adam.mean, "square": self.adam.square}
        arrays = {name: torch.as_tensor(array).cpu().numpy() for name, array in flat.items()}
        arrays |= {"silent": self.silent, "window": self.window}
        return {name: array.copy() for name, array in arrays.items()} | {
            "threshold": np.array(self.threshold),
            "steps": np.array([self.steps, self.adam.steps]),
            "diverged": np.array(bool(self.advice)),
            "rows": np.array(self.rows, np.float64).reshape(-1, len(COLUMNS)),
        }

    def restore(self, state: Mapping[str, NDArray]) -> None:
        """Go on from `state()`."""
        flat = {"theta": self.theta, "mean": self.adam.mean, "square": self.adam.square}
        for name, array in flat.items():
            torch.as_tensor(array).copy_(torch.from_numpy(state[name]))
        self.silent[:], self.window[:] = state["silent"], state["window"]
        self.threshold = float(state["threshold"])
        self.steps, self.adam.steps = (int(number) for number in state["steps"])
        self.advice = DIVERGED if bool(state["diverged"]) else ""
        self.rows = [tuple(row) for row in state["rows"].tolist()]


def way(code: Code, layout: Layout, device: torch.device = _CPU) -> Way:
    """The way of a member, a fixed rule of its code and of where it lives.

    On a CPU the codes that kernels know go by them, on anything else all go by the plain
    definition. Inside a kernel's way further rules are of shape and density.
    """
    if device.type == "cpu" and fused.serves(code):
        return fused.Fused(code, layout)
    return Plain(code, layout)


def _initial(code: Code, layout: Layout, key: tuple[int, int]) -> NDArray[np.float32]:
    """First parameters: random unit rows, the encoder the decoder transposed, no biases.

    A transcoder reads one space and writes another, so its encoder has rows of its own.
    """
    rng = np.random.Generator(np.random.Philox(key=np.array(key, np.uint64)))
    theta = aligned(layout.size)
    parts = layout.views(theta)
    for name in ("W_dec",) if layout.subtract else ("W_dec", "E"):
        rows = rng.standard_normal(parts[name].shape, np.float32)
        parts[name][:] = torch.nn.functional.normalize(torch.from_numpy(rows), dim=-1).numpy()
    if layout.subtract:
        parts["E"][:] = parts["W_dec"]
    for name, value in code.start.items():
        parts[name][:] = value
    return theta
