"""Trains with sparsify on request, in an environment of its own (serving.py).

Its `Trainer` only trains on the hidden states of a language model, so `SparseCoder` is driven here
in the trainer's order, without what the model costs: the mean as first bias, the loss, the
gradient along the decoder's rows removed, Adam, rows of norm 1.
"""

import torch
from serving import Batches, Learned, rate, serve
from sparsify import SparseCoder, SparseCoderConfig


def train(settings: dict, batches: Batches) -> Learned:
    """One training from the first step to the last."""
    torch.set_float32_matmul_precision("high")
    sizes = SparseCoderConfig(num_latents=settings["width"], k=settings["k"])
    coder = SparseCoder(settings["d"], sizes, dtype=torch.float32)
    optimiser = torch.optim.Adam(coder.parameters(), lr=settings["lr"])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(settings, step))
    for step, x in enumerate(batches):
        if step == 0:
            coder.b_dec.data = x.mean(0)
        coder.set_decoder_norm_to_unit_norm()
        coder(x).fvu.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
    coder.set_decoder_norm_to_unit_norm()

    def apply(x):
        found = coder.encode(x)
        # Dense, so that active latents are counted as those of the others.
        z = torch.zeros(len(x), settings["width"])
        z.scatter_(-1, found.top_indices, found.top_acts)
        return z, coder.decode(found.top_acts, found.top_indices)

    return Learned(coder.W_dec, apply)


if __name__ == "__main__":
    serve(train)
