"""Trains with dictionary_learning on request, in an environment of its own (serving.py).

`trainSAE` on an iterator of batches, with no tracker and one save at the end, which is read back.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
from dictionary_learning.trainers.jumprelu import JumpReluTrainer
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
from dictionary_learning.trainers.standard import StandardTrainer
from dictionary_learning.trainers.top_k import TopKTrainer
from dictionary_learning.training import trainSAE
from dictionary_learning.utils import load_dictionary
from serving import Batches, Learned, serve

TRAINERS = {
    "topk": TopKTrainer,
    "batchtopk": BatchTopKTrainer,
    "matryoshka": MatryoshkaBatchTopKTrainer,
    "jumprelu": JumpReluTrainer,
    "l1": StandardTrainer,
}


def own(settings: dict) -> dict:
    """What a code is told beside its sizes."""
    steps, k = settings["steps"], settings["k"]
    rise = {"sparsity_warmup_steps": round(settings["warmup"] * steps)}
    # The threshold for inference is an average from this step on; an early start would mix in
    # values of an untrained encoder.
    kept = {"k": k, "threshold_start_step": round(0.8 * steps)}
    widths = settings["widths"]
    shares = [(b - a) / widths[-1] for a, b in zip([0, *widths], widths, strict=False)]
    return {
        "topk": kept,
        "batchtopk": kept,
        "matryoshka": kept | {"group_fractions": shares},
        "l1": rise | {"l1_penalty": settings["coefficient"]},
        "jumprelu": rise
        | {
            "target_l0": float(k),
            "sparsity_penalty": settings["strength"],
            "bandwidth": settings["bandwidth"],
        },
    }[settings["code"]]


def train(settings: dict, batches: Batches) -> Learned:
    """One training from the first step to the last."""
    steps = settings["steps"]
    plan = {
        "trainer": TRAINERS[settings["code"]],
        "activation_dim": settings["d"],
        "dict_size": settings["width"],
        "steps": steps,
        "lr": settings["lr"],
        "warmup_steps": round(settings["warmup"] * steps),
        "decay_start": round((1 - settings["decay"]) * steps),
        "seed": settings["seed"],
        "device": "cpu",
        "layer": 0,
        "lm_name": "none",
    }
    with TemporaryDirectory() as folder:
        configurations = [plan | own(settings)]
        trainSAE(batches, configurations, steps=steps, save_dir=folder, device="cpu")
        ready, _ = load_dictionary(str(Path(folder) / "trainer_0"), "cpu")

    def apply(x):
        z = ready.encode(x)
        return z, ready.decode(z)

    # As a linear layer or as a matrix of rows, according to the code.
    decoder = getattr(ready, "decoder", None)
    return Learned(ready.W_dec if decoder is None else decoder.weight.T, apply)


if __name__ == "__main__":
    serve(train)
