"""Trains with overcomplete on request, in an environment of its own (serving.py).

`train_sae` without its logs (`monitoring=0`, its fastest way), for one epoch of batches, with what
served it best of what it offers: an encoder that starts as the dictionary's transpose instead of a
random one with batch normalisation, and for TopK the plain squared error instead of its auxiliary
loss. It has no bias to decode with, so it gets centred data; that is not timed.
"""

import sys
from types import ModuleType

import torch
from serving import Batches, Learned, rate, serve


class Unused(ModuleType):
    """A part of the package that nothing here uses."""

    def __getattr__(self, name: str) -> None:
        return None


# The package begins by importing its vision models and its plots; these need a torchvision that
# fits the torch here, and an older matplotlib.
for part in ("models", "visualization"):
    sys.modules[f"overcomplete.{part}"] = Unused(part)

from overcomplete.sae import SAE, BatchTopKSAE, JumpSAE, TopKSAE, train_sae  # noqa: E402
from overcomplete.sae.jump_sae import heaviside  # noqa: E402


def model_of(settings: dict) -> SAE:
    """An autoencoder of its code."""
    sizes, k = (settings["d"], settings["width"]), settings["k"]
    code = settings["code"]
    if code == "topk":
        model = TopKSAE(*sizes, top_k=k)
    elif code == "batchtopk":
        # Its number is of the whole batch.
        model = BatchTopKSAE(*sizes, top_k=k * settings["batch"])
    elif code == "jumprelu":
        model = JumpSAE(*sizes, kernel="rectangle", bandwidth=settings["bandwidth"])
        with torch.no_grad():
            model.thresholds.fill_(torch.tensor(settings["threshold"]).log())
    else:
        model = SAE(*sizes)
    return model.untied(bias=True)


def criterion_of(settings: dict, model: SAE):
    """The loss: what the package leaves to its users to write."""

    def squared(x, x_hat, *_):
        return (x - x_hat).square().sum(-1).mean()

    def with_l1(x, x_hat, pre, z, dictionary):
        return squared(x, x_hat) + settings["coefficient"] * z.abs().sum(-1).mean()

    def with_l0(x, x_hat, pre, z, dictionary):
        threshold = model.thresholds.exp()
        active = heaviside(pre.relu(), threshold, model.kernel_fn, model.bandwidth)
        off = active.sum(-1).mean() / settings["k"] - 1
        return squared(x, x_hat) + settings["strength"] * off**2

    return {"l1": with_l1, "jumprelu": with_l0}.get(settings["code"], squared)


def train(settings: dict, batches: Batches) -> Learned:
    """One training from the first step to the last."""
    centre = batches.x.mean(0)
    batches.x = batches.x - centre
    model = model_of(settings)
    optimiser = torch.optim.Adam(model.parameters(), lr=settings["lr"])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(settings, step))
    criterion = criterion_of(settings, model)
    train_sae(model, batches, criterion, optimiser, schedule, nb_epochs=1, monitoring=0)
    model.eval()

    def apply(x):
        _, z = model.encode(x - centre)
        return z, model.decode(z) + centre

    return Learned(model.get_dictionary(), apply)


if __name__ == "__main__":
    serve(train)
