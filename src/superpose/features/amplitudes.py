"""How large an active feature is."""

from dataclasses import dataclass
from numbers import Real

import numpy as np
from jaxtyping import Float
from scipy.special import erfcinv


@dataclass(frozen=True, slots=True)
class Uniform:
    """An active feature is uniform on (0, 1]."""

    mean = 1 / 2
    square = 1 / 3

    def magnitudes(self, u: Float[np.ndarray, " *k"]) -> Float[np.ndarray, " *k"]:
        """Magnitudes of this law from numbers that are uniform on (0, 1]."""
        return u


@dataclass(frozen=True, slots=True)
class Exponential:
    """The magnitude of an active feature has density $e^{-x/s} / s$; its mean is `scale` $s$."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_scale("Exponential", "scale", self.scale)

    @property
    def mean(self) -> float:
        """Mean of a magnitude, $s$."""
        return self.scale

    @property
    def square(self) -> float:
        """Mean square of a magnitude, $2 s^2$."""
        return 2 * self.scale**2

    def magnitudes(self, u: Float[np.ndarray, " *k"]) -> Float[np.ndarray, " *k"]:
        """Magnitudes of this law from numbers that are uniform on (0, 1]."""
        return (-self.scale * np.log(u)).astype(u.dtype)


@dataclass(frozen=True, slots=True)
class HalfNormal:
    """The magnitude of an active feature is that of a normal number of deviation `scale`."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_scale("HalfNormal", "scale", self.scale)

    @property
    def mean(self) -> float:
        r"""Mean of a magnitude, $s \sqrt{2 / \pi}$."""
        return self.scale * (2 / np.pi) ** 0.5

    @property
    def square(self) -> float:
        """Mean square of a magnitude, $s^2$."""
        return self.scale**2

    def magnitudes(self, u: Float[np.ndarray, " *k"]) -> Float[np.ndarray, " *k"]:
        """Magnitudes of this law from numbers that are uniform on (0, 1]."""
        return (self.scale * 2**0.5 * erfcinv(u)).astype(u.dtype)


@dataclass(frozen=True, slots=True)
class Constant:
    """The magnitude of an active feature is always `value`: binary features."""

    value: float = 1.0

    def __post_init__(self) -> None:
        _check_scale("Constant", "value", self.value)

    @property
    def mean(self) -> float:
        """Mean of a magnitude, `value`."""
        return self.value

    @property
    def square(self) -> float:
        """Mean square of a magnitude, `value` squared."""
        return self.value**2

    def magnitudes(self, u: Float[np.ndarray, " *k"]) -> Float[np.ndarray, " *k"]:
        """Magnitudes of this law from numbers that are uniform on (0, 1]."""
        return np.full_like(u, self.value)


Amplitude = Uniform | Exponential | HalfNormal | Constant


def _check_scale(law: str, name: str, value: float) -> None:
    if not (isinstance(value, Real) and not isinstance(value, bool) and 0.0 < value < np.inf):
        raise ValueError(
            f"{law}({name}={value!r}): the {name} of a magnitude is positive and finite; for "
            "features of either sign pass signed=True to Features"
        )
