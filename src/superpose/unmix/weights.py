"""Weights of dictionaries: what is kept of one, how it lies in memory, and the units it is in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

Flat = TypeVar("Flat", NDArray, Tensor)
Samples = Float[Tensor, "_ _"] | Float[np.ndarray, "_ _"]
"""Rows as people have them, samples or directions: tensors or arrays of any floating type."""
_LINE = 64  # bytes of a cache line, and of the widest vector register


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    r"""Encoder, decoder and biases of a stack of dictionaries, with any leading axes `run`.

    `extra` holds further vectors of the code, one number a latent: `threshold` (JumpReLU,
    BatchTopK, Matryoshka), `log_gain` and `shift` (Gated). `subtract` says whether the decoder's
    bias is taken from the input first, as an autoencoder does and a transcoder does not.

    >>> weights = Weights(torch.eye(2), torch.zeros(2), torch.eye(2), torch.ones(2))
    >>> weights.pre(torch.tensor([[3.0, 1.0]]))
    tensor([[2., 0.]])
    """

    W_enc: Float[Tensor, "*run d_in d_sae"]
    b_enc: Float[Tensor, "*run d_sae"]
    W_dec: Float[Tensor, "*run d_sae d_out"]
    b_dec: Float[Tensor, "*run d_out"]
    extra: Mapping[str, Float[Tensor, "*run d_sae"]] = field(default_factory=dict, kw_only=True)
    subtract: bool = field(default=True, kw_only=True)

    def pre(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "*run batch d_sae"]:
        r"""Pre-activations: $(x - b_{dec}) W_{enc} + b_{enc}$, or $x W_{enc} + b_{enc}$."""
        inside = x - self.b_dec.unsqueeze(-2) if self.subtract else x
        return inside @ self.W_enc + self.b_enc.unsqueeze(-2)

    def decode(self, z: Float[Tensor, "*run batch d_sae"]) -> Float[Tensor, "*run batch d_out"]:
        """The reconstruction: latents times their rows of the decoder, plus its bias."""
        return z @ self.W_dec + self.b_dec.unsqueeze(-2)


@dataclass(frozen=True, slots=True)
class Layout:
    """How the parameters of one dictionary in training lie in one flat vector.

    In this order: E, the encoder transposed, [d_sae, d_in]; W_dec [d_sae, d_out]; b_enc [d_sae];
    b_dec [d_out]; then the code's trained `extras`, [d_sae] each. Both matrices have one row a
    latent, so that the few active ones are read and written in whole rows.

    >>> Layout(d_in=3, d_sae=5, d_out=3).size
    38
    """

    d_in: int
    d_sae: int
    d_out: int
    extras: tuple[str, ...] = ()
    subtract: bool = True

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each part, in order."""
        parts = {
            "E": (self.d_sae, self.d_in),
            "W_dec": (self.d_sae, self.d_out),
            "b_enc": (self.d_sae,),
            "b_dec": (self.d_out,),
        }
        return parts | dict.fromkeys(self.extras, (self.d_sae,))

    @property
    def size(self) -> int:
        """How many numbers the parameters are."""
        return sum(int(np.prod(shape)) for shape in self.shapes.values())

    def views(self, flat: Flat) -> dict[str, Flat]:
        """Each part by name, as a view of the flat vector."""
        found, start = {}, 0
        for name, shape in self.shapes.items():
            length = int(np.prod(shape))
            found[name] = flat[start : start + length].reshape(shape)
            start += length
        return found

    def weights(self, flat: Float[Tensor, " size"]) -> Weights:
        """The weights as views of the flat vector, the code's parameters under trained names."""
        return self.assemble(self.views(flat))

    def assemble(self, parts: Mapping[str, Tensor]) -> Weights:
        """The weights from their parts by name."""
        return Weights(
            parts["E"].mT,
            parts["b_enc"],
            parts["W_dec"],
            parts["b_dec"],
            extra={name: parts[name] for name in self.extras},
            subtract=self.subtract,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """What training subtracts from each column of the data, and then divides it by.

    The columns of one layer share one scale: the root of their mean squared norm about the
    centre, times √layers where several layers are read at once, so that a sample's mean squared
    norm is 1 in all.
    """

    centre: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]


def fold(trained: Weights, units: Units, target_units: Units) -> Weights:
    r"""A dictionary trained in normalised units, in the user's: the same function of the data.

    With $x = σ x' + c$ for the input and $y = τ y' + d$ for the target, latents are measured in
    $u = \sqrt{mean(τ^2)}$: $W_{enc} = W'_{enc} u / σ$, $W_{dec} = τ W'_{dec} / u$,
    $b_{dec} = τ b'_{dec} + d$, and all that is added to a pre-activation or compared with one
    grows by u. Where all scales are equal, as in every autoencoder of one layer, the encoder
    stays as it is and the rows of the decoder keep their norm.
    """
    unit = float(np.sqrt(np.mean(target_units.scale**2)))

    def wide(column: NDArray) -> Tensor:
        return torch.as_tensor(column, dtype=torch.float64, device=trained.W_enc.device)

    scale, target_scale = wide(units.scale), wide(target_units.scale)
    W_enc = trained.W_enc.double() * (unit / scale).unsqueeze(-1)
    b_enc = trained.b_enc.double() * unit
    if not trained.subtract:
        b_enc = b_enc - wide(units.centre) @ W_enc
    extra = {
        name: value if name == "log_gain" else (value.double() * unit).to(value.dtype)
        for name, value in trained.extra.items()
    }
    exact = (
        W_enc,
        b_enc,
        trained.W_dec.double() * (target_scale / unit),
        trained.b_dec.double() * target_scale + wide(target_units.centre),
    )
    kept = (tensor.to(trained.W_enc.dtype) for tensor in exact)
    return Weights(*kept, extra=extra, subtract=trained.subtract)


def samples_like(like: Tensor, x: Samples, d_in: int, asks: str) -> Float[Tensor, "rows d_in"]:
    """Rows as a tensor of the kind and on the device of `like`.

    Raises ValueError unless they are a table `[rows, d_in]`; `asks` begins the sentence.
    """
    table = torch.as_tensor(x).detach()
    if table.ndim != 2 or table.shape[1] != d_in:
        raise ValueError(f"{asks} of shape {list(table.shape)} have to be [rows, d_in={d_in}]")
    return table.to(like)


def aligned(shape: int | tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Zeros that begin on a cache line.

    The bits of a matrix product depend on where its operands begin: on a boundary of the same
    size everywhere, one program gives one result.
    """
    kind = np.dtype(dtype)
    length = int(np.prod(shape)) * kind.itemsize
    raw = np.zeros(length + _LINE, np.uint8)
    start = -raw.ctypes.data % _LINE
    return raw[start : start + length].view(kind).reshape(shape)
