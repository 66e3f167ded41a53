"""Trains occhio's toy models on request, in an environment of its own (see opponents.py).

A line of JSON in, a line of JSON out: {"n", "m", "p", "models", "batch", "importance", "compiled"}
makes a grid of models and takes its first steps, {"steps"} goes on and is answered by
{"seconds": [processor, wall]}.

occhio's fastest way to train a stack is `ModelGrid.fit`, one vmap over all models. Its progress bar
counts the steps; a clock in the bar's place hands out as many as are asked for, so that one call of
`fit` lasts through all requests and what it builds and compiles at its start is not timed.
"""

import json
import sys
from collections.abc import Iterator
from time import perf_counter, process_time

import torch
from occhio import ModelGrid, ToyModel, model_grid
from occhio.autoencoder import TiedLinearRelu
from occhio.distributions import SparseUniform
from occhio.model_grid import Axis

UNTIMED = 3  # the first step compiles, and makes the optimiser's state
waiting: list[dict] = []


def asked() -> dict:
    """The next request, {} at the end of the input."""
    return waiting.pop() if waiting else json.loads(sys.stdin.readline() or "{}")


def clock(_: range) -> Iterator[None]:
    """Steps, as long as steps are asked for."""
    for _ in range(UNTIMED):
        yield
    print(json.dumps({"ready": True}), flush=True)
    while "steps" in (request := asked()):
        start = process_time(), perf_counter()
        for _ in range(request["steps"]):
            yield
        print(json.dumps({"seconds": [process_time() - start[0], perf_counter() - start[1]]}))
        sys.stdout.flush()
    waiting.append(request)


def grid(shape: dict) -> ModelGrid:
    """One model for each seed; every model draws batches of its own, as on the other sides."""
    n, importance = shape["n"], shape["importance"] ** torch.arange(shape["n"])

    def create_model(params: dict) -> ToyModel:
        generator = torch.Generator().manual_seed(int(params["seed"]))
        world = SparseUniform(n, shape["p"], generator=generator)
        network = TiedLinearRelu(n, shape["m"], generator=generator)
        return ToyModel(world, network, importances=importance)

    return ModelGrid(create_model, [Axis("seed", range(shape["models"]))], cache_samples=False)


def main() -> None:
    """Answer until the input ends."""
    torch.set_num_threads(1)
    model_grid.tqdm = clock
    while request := asked():
        grid(request).fit(
            batch_size=request["batch"],
            learning_rate=1e-3,
            weight_decay=0.01,
            compile=request["compiled"],
        )


if __name__ == "__main__":
    main()
