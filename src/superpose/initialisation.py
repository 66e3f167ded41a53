"""Weights at step 0, as objects: what a model starts from is part of what it is.

An object draws all parameters of one model from a stream of random numbers; `describe` turns it
into plain JSON values and `from_description` back.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

import numpy as np
from jaxtyping import Float

Shapes = Mapping[str, tuple[int, ...]]
Arrays = tuple[Float[np.ndarray, "..."], ...]


@dataclass(frozen=True, slots=True)
class Xavier:
    r"""Weights normal with standard deviation $\sqrt{2 / (n + m)}$, biases 0: the default.

    The scale is a matrix's own, whatever is trained beside it.
    Source: Glorot and Bengio, Understanding the difficulty of training deep feedforward neural
    networks (2010).

    >>> shapes = {"W": (3, 2), "b": (3,)}
    >>> [a.shape for a in Xavier().draw(shapes, np.random.default_rng(0), run=0)]
    [(3, 2), (3,)]
    """

    def draw(self, shapes: Shapes, rng: np.random.Generator, run: int) -> Arrays:
        """The parameters of one model, float32, in the order of `shapes`."""
        return _normal(shapes, rng, {k: np.sqrt(2 / sum(s)) for k, s in _weights(shapes).items()})


@dataclass(frozen=True, slots=True)
class Notebook:
    r"""The papers' notebook: standard deviation $\sqrt{2 / (m (n + \mathrm{instances}))}$, b 0.

    The notebook applies Xavier's rule to a tensor `[instances, n, m]`, whose fans torch reads as
    $n m$ and $\mathrm{instances} \cdot m$: the scale depends on how many models it trains at
    once, which are `instances` here.
    Raises ValueError for `instances` below 1.
    Source: the notebook of Toy Models of Superposition (`xavier_normal_` on W of three axes).

    >>> W, b = Notebook(instances=10).draw({"W": (20, 5), "b": (20,)}, np.random.default_rng(0), 0)
    >>> round(float(W.std()), 1)  # the square root of 2 / 150 is 0.115
    0.1
    """

    instances: int

    def __post_init__(self) -> None:
        if not isinstance(self.instances, int | np.integer) or self.instances < 1:
            raise ValueError(
                f"Notebook(instances={self.instances!r}): how many models the notebook trains at "
                "once is a whole number of at least 1"
            )
        object.__setattr__(self, "instances", int(self.instances))

    def draw(self, shapes: Shapes, rng: np.random.Generator, run: int) -> Arrays:
        """The parameters of one model, float32, in the order of `shapes`."""
        scales = {
            k: np.sqrt(2 / (m * (n + self.instances))) for k, (n, m) in _weights(shapes).items()
        }
        return _normal(shapes, rng, scales)


@dataclass(frozen=True, slots=True)
class Normal:
    r"""Weights normal with standard deviation `W`, biases normal with `b`, or 0.

    $N(0, 1/m)$ is `Normal(m**-0.5)`.
    Raises ValueError for a standard deviation that is negative or not finite.

    >>> W, b = Normal(W=0.5).draw({"W": (3, 2), "b": (3,)}, np.random.default_rng(0), run=0)
    >>> b
    array([0., 0., 0.], dtype=float32)
    """

    W: float
    b: float = 0.0

    def __post_init__(self) -> None:
        for name in ("W", "b"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0.0 <= value < np.inf):
                raise ValueError(
                    f"Normal({name}={value!r}): a standard deviation is finite and at least 0"
                )
            object.__setattr__(self, name, float(value))

    def draw(self, shapes: Shapes, rng: np.random.Generator, run: int) -> Arrays:
        """The parameters of one model, float32, in the order of `shapes`."""
        return _normal(shapes, rng, dict.fromkeys(_weights(shapes), self.W) | {"b": self.b})


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Given:
    """Given weights: `W` and `b` of a tied model, `W_in`, `W_out` and `b` of an untied one.

    Each is the same for every run, W `[n, m]` and b `[n]`, or has one more axis in front, with
    an entry for each run number. b is 0 where it is not given. Arrays and tensors are copied as
    float32; equal numbers make equal, hashable objects.
    Raises ValueError for arrays of other shapes or with numbers that are not finite, and, where a
    model draws, for a run number past the end of a leading axis.

    >>> start = Given(W=np.eye(2))
    >>> start == Given(W=[[1, 0], [0, 1]]), start
    (True, Given(W=[2, 2]))
    """

    W: Any = field(default=None, compare=False)
    W_in: Any = field(default=None, compare=False)
    W_out: Any = field(default=None, compare=False)
    b: Any = field(default=None, compare=False)
    digest: str = field(default="", init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha256()
        for name in ("W", "W_in", "W_out", "b"):
            if getattr(self, name) is not None:
                array = _plain(name, getattr(self, name))
                object.__setattr__(self, name, array)
                digest.update(f"{name} {array.shape}\n".encode())
                digest.update(array.astype("<f4").tobytes())
        object.__setattr__(self, "digest", digest.hexdigest())
        if set(self.arrays) - {"b"} not in ({"W"}, {"W_in", "W_out"}):
            raise ValueError(
                f"{self!r}: give W (and b) for a tied model, W_in and W_out (and b) for an "
                "untied one"
            )

    def __repr__(self) -> str:
        return f"Given({', '.join(f'{k}={list(a.shape)}' for k, a in self.arrays.items())})"

    @property
    def arrays(self) -> dict[str, Float[np.ndarray, "..."]]:
        """The arrays that were given, float32 and read-only, by name."""
        given = {name: getattr(self, name) for name in ("W", "W_in", "W_out", "b")}
        return {name: array for name, array in given.items() if array is not None}

    def check(self, shapes: Shapes) -> None:
        """Raise ValueError where the arrays do not fit a model whose parameters have `shapes`."""
        unfit = {
            k: a
            for k, a in self.arrays.items()
            if a.shape[-len(shapes.get(k, ())) :] != shapes.get(k)
        }
        if unfit or self.arrays.keys() | {"b"} != shapes.keys():
            needed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
            raise ValueError(
                f"{self!r}: the model has {needed}; give these shapes, or each with one more axis "
                "in front, for the runs"
            )

    def draw(self, shapes: Shapes, rng: np.random.Generator, run: int) -> Arrays:
        """The parameters of one model, float32, in the order of `shapes`."""
        self.check(shapes)
        drawn = []
        for name, shape in shapes.items():
            array = self.arrays.get(name, np.zeros(shape, np.float32))
            if array.ndim > len(shape):
                if run >= len(array):
                    raise ValueError(
                        f"{self!r}: run {run} has no {name} of its own; the {len(array)} given "
                        f"are for the runs 0 to {len(array) - 1}"
                    )
                array = array[run]
            drawn.append(array.copy())
        return tuple(drawn)


Initialisation = Xavier | Notebook | Normal | Given


def describe(init: Initialisation) -> dict[str, Any]:
    """An initialisation as plain JSON values; `from_description` is the inverse.

    Given arrays are kept as their shape and the base-64 text of their float32 bytes, little end
    first.

    >>> describe(Normal(W=0.5))
    {'name': 'normal', 'W': 0.5, 'b': 0.0}
    """
    name = {"name": type(init).__name__.lower()}
    if not isinstance(init, Given):
        return name | asdict(init)
    return name | {
        key: {
            "shape": list(array.shape),
            "float32": base64.b64encode(array.astype("<f4").tobytes()).decode(),
        }
        for key, array in init.arrays.items()
    }


def from_description(described: dict[str, Any]) -> Initialisation:
    """The initialisation that `describe` described.

    >>> from_description({"name": "xavier"})
    Xavier()
    """
    given = dict(described)
    kinds = {kind.__name__.lower(): kind for kind in get_args(Initialisation)}
    kind = kinds.get(given.pop("name", None))
    if kind is None:
        raise ValueError(f"{described!r} describes no initialisation; known are {sorted(kinds)}")
    if kind is Given:
        for name, part in given.items():
            numbers = np.frombuffer(base64.b64decode(part["float32"]), "<f4")
            given[name] = numbers.reshape(part["shape"])
    return kind(**given)


def _weights(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The shapes of the matrices."""
    return {name: shape for name, shape in shapes.items() if len(shape) > 1}


