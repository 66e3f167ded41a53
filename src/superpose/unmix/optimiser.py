"""Adam on one flat vector, with decoder rows that keep their norm of 1."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from superpose.unmix.weights import Layout, aligned

BETA_1, BETA_2, TINY = 0.9, 0.999, 1e-8


class Adam:
    """Adam without weight decay; along a decoder row there is no gradient and no step.

    The part of the gradient along each row is removed before the step, as the row's length is put
    back to 1 after it. This is the plain definition, on arrays or on tensors of any device.
    Source: Kingma & Ba 2015; for the decoder, Bricken et al. 2023.
    """

    def __init__(self, layout: Layout, theta: NDArray[Any] | Tensor) -> None:
        self.layout, self.theta = layout, theta
        if isinstance(theta, Tensor):
            self.mean, self.square = torch.zeros_like(theta), torch.zeros_like(theta)
        else:
            self.mean = aligned(theta.size, theta.dtype)
            self.square = aligned(theta.size, theta.dtype)
        self.steps = 0

    @torch.no_grad()
    def step(self, gradient: NDArray[Any] | Tensor, rate: float) -> None:
        """One step down the gradient, which is written over."""
        self.steps += 1
        flat, slope = torch.as_tensor(self.theta), torch.as_tensor(gradient)
        mean, square = torch.as_tensor(self.mean), torch.as_tensor(self.square)
        rows, along = self.layout.views(flat)["W_dec"], self.layout.views(slope)["W_dec"]
        along -= (along * rows).sum(-1, keepdim=True) * rows
        mean.lerp_(slope, 1 - BETA_1)
        square.mul_(BETA_2).addcmul_(slope, slope, value=1 - BETA_2)
        spread = (square / (1 - BETA_2**self.steps)).sqrt_().add_(TINY)
        flat.addcdiv_(mean, spread, value=-rate / (1 - BETA_1**self.steps))
        rows /= torch.linalg.vector_norm(rows, dim=-1, keepdim=True).clamp_min(1e-12)

    def forget(self, latents: Tensor) -> None:
        """Clear the running moments of some latents."""
        for moment in (self.mean, self.square):
            for name, part in self.layout.views(torch.as_tensor(moment)).items():
                if name != "b_dec":
                    part[latents] = 0.0
