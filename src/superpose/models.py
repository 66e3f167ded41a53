"""The toy model: x → h → x̂ and its loss, in plain PyTorch. Every kernel must equal this."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyModel:
    r"""`n` features through `m` hidden dimensions and back; holds no weights.

    $h = f(x W)$, $\hat x = g(h W^\top + b)$, with W `[*run, n, m]` (rows are directions) and b
    `[*run, n]`; $f$ is `hidden` and $g$ is `output`, each "linear" or "relu".
    Raises ValueError for sizes below 1 and unknown activations.
    Source: Toy Models of Superposition, section 2 (`hidden="relu"`: section on the privileged
    basis).

    >>> model = ToyModel(n=3, m=2)
    >>> W, b = model.initial(seed=0, run=0)
    >>> model.forward(torch.ones(4, 3), W, b).shape
    torch.Size([4, 3])
    """

    n: int
    m: int
    hidden: Literal["linear", "relu"] = "linear"
    output: Literal["relu", "linear"] = "relu"

    def __post_init__(self) -> None:
        for name in ("n", "m"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(
                    f"ToyModel({name}={value!r}): {name} is a whole number of at least 1"
                )
        for name in ("hidden", "output"):
            value = getattr(self, name)
            if value not in ("linear", "relu"):
                raise ValueError(
                    f'ToyModel({name}={value!r}): the activation is "linear" or "relu"'
                )

    def encode(
        self, x: Float[Tensor, "*batch n"], W: Float[Tensor, "*run n m"]
    ) -> Float[Tensor, "*out m"]:
        """Hidden activations h = f(x W)."""
        h = x @ W
        return h.relu() if self.hidden == "relu" else h

    def decode(
        self,
        h: Float[Tensor, "*batch m"],
        W: Float[Tensor, "*run n m"],
        b: Float[Tensor, "*run n"],
    ) -> Float[Tensor, "*out n"]:
        """The reconstruction x̂ = g(h Wᵀ + b)."""
        out = h @ W.mT + b.unsqueeze(-2)
        return out.relu() if self.output == "relu" else out

    def forward(
        self,
        x: Float[Tensor, "*batch n"],
        W: Float[Tensor, "*run n m"],
        b: Float[Tensor, "*run n"],
    ) -> Float[Tensor, "*out n"]:
        """x̂ for each sample: `[batch, n]` under weights `[*run, n, m]` gives `[*run, batch, n]`."""
        return self.decode(self.encode(x, W), W, b)

    def loss(
        self,
        x: Float[Tensor, "*batch n"],
        W: Float[Tensor, "*run n m"],
        b: Float[Tensor, "*run n"],
        importance: Float[Tensor, " n"],
    ) -> Float[Tensor, "*run"]:
        """The sum over features of I_i (x_i − x̂_i)², mean over the batch."""
        error = x - self.forward(x, W, b)
        return (importance * error**2).sum(-1).mean(-1)

    def initial(self, seed: int, run: int) -> tuple[Float[Tensor, "n m"], Float[Tensor, " n"]]:
        """Weights at step 0: W normal with standard deviation √(2/(n+m)), b zero.

        A function of (seed, run) alone. The notebook's scale depends on how many models it
        trains at once (a quirk of Xavier's rule on a three-axis tensor); this one does not.
        """
        rng = np.random.Generator(np.random.Philox(key=np.array([seed, run], np.uint64)))
        W = rng.standard_normal((self.n, self.m), np.float32) * np.sqrt(2 / (self.n + self.m))
        return torch.from_numpy(W.astype(np.float32)), torch.zeros(self.n)


class ToyNetwork(nn.Module):
    """One toy model with its weights, as a module: hooks, optimisers and SAEs attach to it.

    `encoder` is a submodule whose output is the hidden layer, so that activations can be
    harvested by name.

    >>> model = ToyModel(n=3, m=2)
    >>> ToyNetwork(model, *model.initial(0, 0))(torch.ones(4, 3)).shape
    torch.Size([4, 3])
    """

    def __init__(self, model: ToyModel, W: Float[Tensor, "n m"], b: Float[Tensor, " n"]) -> None:
        super().__init__()
        self.model = model
        self.W = nn.Parameter(W.clone())
        self.b = nn.Parameter(b.clone())
        self.encoder = _Encoder(self)

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        return self.model.decode(self.encoder(x), self.W, self.b)


class _Encoder(nn.Module):
    def __init__(self, network: ToyNetwork) -> None:
        super().__init__()
        # A tuple hides the parent from module registration, which would recurse.
        self._network = (network,)

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        (network,) = self._network
        return network.model.encode(x, network.W)
