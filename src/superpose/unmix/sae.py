"""The sparse autoencoder: weights of a stack of dictionaries and the code they share."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from superpose import records
from superpose.unmix.codes import CODES, Code
from superpose.unmix.weights import Samples, Weights, samples_like

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
class SAE(Weights):
    r"""A stack of sparse autoencoders: $z = code((x - b_{dec}) W_{enc} + b_{enc})$,
    $\hat x = z W_{dec} + b_{dec}$; a transcoder (`subtract` False) leaves $b_{dec}$ out of z.

    The rows of `W_dec` are the directions, of unit norm. A crosscoder reads and writes several
    layers at once: `layers` are the sizes of the parts of a sample, in order, and the norm of a
    latent's row in each is `layer_norms`. Indexing takes members along the first stack axis, as
    indexing a tensor does: `sae[0]` drops the axis, `sae[:1]` keeps it. `history` is the
    training, one row a recorded step and run (`sp.unmix` says what is in it); `advice` says what
    went wrong, if anything did.

    >>> from superpose.unmix.codes import TopK
    >>> sae = SAE(torch.eye(2), torch.zeros(2), torch.eye(2), torch.zeros(2), TopK(d_sae=2, k=1))
    >>> sae.decode(sae.encode(torch.tensor([[3.0, 1.0]])))
    tensor([[3., 0.]])
    """

    code: Code
    history: pa.Table | None = None
    advice: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()

    @property
    def directions(self) -> Float[Tensor, "*run d_sae d_out"]:
        """Unit decoder rows."""
        return torch.nn.functional.normalize(self.W_dec, dim=-1)

    @property
    def layer_norms(self) -> Float[Tensor, "*run d_sae layers"]:
        """The norm of each latent's decoder row in each layer; one layer where there are none.

        In the units of the data, so that a layer of larger activations has larger norms.
        """
        parts = self.W_dec.split(list(self.layers or self.W_dec.shape[-1:]), dim=-1)
        return torch.stack([torch.linalg.vector_norm(part, dim=-1) for part in parts], -1)

    def encode(self, x: Samples) -> Float[Tensor, "*run batch d_sae"]:
        """Latents of each sample under each member of the stack.

        Raises ValueError unless x is `[batch, d_in]`.
        """
        x = samples_like(self.W_enc, x, self.W_enc.shape[-2], "encode: samples")
        return self.code.latents(self, x)

    def __len__(self) -> int:
        if self.W_enc.ndim == 2:
            raise TypeError("len(sae): this SAE is a single member without a stack axis")
        return len(self.W_enc)

    def __getitem__(self, index: int | slice) -> "SAE":
        if self.W_enc.ndim == 2:
            raise IndexError(f"sae[{index!r}]: this SAE is a single member without a stack axis")
        weights = {name: getattr(self, name)[index] for name in _ARRAYS}
        extra = {name: value[index] for name, value in self.extra.items()}
        return replace(self, **weights, extra=extra, history=self._history_of(index))

    def _history_of(self, index: int | slice) -> pa.Table | None:
        if self.history is None:
            return None
        run = self.history["run"].to_numpy()
        # The rows come member by member, so members in order of appearance.
        _, first = np.unique(run, return_index=True)
        members = run[np.sort(first)][index]
        return self.history.filter(pa.array(np.isin(run, members)))

    def arrays(self) -> dict[str, NDArray]:
        """The weights by name, those of the code included, as arrays."""
        tensors = {name: getattr(self, name) for name in _ARRAYS} | dict(self.extra)
        return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}

    def save(self, folder: str | Path, format: str = "superpose") -> Path:
        """Write the weights, the code and the history to a folder, atomically.

        Other formats are those of `unmix.formats`: "saelens", "dictionary_learning", "sparsify".
        """
        if format != "superpose":
            # The formats of others import this module.
            from superpose.unmix import formats

            formats.save(self, folder, format)
            return Path(folder)
        about = {
            "code": {"name": type(self.code).__name__, **asdict(self.code)},
            "advice": self.advice,
            "subtract": self.subtract,
            "layers": self.layers,
        }
        tables = {} if self.history is None else {"history": self.history}
        return records.save(folder, kind="sae", about=about, arrays=self.arrays(), tables=tables)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray], code: Code, **rest: Any) -> "SAE":
        """An SAE from `arrays()`; `rest` are further fields, such as `subtract` and `layers`.

        Raises ValueError for missing names or shapes that clash.
        """
        missing = [name for name in _ARRAYS if name not in arrays]
        if missing:
            raise ValueError(f"SAE.from_arrays: no {', '.join(missing)} among {sorted(arrays)}")
        W_enc, W_dec = (np.asarray(arrays[name]) for name in ("W_enc", "W_dec"))
        *run, _, d_sae = W_enc.shape
        d_out = W_dec.shape[-1]
        extra = [name for name in arrays if name not in _ARRAYS]
        expected = {"b_enc": [*run, d_sae], "W_dec": [*run, d_sae, d_out], "b_dec": [*run, d_out]}
        for name, shape in (expected | {name: [*run, d_sae] for name in extra}).items():
            if list(np.shape(arrays[name])) != shape:
                raise ValueError(
                    f"SAE.from_arrays: {name} is {list(np.shape(arrays[name]))}, but with W_enc "
                    f"{list(W_enc.shape)} it has to be {shape}"
                )
        if d_sae != code.d_sae:
            raise ValueError(f"SAE.from_arrays: W_enc has {d_sae} latents, the code {code.d_sae}")
        tensors = {name: torch.tensor(arrays[name], dtype=torch.float32) for name in arrays}
        weights = {name: tensors[name] for name in _ARRAYS}
        return cls(**weights, code=code, extra={name: tensors[name] for name in extra}, **rest)


def load(folder: str | Path) -> SAE:
    """Read an SAE written by `SAE.save`, in whichever format the folder is.

    Raises records.RecordError where a byte has changed or the folder holds no dictionary.
    """
    if not (Path(folder) / "manifest.json").is_file():
        from superpose.unmix import formats

        return formats.load(folder)
    record = records.load(folder, kind="sae")
    described: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in record.about["code"].items()
    }
    name = str(described.pop("name"))
    if name not in CODES:
        raise records.RecordError(
            f"{folder}: its code {name} is none of superpose's ({', '.join(CODES)}); build the SAE "
            "with SAE.from_arrays and the class that trained it"
        )
    kind: Any = CODES[name]
    code = kind(**described)
    return SAE.from_arrays(
        record.arrays,
        code,
        history=record.tables.get("history"),
        advice=tuple(record.about["advice"]),
        subtract=record.about["subtract"],
        layers=tuple(record.about["layers"]),
    )
