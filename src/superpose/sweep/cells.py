"""What a cell of a sweep is made of, as sections of a file: a model, a world and a recipe."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from superpose import features, initialisation
from superpose.engine import Plateau, Training, log_steps
from superpose.features import Features
from superpose.models import ToyModel
from superpose.sweep.sections import Section

# Strict: `true`, "5" and 1e3 are no counts. What range a number has to lie in the objects that
# are made of it say better, so here it is for the schema alone.
Whole = Annotated[int, Field(strict=True)]
Count = Annotated[int, Field(strict=True, json_schema_extra={"minimum": 1})]
Number = Annotated[float, Field(strict=True)]
Positive = Annotated[float, Field(strict=True, json_schema_extra={"exclusiveMinimum": 0})]
Probability = Annotated[
    float, Field(strict=True, json_schema_extra={"exclusiveMinimum": 0, "maximum": 1})
]
Switch = Annotated[bool, Field(strict=True)]


SIZE = 1_000_000
"""Features, and hidden dimensions, of a model at most: checking one already takes memory."""


def _named(value: Any) -> Any:
    """A kind by its name alone is that kind with every number at its default."""
    return {"name": value} if isinstance(value, str) else value


class XavierSection(Section):
    """Normal weights of standard deviation sqrt(2 / (n + m))."""

    name: Literal["xavier"]


class NotebookSection(Section):
    """The papers' notebook, which trained `instances` models at once."""

    name: Literal["notebook"]
    instances: Count


class NormalSection(Section):
    """Normal weights and biases of given standard deviations."""

    name: Literal["normal"]
    W: Number
    b: Number = 0.0


_Init = Annotated[XavierSection | NotebookSection | NormalSection, Field(discriminator="name")]
Init = Annotated[_Init, BeforeValidator(_named, json_schema_input_type=Literal["xavier"] | _Init)]

_INIT = {
    "xavier": initialisation.Xavier,
    "notebook": initialisation.Notebook,
    "normal": initialisation.Normal,
}


class ModelSection(Section):
    """`[model]`: the fields of `ToyModel`."""

    n: Count | None = None
    m: Count | None = None
    hidden: Literal["linear", "relu"] = "linear"
    output: Literal["relu", "linear"] = "relu"
    tied: Switch = True
    target: Literal["identity", "abs"] = "identity"
    init: Init = XavierSection(name="xavier")

    def made(self) -> ToyModel:
        """The model; ValueError where it cannot be."""
        for name in ("n", "m"):
            if getattr(self, name) is None:
                raise ValueError(f'{name} is missing: set it in [model], or sweep "model.{name}"')
            if getattr(self, name) > SIZE:
                raise ValueError(f"{name} = {getattr(self, name)}: at most {SIZE} in a sweep")
        given = {key: getattr(self, key) for key in type(self).model_fields}
        return ToyModel(**given | {"init": _made(self.init, _INIT)})


class IndependentSection(Section):
    """Every feature is active or not regardless of the others."""

    name: Literal["independent"]


class CorrelatedSection(Section):
    """Sets of `size` features that are on or off together."""

    name: Literal["correlated"]
    size: Count


class AnticorrelatedSection(Section):
    """Sets of `size` features of which at most one is on."""

    name: Literal["anticorrelated"]
    size: Count


class ExactlyOneSection(Section):
    """Always exactly one active feature of all."""

    name: Literal["exactly_one"]


_Law = Annotated[
    IndependentSection | CorrelatedSection | AnticorrelatedSection | ExactlyOneSection,
    Field(discriminator="name"),
]
Law = Annotated[
    _Law,
    BeforeValidator(_named, json_schema_input_type=Literal["independent", "exactly_one"] | _Law),
]


class UniformSection(Section):
    """Magnitudes uniform on (0, 1]."""

    name: Literal["uniform"]


class ExponentialSection(Section):
    """Exponential magnitudes of mean `scale`."""

    name: Literal["exponential"]
    scale: Positive = 1.0


