"""One step's gradient, and how a step is taken: the protocol of all ways, and the plain one."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from superpose.unmix.codes import Code
from superpose.unmix.weights import Layout

Flat = NDArray[Any] | Tensor


@dataclass(slots=True, eq=False)
class Slope:
    """What one batch says to one member.

    `squared_error` is summed over the batch, `active` counts its active latents, `fired` tells
    which latents any sample activated. `gradient` lies as the parameters do, in memory that the
    next step writes over. `smallest` is the smallest value that a selection over the batch kept,
    NaN where the code has none.
    """

    loss: float
    squared_error: float
    active: int
    fired: Bool[np.ndarray, " d_sae"]
    gradient: Flat
    smallest: float


@runtime_checkable
class Way(Protocol):
    """How the gradient of one member is computed.

    Parameters and batches are arrays, or tensors of a device for a way that knows it.
    """

    def gradient(self, theta: Any, x: Any, target: Any, dead: Bool[np.ndarray, " d_sae"]) -> Slope:
        """The slope at the parameters `theta` on one batch; `dead` latents may be taught."""
        ...


class Plain:
    """By automatic differentiation of the code's definition: any code, any device, any dtype."""

    def __init__(self, code: Code, layout: Layout) -> None:
        self.code, self.layout = code, layout
        self.out: Tensor | None = None

    def gradient(
        self, theta: Flat, x: Flat, target: Flat, dead: Bool[np.ndarray, " d_sae"]
    ) -> Slope:
        """The slope; its gradient is of the kind of `theta`, array or tensor."""
        flat, inputs = torch.as_tensor(theta), torch.as_tensor(x)
        # Leaves of their own: the gradient of a view fills a vector as long as all parameters.
        views = self.layout.views(flat.detach())
        parts = {name: part.detach().requires_grad_() for name, part in views.items()}
        found = self.code.objective(
            self.layout.assemble(parts),
            inputs,
            inputs if target is x else torch.as_tensor(target),
            torch.as_tensor(dead, device=flat.device),
        )
        slopes = torch.autograd.grad(
            found.loss, list(parts.values()), allow_unused=True, materialize_grads=True
        )
        if self.out is None:
            self.out = torch.empty_like(flat)
        torch.cat([slope.reshape(-1) for slope in slopes], out=self.out)
        with torch.no_grad():
            active = found.z > 0
            return Slope(
                loss=found.loss.item(),
                squared_error=(found.error.double() ** 2).sum().item(),
                active=int(active.sum()),
                fired=active.any(0).cpu().numpy(),
                gradient=self.out if isinstance(theta, Tensor) else self.out.numpy(),
                smallest=float("nan") if found.smallest is None else found.smallest.item(),
            )