def _normal(shapes: Shapes, rng: np.random.Generator, scales: Mapping[str, float]) -> Arrays:
    """Normal numbers of these standard deviations; a scale of 0 draws nothing from the stream."""
    drawn = []
    for name, shape in shapes.items():
        scale = scales.get(name, 0.0)
        numbers = (
            rng.standard_normal(shape, np.float32) * np.float64(scale) if scale else np.zeros(shape)
        )
        drawn.append(numbers.astype(np.float32))
    return tuple(drawn)


def _plain(name: str, given: Any) -> Float[np.ndarray, "..."]:
    """A read-only float32 copy."""
    given = given.detach().cpu().numpy() if hasattr(given, "detach") else given
    try:
        array = np.array(given, np.float32, order="C")
    except (TypeError, ValueError):
        raise ValueError(f"Given({name}={given!r}): {name} is an array of numbers") from None
    axes = 1 if name == "b" else 2
    if array.ndim not in (axes, axes + 1):
        expected = "[n] or [run, n]" if name == "b" else "[n, m] or [run, n, m]"
        raise ValueError(f"Given: {name} has shape {list(array.shape)}; it is {expected}")
    if not np.isfinite(array).all():
        raise ValueError(f"Given: {name} has entries that are NaN or infinite; a start is finite")
    array.setflags(write=False)
    return array
