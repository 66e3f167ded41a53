"""A careful loop of plain PyTorch: what a user writes who needs no package (serving.py).

Nothing is computed that the loss does not need: the decoder's bias is subtracted from the encoder's
bias instead of from the samples, products add their bias as they go, and Adam is PyTorch's fused
one. Dead latents are left alone.
"""

import torch
from serving import Batches, Learned, rate, serve
from torch import Tensor


class Jump(torch.autograd.Function):
    """Pre-activations above a threshold, and where they are; a rectangle stands for the step."""

    @staticmethod
    def forward(ctx, pre: Tensor, threshold: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
        on = (pre > threshold).float()
        ctx.bandwidth = bandwidth
        ctx.save_for_backward(pre, threshold, on)
        return pre * on, on

    @staticmethod
    def backward(ctx, slope: Tensor, slope_on: Tensor) -> tuple[Tensor, Tensor, None]:
        pre, threshold, on = ctx.saved_tensors
        near = ((pre - threshold).abs() < ctx.bandwidth / 2).float()
        taught = near * (slope * threshold + slope_on)
        return slope * on, -taught.sum(0) / ctx.bandwidth, None


class Loop:
    """Weights and their loss."""

    def __init__(self, settings: dict, mean: Tensor) -> None:
        self.settings, d, width = settings, settings["d"], settings["width"]
        self.W_dec = torch.nn.functional.normalize(torch.randn(width, d), dim=-1)
        self.W_enc, self.b_enc = self.W_dec.T.clone(), torch.zeros(width)
        self.b_dec = mean.clone()
        self.log_threshold = torch.full((width,), settings["threshold"]).log()
        self.smallest = torch.zeros(())
        self.parameters = [self.W_enc, self.b_enc, self.W_dec, self.b_dec]
        if settings["code"] == "jumprelu":
            self.parameters.append(self.log_threshold)
        for parameter in self.parameters:
            parameter.requires_grad_()

    def pre(self, x: Tensor) -> Tensor:
        """Pre-activations."""
        return torch.addmm(self.b_enc - self.b_dec @ self.W_enc, x, self.W_enc)

    def best(self, pre: Tensor, k: int) -> Tensor:
        """The k largest of each row, where positive."""
        value, place = pre.topk(k, dim=-1, sorted=False)
        return torch.zeros_like(pre).scatter(-1, place, value.relu())

    def best_of_all(self, pre: Tensor, step: int) -> Tensor:
        """As many of the whole batch; what the least of them is, is averaged."""
        flat = pre.reshape(1, -1)
        z = self.best(flat, self.settings["k"] * len(pre))
        least = z.detach()[z.detach() > 0].min()
        self.smallest += max(0.02, 1 / (step + 1)) * (least - self.smallest)
        return z.reshape(pre.shape)

    def loss(self, x: Tensor, step: int) -> Tensor:
        """Mean squared error, summed over dimensions, and the price of a code."""
        pre, settings = self.pre(x), self.settings
        match settings["code"]:
            case "topk":
                return self.error(x, self.best(pre, settings["k"]))
            case "batchtopk":
                return self.error(x, self.best_of_all(pre, step))
            case "matryoshka":
                return self.nested(x, self.best_of_all(pre, step))
            case "l1":
                z = pre.relu()
                return self.error(x, z) + settings["coefficient"] * z.sum() / len(x)
            case _:
                z, on = Jump.apply(pre, self.log_threshold.exp(), settings["bandwidth"])
                off = on.sum() / len(x) / settings["k"] - 1
                return self.error(x, z) + settings["strength"] * off**2

    def error(self, x: Tensor, z: Tensor) -> Tensor:
        """Mean squared error."""
        return (torch.addmm(self.b_dec, z, self.W_dec) - x).square().sum() / len(x)

    def nested(self, x: Tensor, z: Tensor) -> Tensor:
        """The mean of the squared errors of nested prefixes, each built on the one before."""
        total, left, begin = torch.zeros(()), x - self.b_dec, 0
        for end in self.settings["widths"]:
            left = left - z[:, begin:end] @ self.W_dec[begin:end]
            total, begin = total + left.square().sum() / len(x), end
        return total / len(self.settings["widths"])

    @torch.no_grad()
    def project(self) -> None:
        """No gradient along the rows, whose length is put back to 1."""
        gradient = self.W_dec.grad
        gradient -= (gradient * self.W_dec).sum(-1, keepdim=True) * self.W_dec

    @torch.no_grad()
    def apply(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents at inference, and the reconstruction."""
        pre, code = self.pre(x), self.settings["code"]
        if code == "topk":
            z = self.best(pre, self.settings["k"])
        elif code == "l1":
            z = pre.relu()
        else:
            threshold = self.log_threshold.exp() if code == "jumprelu" else self.smallest
            z = pre * (pre > threshold)
        return z, torch.addmm(self.b_dec, z, self.W_dec)


def train(settings: dict, batches: Batches) -> Learned:
    """One training from the first step to the last."""
    loop = Loop(settings, batches.x.mean(0))
    optimiser = torch.optim.Adam(loop.parameters, lr=settings["lr"], fused=True)
    for step, x in enumerate(batches):
        optimiser.param_groups[0]["lr"] = settings["lr"] * rate(settings, step)
        loop.loss(x, step).backward()
        loop.project()
        optimiser.step()
        optimiser.zero_grad()
        with torch.no_grad():
            loop.W_dec /= torch.linalg.vector_norm(loop.W_dec, dim=-1, keepdim=True)
    return Learned(loop.W_dec, loop.apply)


if __name__ == "__main__":
    serve(train)
