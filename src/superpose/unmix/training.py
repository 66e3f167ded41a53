"""Training sparse autoencoders: one loop for every code."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from superpose.activations import Activations
from superpose.unmix.codes import Code
from superpose.unmix.sae import SAE

_RECORDS = 100
_POOL = 4096
_BETA_1, _BETA_2 = 0.9, 0.999


@dataclass(frozen=True, slots=True, kw_only=True)
class SAETraining:
    """How long and how fast: `samples` in batches, Adam with a linear warm-up and decay.

    `warmup` and `decay` are shares of the training. A latent that has been silent for
    `dead_after` samples is dead; dead latents are counted, and revived until the decay begins.
    Raises ValueError for a value outside its range.
    """

    samples: int = 1_000_000
    batch: int = 512
    lr: float = 1e-2
    warmup: float = 0.05
    decay: float = 0.3
    dead_after: int = 50_000

    def __post_init__(self) -> None:
        for name in ("samples", "batch", "dead_after"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(
                    f"SAETraining({name}={value!r}): {name} is a whole number of at least 1"
                )
        if not 0.0 < self.lr < np.inf:
            raise ValueError(f"SAETraining(lr={self.lr!r}): lr is positive and finite")
        if min(self.warmup, self.decay) < 0.0 or not self.warmup + self.decay <= 1.0:
            raise ValueError(
                f"SAETraining(warmup={self.warmup!r}, decay={self.decay!r}): they are shares of "
                "the training, at least 0 and together at most 1"
            )

    @property
    def steps(self) -> int:
        """The number of batches, enough to hold `samples`."""
        return -(-self.samples // self.batch)

    def rate(self, step: int) -> float:
        """The learning rate of one step.

        >>> recipe = SAETraining(samples=100, batch=1, lr=1.0, warmup=0.1, decay=0.2)
        >>> recipe.rate(0), recipe.rate(50), recipe.rate(99)
        (0.1, 1.0, 0.05)
        """
        rise = (step + 1) / max(self.warmup * self.steps, 1.0)
        fall = (self.steps - step) / max(self.decay * self.steps, 1.0)
        return self.lr * min(1.0, rise, fall)


def unmix(
    acts: Activations | Float[Tensor, "samples d_in"],
    code: Code,
    training: SAETraining | None = None,
    *,
    seeds: int | range = 3,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> SAE:
    """Train a stack of sparse autoencoders on `acts`, one for each of `seeds`.

    Each member has its own initial weights and its own shuffling, functions of (`seed`, its
    number) alone: `seeds=range(2, 3)` trains member 2 as it is in the stack, bit for bit. Batches
    are cut from permutations of the samples, so that every sample comes once an epoch.
    Activations are centred and scaled to mean squared norm 1 for training, and the weights are
    given back in the units of `acts`. `progress(done, total)` hears of the steps of all members.

    Raises ValueError when all samples are equal. A training that diverged is told in `advice`.
    """
    training = SAETraining() if training is None else training
    x = (acts if isinstance(acts, Activations) else Activations(acts)).x
    runs = range(seeds) if isinstance(seeds, int) else seeds
    if len(runs) == 0 or min(runs) < 0 or not 0 <= seed < 2**32:
        raise ValueError(
            f"unmix(seeds={seeds!r}, seed={seed!r}): train at least one member; seeds are whole "
            "numbers of at least 0, and seed is below 2**32"
        )
    centre, scale = _units(x)
    x = (x - centre) / scale
    trained = []
    with _one_thread():
        for place, run in enumerate(runs):
            source = np.random.Philox(key=np.array([seed, run], np.uint64))
            member = _Member(x, code, training, source)
            for step in range(training.steps):
                member.step(step)
                if progress is not None:
                    progress(place * training.steps + step + 1, len(runs) * training.steps)
            trained.append(member)
    W_enc, b_enc, W_dec, b_dec = (
        torch.stack(same).detach() for same in zip(*(m.weights for m in trained), strict=True)
    )
    return SAE(
        W_enc,
        b_enc * scale,
        W_dec,
        b_dec * scale + centre,
        code,
        history=_history(runs, trained),
        advice=tuple(
            f"member {r}: {m.advice}" for r, m in zip(runs, trained, strict=True) if m.advice
        ),
    )


class _Member:
    """One autoencoder in training.

    Members take turns and share no tensor: in a batched product the bits of one matrix may
    depend on how many others there are, and on where they lie in memory.
    """

    def __init__(
        self,
        x: Float[Tensor, "samples d_in"],
        code: Code,
        training: SAETraining,
        source: np.random.Philox,
    ) -> None:
        self.x, self.code, self.training = x, code, training
        self.rng = np.random.Generator(source)
        rows = self.rng.standard_normal((code.d_sae, x.shape[1]), np.float32)
        W_dec = torch.nn.functional.normalize(torch.from_numpy(rows).to(x.device), dim=-1)
        biases = x.new_zeros(code.d_sae), x.new_zeros(x.shape[1])
        self.adam = Adam([W_dec.mT, biases[0], W_dec, biases[1]])
        self.weights = self.adam.weights
        self.batches = _batches(len(x), training.batch, self.rng)
        self.silent = torch.zeros(code.d_sae, dtype=torch.int64, device=x.device)
        self.records: list[dict[str, float]] = []
        self.advice = ""

    def step(self, step: int) -> None:
        x = self.x.index_select(0, next(self.batches).to(self.x.device))
        z, error = self._forward(x)
        loss = (error**2).sum(-1).mean() + self.code.penalty(z)
        self._descend(torch.autograd.grad(loss, self.weights), self.training.rate(step))
        with torch.no_grad():
            self.silent = (self.silent + len(x)).masked_fill((z > 0).any(0), 0)
            if step % max(1, self.training.steps // _RECORDS) == 0:
                self._record(step, x, z, error, loss)
            self._revive_when_due(step)

    def _forward(
        self, x: Float[Tensor, "batch d_in"]
    ) -> tuple[Float[Tensor, "batch d_sae"], Float[Tensor, "batch d_in"]]:
        W_enc, b_enc, W_dec, b_dec = self.weights
        z = self.code.latents((x - b_dec) @ W_enc + b_enc)
        return z, x - (z @ W_dec + b_dec)

    @torch.no_grad()
    def _descend(self, gradients: tuple[Tensor, ...], rate: float) -> None:
        W_dec, gradient = self.weights[2], gradients[2]
        # Along the row there is nothing to gain: its length is put back to 1 after the step.
        gradient -= (gradient * W_dec).sum(-1, keepdim=True) * W_dec
        self.adam.step(gradients, rate)
        W_dec /= torch.linalg.vector_norm(W_dec, dim=-1, keepdim=True).clamp_min(1e-12)

    def _record(
        self,
        step: int,
        x: Float[Tensor, "batch d_in"],
        z: Float[Tensor, "batch d_sae"],
        error: Float[Tensor, "batch d_in"],
        loss: Float[Tensor, ""],
    ) -> None:
        spread = ((x - x.mean(0)) ** 2).sum()
        dead = self.silent >= self.training.dead_after
        self.records.append(
            {
                "step": step,
                "loss": loss.item(),
                "l0": (z > 0).sum(-1).float().mean().item(),
                "explained_variance": (1 - (error**2).sum() / spread).item(),
                "dead": dead.float().mean().item(),
            }
        )
        if not np.isfinite(loss.item()):
            self.advice = "the loss is not finite: the training diverged; lower lr"

    def _revive_when_due(self, step: int) -> None:
        every = max(1, self.training.dead_after // self.training.batch)
        if (step + 1) % every or step >= (1 - self.training.decay) * self.training.steps:
            return
        dead = self.silent >= self.training.dead_after
        if dead.any():
            self._revive(dead)

    def _revive(self, dead: Bool[Tensor, " d_sae"]) -> None:
        """Point dead latents at what is reconstructed worst.

        Samples are drawn in proportion to their squared error to the power two, and the latent
        takes the direction of what the others left of its sample.
        """
        (place,) = torch.nonzero(dead, as_tuple=True)
        pool = self.x[torch.from_numpy(self.rng.integers(0, len(self.x), _POOL)).to(self.x.device)]
        _, error = self._forward(pool)
        weight = ((error.double() ** 2).sum(-1) ** 2).cpu().numpy()
        if not 0.0 < weight.sum() < np.inf:
            return
        chosen = self.rng.choice(_POOL, len(place), p=weight / weight.sum())
        direction = torch.nn.functional.normalize(
            error[torch.from_numpy(chosen).to(error.device)], dim=-1
        )
        W_enc, b_enc, W_dec, _ = self.weights
        alive = W_enc[:, ~dead].norm(dim=0)
        W_dec[place] = direction
        W_enc[:, place] = direction.mT * (alive.mean() if len(alive) else 1.0)
        b_enc[place] = 0.0
        self.silent[place] = 0
        self.adam.forget(0, (slice(None), place))
        self.adam.forget(1, place)
        self.adam.forget(2, place)


class Adam:
    """Adam on a handful of small tensors, kept as views of one flat vector.

    A step is seven operations whatever the number of tensors; the optimiser of PyTorch costs more
    than the gradient at these sizes, and imports its compiler on the first step.
    Source: Kingma & Ba 2015.
    """

    def __init__(self, initial: list[Tensor]) -> None:
        self.flat = torch.cat([w.reshape(-1) for w in initial])
        self.mean, self.square = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self.sizes = [w.numel() for w in initial]
        self.shapes = [w.shape for w in initial]
        self.weights = [w.requires_grad_() for w in self._views(self.flat)]
        self.steps = 0

    def _views(self, flat: Tensor) -> list[Tensor]:
        parts = flat.split(self.sizes)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def step(self, gradients: Sequence[Tensor], rate: float) -> None:
        """One step down the gradients, one for each of `weights`."""
        self.steps += 1
        g = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self.mean.lerp_(g, 1 - _BETA_1)
        self.square.mul_(_BETA_2).addcmul_(g, g, value=1 - _BETA_2)
        spread = (self.square / (1 - _BETA_2**self.steps)).sqrt_().add_(1e-8)
        self.flat.addcdiv_(self.mean, spread, value=-rate / (1 - _BETA_1**self.steps))

    def forget(self, tensor: int, index: Tensor | tuple[slice, Tensor]) -> None:
        """Clear the running moments of some entries of one tensor."""
        for moment in (self.mean, self.square):
            self._views(moment)[tensor][index] = 0.0


def _units(
    x: Float[Tensor, "samples d_in"],
) -> tuple[Float[Tensor, " d_in"], Float[Tensor, ""]]:
    """The mean, and the root of the mean squared norm about it."""
    wide = x.double()
    centre = wide.mean(0)
    scale = ((wide - centre) ** 2).sum(-1).mean().sqrt()
    if not scale > 0:
        raise ValueError("unmix: all samples are equal, so there is nothing to un-mix")
    return centre.float(), scale.float()


def _batches(samples: int, batch: int, rng: np.random.Generator) -> Iterator[Int[Tensor, " batch"]]:
    """Batches of one size, cut from one permutation of all samples after another."""
    left = np.empty(0, np.int64)
    while True:
        while len(left) < batch:
            left = np.concatenate([left, rng.permutation(samples)])
        yield torch.from_numpy(left[:batch])
        left = left[batch:]


def _history(runs: range, members: list[_Member]) -> pa.Table:
    rows = [
        {"step": record["step"], "run": run, **record}
        for run, member in zip(runs, members, strict=True)
        for record in member.records
    ]
    return pa.Table.from_pylist(rows)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The order of a sum, and so its bits, may depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
