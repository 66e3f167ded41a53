"""The sparse autoencoder: weights of a stack of dictionaries and the code they share."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from superpose import records
from superpose.unmix.codes import L1, Code, TopK

_ARRAYS = ("W_enc", "b_enc", "W_dec", "b_dec")


@runtime_checkable
class Dictionary(Protocol):
    """What scoring asks of a dictionary, learned or not."""

    @property
    def directions(self) -> Float[Tensor, "*run d_sae d_in"]:
        """Unit directions, one a latent."""
        ...

    def encode(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "*run batch d_sae"]:
        """Non-negative latents of each sample."""
        ...

    def decode(self, z: Float[Tensor, "*run batch d_sae"]) -> Float[Tensor, "*run batch d_in"]:
        """The vectors the latents stand for."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class SAE:
    r"""A stack of sparse autoencoders: $z = code((x - b_{dec}) W_{enc} + b_{enc})$,
    $\hat x = z W_{dec} + b_{dec}$.

    The rows of `W_dec` are the directions, of unit norm. Indexing takes members along the first
    stack axis, as indexing a tensor does: `sae[0]` drops the axis, `sae[:1]` keeps it.
    `history` is the training, one row a recorded step and run: step, run, loss, l0,
    explained_variance, dead; `advice` says what went wrong, if anything did.

    >>> from superpose.unmix.codes import TopK
    >>> sae = SAE(torch.eye(2), torch.zeros(2), torch.eye(2), torch.zeros(2), TopK(d_sae=2, k=1))
    >>> sae.decode(sae.encode(torch.tensor([[3.0, 1.0]])))
    tensor([[3., 0.]])
    """

    W_enc: Float[Tensor, "*run d_in d_sae"]
    b_enc: Float[Tensor, "*run d_sae"]
    W_dec: Float[Tensor, "*run d_sae d_in"]
    b_dec: Float[Tensor, "*run d_in"]
    code: Code
    history: pa.Table | None = None
    advice: tuple[str, ...] = ()

    @property
    def directions(self) -> Float[Tensor, "*run d_sae d_in"]:
        """Unit decoder rows."""
        return torch.nn.functional.normalize(self.W_dec, dim=-1)

    def encode(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "*run batch d_sae"]:
        """Latents of each sample under each member of the stack."""
        pre = (x - self.b_dec.unsqueeze(-2)) @ self.W_enc + self.b_enc.unsqueeze(-2)
        return self.code.latents(pre)

    def decode(self, z: Float[Tensor, "*run batch d_sae"]) -> Float[Tensor, "*run batch d_in"]:
        """The reconstruction x̂."""
        return z @ self.W_dec + self.b_dec.unsqueeze(-2)

    def __len__(self) -> int:
        if self.W_enc.ndim == 2:
            raise TypeError("len(sae): this SAE is a single member without a stack axis")
        return len(self.W_enc)

    def __getitem__(self, index: int | slice) -> "SAE":
        if self.W_enc.ndim == 2:
            raise IndexError(f"sae[{index!r}]: this SAE is a single member without a stack axis")
        weights = {name: getattr(self, name)[index] for name in _ARRAYS}
        return replace(self, **weights, history=self._history_of(index))

    def _history_of(self, index: int | slice) -> pa.Table | None:
        if self.history is None:
            return None
        run = self.history["run"].to_numpy()
        # The rows come member by member, so members in order of appearance.
        _, first = np.unique(run, return_index=True)
        members = run[np.sort(first)][index]
        return self.history.filter(pa.array(np.isin(run, members)))

    def arrays(self) -> dict[str, NDArray]:
        """The weights by name, as arrays."""
        return {name: getattr(self, name).detach().cpu().numpy() for name in _ARRAYS}

    def save(self, folder: str | Path) -> Path:
        """Write the weights, the code and the history to a folder, atomically."""
        code = {"name": type(self.code).__name__, **asdict(self.code)}  # pyright: ignore
        about = {"code": code, "advice": self.advice}
        tables = {} if self.history is None else {"history": self.history}
        return records.save(folder, kind="sae", about=about, arrays=self.arrays(), tables=tables)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray], code: Code) -> "SAE":
        """An SAE from `arrays()`. Raises ValueError for missing names or shapes that clash."""
        missing = [name for name in _ARRAYS if name not in arrays]
        if missing:
            raise ValueError(f"SAE.from_arrays: no {', '.join(missing)} among {sorted(arrays)}")
        W_enc, b_enc, W_dec, b_dec = (np.asarray(arrays[name]) for name in _ARRAYS)
        *run, d_in, d_sae = W_enc.shape
        expected = {
            "b_enc": (b_enc, [*run, d_sae]),
            "W_dec": (W_dec, [*run, d_sae, d_in]),
            "b_dec": (b_dec, [*run, d_in]),
        }
        for name, (array, shape) in expected.items():
            if list(array.shape) != shape:
                raise ValueError(
                    f"SAE.from_arrays: {name} is {list(array.shape)}, but with W_enc "
                    f"{list(W_enc.shape)} it has to be {shape}"
                )
        if d_sae != code.d_sae:
            raise ValueError(f"SAE.from_arrays: W_enc has {d_sae} latents, the code {code.d_sae}")
        W_enc, b_enc, W_dec, b_dec = (
            torch.tensor(arrays[name], dtype=torch.float32) for name in _ARRAYS
        )
        return cls(W_enc, b_enc, W_dec, b_dec, code)


def load(folder: str | Path) -> SAE:
    """Read an SAE written by `SAE.save`; raises records.RecordError where a byte has changed."""
    record = records.load(folder, kind="sae")
    described = dict(record.about["code"])
    code = {kind.__name__: kind for kind in (TopK, L1)}[described.pop("name")](**described)
    sae = SAE.from_arrays(record.arrays, code)
    return replace(sae, history=record.tables.get("history"), advice=tuple(record.about["advice"]))
