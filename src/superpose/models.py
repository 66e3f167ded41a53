"""The toy model: x → h → x̂ and its loss, in plain PyTorch. Every kernel must equal this."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from superpose.initialisation import Given, Initialisation, Xavier

_XAVIER = Xavier()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyModel:
    r"""`n` features through `m` hidden dimensions and back; holds no weights.

    $h = f(x W)$, $\hat x = g(h W^\top + b)$, with W `[*run, n, m]` (rows are directions) and b
    `[*run, n]`; $f$ is `hidden` and $g$ is `output`, each "linear" or "relu". Where not `tied`,
    $h = f(x W_{in})$ and $\hat x = g(h W_{out}^\top + b)$, with both matrices `[*run, n, m]`.
    $\hat x$ is to equal the `target`: x itself ("identity") or |x| ("abs"). `init` draws the
    weights of step 0 (`superpose.initialisation`).

    The *parameters* of a model, wherever they are passed, are W and b, or W_in, W_out and b: the
    names and the order of `shapes`.
    Raises ValueError for sizes below 1, unknown activations and targets, and weights given at
    the start that do not fit.
    Source: Toy Models of Superposition, section 2 (`hidden="relu"`: section on the privileged
    basis; `target="abs"`: section on computation in superposition).

    >>> model = ToyModel(n=3, m=2)
    >>> W, b = model.initial(seed=0, run=0)
    >>> model.forward(torch.ones(4, 3), W, b).shape
    torch.Size([4, 3])
    >>> list(ToyModel(n=3, m=2, tied=False).shapes)
    ['W_in', 'W_out', 'b']
    """

    n: int
    m: int
    hidden: Literal["linear", "relu"] = "linear"
    output: Literal["relu", "linear"] = "relu"
    tied: bool = True
    target: Literal["identity", "abs"] = "identity"
    init: Initialisation = _XAVIER

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
        if not isinstance(self.tied, bool):
            raise ValueError(
                f"ToyModel(tied={self.tied!r}): True for one matrix W, False for W_in and W_out"
            )
        if self.target not in ("identity", "abs"):
            raise ValueError(
                f'ToyModel(target={self.target!r}): the output is to equal x ("identity") or '
                '|x| ("abs")'
            )
        if not isinstance(self.init, Initialisation):
            raise ValueError(
                f"ToyModel(init={self.init!r}): weights start as one of superpose.initialisation's "
                f"{', '.join(kind.__name__ for kind in get_args(Initialisation))}"
            )
        if isinstance(self.init, Given):
            self.init.check(self.shapes)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The parameters of one model by name, in the order in which they are passed."""
        matrices = ("W",) if self.tied else ("W_in", "W_out")
        return dict.fromkeys(matrices, (self.n, self.m)) | {"b": (self.n,)}

    def encode(
        self, x: Float[Tensor, "*batch n"], W_in: Float[Tensor, "*run n m"]
    ) -> Float[Tensor, "*out m"]:
        """Hidden activations h = f(x W_in); W_in is W where tied."""
        h = x @ W_in
        return h.relu() if self.hidden == "relu" else h

    def decode(
        self,
        h: Float[Tensor, "*batch m"],
        W_out: Float[Tensor, "*run n m"],
        b: Float[Tensor, "*run n"],
    ) -> Float[Tensor, "*out n"]:
        """The reconstruction x̂ = g(h W_outᵀ + b); W_out is W where tied."""
        out = h @ W_out.mT + b.unsqueeze(-2)
        return out.relu() if self.output == "relu" else out

    def forward(
        self, x: Float[Tensor, "*batch n"], *parameters: Float[Tensor, "..."]
    ) -> Float[Tensor, "*out n"]:
        """x̂ for each sample: `[batch, n]` under weights `[*run, n, m]` gives `[*run, batch, n]`.

        Raises ValueError for a number of parameters that is not that of `shapes`.
        """
        W_in, W_out, b = self._split(parameters)
        return self.decode(self.encode(x, W_in), W_out, b)

    def loss(
        self,
        x: Float[Tensor, "*batch n"],
        *parameters: Float[Tensor, "..."],
        importance: Float[Tensor, " n"],
        l1: float = 0.0,
    ) -> Float[Tensor, "*run"]:
        r"""$\sum_i I_i (y_i - \hat x_i)^2 + l_1 \sum_k |h_k|$, mean over the batch.

        y is the target; `l1` at least 0 makes the hidden layer sparse.
        Raises ValueError for a number of parameters that is not that of `shapes`.

        >>> model, x = ToyModel(n=2, m=1, target="abs"), torch.tensor([[-1.0, 0.0]])
        >>> W, b = torch.tensor([[0.0], [0.0]]), torch.tensor([0.5, 0.0])
        >>> model.loss(x, W, b, importance=torch.ones(2))
        tensor(0.2500)
        """
        W_in, W_out, b = self._split(parameters)
        h = self.encode(x, W_in)
        error = (x.abs() if self.target == "abs" else x) - self.decode(h, W_out, b)
        loss = (importance * error**2).sum(-1).mean(-1)
        return loss + l1 * h.abs().sum(-1).mean(-1) if l1 else loss

    def initial(self, seed: int, run: int) -> tuple[Float[Tensor, "..."], ...]:
        """The parameters at step 0, float32, in the order of `shapes`: a function of (seed, run).

        Raises ValueError for negative numbers, and where `init` was given weights for fewer runs.
        """
        if seed < 0 or run < 0:
            raise ValueError(f"initial(seed={seed}, run={run}): whole numbers from 0 on")
        rng = np.random.Generator(np.random.Philox(key=np.array([seed, run], np.uint64)))
        return tuple(torch.from_numpy(drawn) for drawn in self.init.draw(self.shapes, rng, run))

    def _split(self, parameters: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """W_in, W_out and b; for a tied model the first two are one."""
        if len(parameters) != len(self.shapes):
            raise ValueError(
                f"ToyModel(n={self.n}, m={self.m}, tied={self.tied}): {len(parameters)} parameters "
                f"after x, but the model has {', '.join(self.shapes)}; pass them in this order, "
                "and importance by name"
            )
        return parameters[0], parameters[-2], parameters[-1]


class ToyNetwork(nn.Module):
    """One toy model with its weights, as a module: hooks, optimisers and SAEs attach to it.

    Its parameters have the names of `ToyModel.shapes`. `encoder` is a submodule whose output is
    the hidden layer, so that activations can be harvested by name.

    >>> model = ToyModel(n=3, m=2)
    >>> ToyNetwork(model, *model.initial(0, 0))(torch.ones(4, 3)).shape
    torch.Size([4, 3])
    """

    def __init__(self, model: ToyModel, *parameters: Float[Tensor, "..."]) -> None:
        super().__init__()
        model._split(parameters)
        self.model = model
        for name, value in zip(model.shapes, parameters, strict=True):
            self.register_parameter(name, nn.Parameter(value.clone()))
        self.encoder = _Encoder(self)

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        _, W_out, b = self.weights()
        return self.model.decode(self.encoder(x), W_out, b)

    def weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """W_in, W_out and b; for a tied model the first two are one."""
        return self.model._split(tuple(getattr(self, name) for name in self.model.shapes))


class _Encoder(nn.Module):
    def __init__(self, network: ToyNetwork) -> None:
        super().__init__()
        # A tuple hides the parent from module registration, which would recurse.
        self._network = (network,)

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        (network,) = self._network
        return network.model.encode(x, network.weights()[0])