class HalfNormalSection(Section):
    """Magnitudes of a normal number of standard deviation `scale`."""

    name: Literal["halfnormal"]
    scale: Positive = 1.0


class ConstantSection(Section):
    """Magnitudes that are always `value`."""

    name: Literal["constant"]
    value: Positive = 1.0


_Amplitude = Annotated[
    UniformSection | ExponentialSection | HalfNormalSection | ConstantSection,
    Field(discriminator="name"),
]
Amplitude = Annotated[
    _Amplitude,
    BeforeValidator(
        _named,
        json_schema_input_type=Literal["uniform", "exponential", "halfnormal", "constant"]
        | _Amplitude,
    ),
]

_AMPLITUDES = {
    "uniform": features.Uniform,
    "exponential": features.Exponential,
    "halfnormal": features.HalfNormal,
    "constant": features.Constant,
}


class WorldSection(Section):
    """`[world]`: the fields of `Features`; n is the model's, and a data set is none of a file."""

    p: Probability | tuple[Probability, ...] | None = None
    importance: Number | tuple[Number, ...] = 1.0
    law: Law = IndependentSection(name="independent")
    amplitude: Amplitude = UniformSection(name="uniform")
    signed: Switch = False

    def made(self, n: int) -> Features:
        """The world of `n` features; ValueError where it cannot be."""
        rest = {
            "importance": self.importance,
            "amplitude": _made(self.amplitude, _AMPLITUDES),
            "signed": self.signed,
        }
        if isinstance(self.law, ExactlyOneSection):
            if self.p not in (None, 1.0):
                raise ValueError(
                    f'p = {self.p!r} with law = "exactly_one": one feature is always active; '
                    "leave p out"
                )
            return Features.exactly_one(n, **rest)
        laws = {
            "independent": features.Independent,
            "correlated": features.Correlated,
            "anticorrelated": features.Anticorrelated,
        }
        given = {} if self.p is None else {"p": self.p}
        world = Features(n=n, law=_made(self.law, laws), **given, **rest)
        if (least := float(world.set_probability.min())) < 2**-31:
            raise ValueError(f"p = {least!r}: a draw has 31 bits; give p of at least 2**-31")
        return world


class PlateauSection(Section):
    """Stop a model whose loss has not improved for `patience` windows of `window` steps."""

    window: Count = 500
    patience: Count = 4
    relative: Number = 1e-3


class LogSection(Section):
    """At most `log` numbers of steps from 1 to the last, evenly spaced in the logarithm."""

    log: Annotated[int, Field(strict=True, ge=1, le=10_000)]


def _stop(value: Any) -> Any:
    # TOML has no null, and a list of stops to sweep may hold one that never stops.
    return None if value == "never" else value


class TrainingSection(Section):
    """`[training]`: the fields of `Training`."""

    steps: Count = 10_000
    batch: Count = 1024
    lr: Positive | tuple[Positive, ...] = 1e-3
    weight_decay: Number = 0.01
    schedule: Literal["constant", "linear", "cosine", "half_cosine"] = "constant"
    warmup: Whole = 0
    final: Number = 0.0
    l1: Number = 0.0
    snapshots: LogSection | tuple[Whole, ...] = ()
    stop: Annotated[
        PlateauSection | None,
        BeforeValidator(_stop, json_schema_input_type=PlateauSection | Literal["never"] | None),
    ] = None

    def made(self) -> Training:
        """The recipe; ValueError where it cannot be."""
        given = {key: getattr(self, key) for key in type(self).model_fields}
        if isinstance(self.snapshots, LogSection):
            given["snapshots"] = log_steps(self.steps, self.snapshots.log)
        if self.stop is not None:
            given["stop"] = Plateau(**self.stop.model_dump())
        return Training(**given)


def _made(section: Any, kinds: dict[str, Any]) -> Any:
    given = section.model_dump()
    return kinds[given.pop("name")](**given)
