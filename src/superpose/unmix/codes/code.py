"""What a code is, and the parts that several share: selection with ties, and the auxiliary term."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from superpose.unmix.weights import Weights


@dataclass(frozen=True, slots=True, eq=False)
class Objective:
    """What one step minimises, and what it saw on the way.

    `loss` is the mean over the batch of the squared error summed over dimensions, plus the code's
    own terms; `smallest` is the smallest value that a selection over the whole batch kept.
    """

    loss: Float[Tensor, ""]
    z: Float[Tensor, "batch d_sae"]
    error: Float[Tensor, "batch d_out"]
    smallest: Float[Tensor, ""] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Code(ABC):
    """How `d_sae` latents come about. Subclass it to train a code of your own.

    `start` names the code's trained vectors, one number a latent, with the value they begin at;
    `tied` says that the encoder is the decoder transposed, in training and after it; `fitted`
    that its first length is fitted to the first batch instead of being 1; `auxk` is the weight
    of the auxiliary term that teaches dead latents, 0 where a code has none.
    """

    d_sae: int
    start: ClassVar[Mapping[str, float]] = MappingProxyType({})
    tied: ClassVar[bool] = False
    fitted: ClassVar[bool] = True
    auxk = 0.0

    def __post_init__(self) -> None:
        check_count(self, "d_sae")

    @property
    def extras(self) -> tuple[str, ...]:
        """The names of the code's trained vectors, in the order of the parameters."""
        return tuple(self.start)

    @abstractmethod
    def latents(
        self, weights: Weights, x: Float[Tensor, "batch d_in"]
    ) -> Float[Tensor, "*run batch d_sae"]:
        """Latents of each sample as a trained dictionary gives them, none of them negative."""

    @abstractmethod
    def objective(
        self,
        weights: Weights,
        x: Float[Tensor, "batch d_in"],
        target: Float[Tensor, "batch d_out"],
        dead: Bool[Tensor, " d_sae"],
    ) -> Objective:
        """What training minimises for one member: this is the definition, kernels equal it."""

    def finished(
        self, trained: Mapping[str, Float[Tensor, " d_sae"]], threshold: float
    ) -> dict[str, Float[Tensor, " d_sae"]]:
        """The vectors that a trained dictionary keeps, from those in training.

        `threshold` is the running mean of the smallest kept value, NaN where there was none.
        """
        return dict(trained)

    def advice(self, l0: float) -> str:
        """What to do where training ended with `l0` active latents a sample, "" for nothing."""
        return ""


def largest(values: Float[Tensor, "*batch n"], k: int) -> Bool[Tensor, "*batch n"]:
    """Which are the `k` largest along the last axis, and positive: fewer than k may be.

    Of equal values those of the lowest index are kept, which torch.topk does not promise.

    >>> import torch
    >>> largest(torch.tensor([2.0, 3.0, 2.0, -1.0]), 2)
    tensor([ True,  True, False, False])
    """
    least = values.topk(min(k, values.shape[-1]), dim=-1).values[..., -1:]
    above, level = values > least, values == least
    room = k - above.sum(-1, keepdim=True)
    if (level.sum(-1, keepdim=True) > room).any():
        level = level & (level.cumsum(-1) <= room)
    return (above | level) & (values > 0)


def squared(error: Float[Tensor, "batch d_out"]) -> Float[Tensor, ""]:
    """The mean over samples of the squared norm."""
    return (error**2).sum(-1).mean()


def auxiliary(
    weights: Weights,
    pre: Float[Tensor, "batch d_sae"],
    error: Float[Tensor, "batch d_out"],
    dead: Bool[Tensor, " d_sae"],
) -> Float[Tensor, ""]:
    r"""AuxK: how badly the dead latents reconstruct what the others left of each sample.

    The largest positive pre-activations of dead latents, as many as there are dead ones but at
    most half of d_out (and at least 1), give ê = z W_dec without bias; the term is the mean of
    $\|e - \hat e\|^2$, e the error, held fixed. 0 where no latent is dead.
    Source: Gao et al. 2024, appendix A.2.
    """
    number = int(dead.sum())
    if number == 0:
        return error.new_zeros(())
    k = max(1, min(weights.W_dec.shape[-1] // 2, number))
    theirs = pre.masked_fill(~dead, 0.0)
    z = theirs.masked_fill(~largest(theirs, k), 0.0)
    return squared(error.detach() - z @ weights.W_dec)


def check_count(code: object, name: str) -> None:
    """Raise ValueError unless the code's number of that name is whole and at least 1."""
    value = getattr(code, name)
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise ValueError(
            f"{type(code).__name__}({name}={value!r}): {name} is a whole number of at least 1"
        )
    object.__setattr__(code, name, int(value))


def check_k(code: object) -> None:
    """Raise ValueError unless 1 ≤ k ≤ d_sae."""
    check_count(code, "k")
    k, d_sae = getattr(code, "k"), getattr(code, "d_sae")  # noqa: B009
    if k > d_sae:
        raise ValueError(
            f"{type(code).__name__}(d_sae={d_sae}, k={k}): k latents of d_sae are kept, so k is "
            "at most d_sae"
        )


def check_weight(code: object, name: str, weighs: str, *, positive: bool = False) -> None:
    """Raise ValueError unless the code's number of that name is finite and not negative."""
    value = getattr(code, name)
    number = isinstance(value, int | float | np.integer | np.floating)
    if not (number and isfinite(value) and (value > 0 if positive else value >= 0)):
        least = "positive" if positive else "at least 0"
        raise ValueError(
            f"{type(code).__name__}({name}={value!r}): {name} {weighs}; it is finite and {least}"
        )
    object.__setattr__(code, name, float(value))
