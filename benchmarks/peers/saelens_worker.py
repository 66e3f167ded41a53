"""Trains sparse autoencoders with SAELens on request, in an environment of its own (serving.py).

`SAETrainer.fit` with no tracker, no evaluation and no checkpoint. The trained autoencoder is saved
and read back as one for inference, which is what a user applies.
"""

from tempfile import TemporaryDirectory

from sae_lens import (
    SAE,
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer
from serving import Batches, Learned, serve

CODES = {
    "topk": (TopKTrainingSAE, TopKTrainingSAEConfig),
    "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
    "jumprelu": (JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig),
    "matryoshka": (MatryoshkaBatchTopKTrainingSAE, MatryoshkaBatchTopKTrainingSAEConfig),
    "l1": (StandardTrainingSAE, StandardTrainingSAEConfig),
}


def own(settings: dict) -> dict:
    """What a code is told beside its sizes."""
    k = settings["k"]
    return {
        "topk": {"k": k},
        "batchtopk": {"k": k, "topk_threshold_lr": 0.05},
        "matryoshka": {"k": k, "topk_threshold_lr": 0.05, "matryoshka_widths": settings["widths"]},
        "l1": {"l1_coefficient": settings["coefficient"]},
        "jumprelu": {
            "jumprelu_sparsity_loss_mode": "quadratic",
            "target_l0": float(k),
            "l0_coefficient": settings["strength"],
            "jumprelu_bandwidth": settings["bandwidth"],
            "jumprelu_init_threshold": settings["threshold"],
        },
    }[settings["code"]]


def train(settings: dict, batches: Batches) -> Learned:
    """One training from the first step to the last."""
    kind, configuration = CODES[settings["code"]]
    sizes = {"d_in": settings["d"], "d_sae": settings["width"]}
    sae = kind(configuration(**sizes, device="cpu", dtype="float32", **own(settings)))
    steps, batch = settings["steps"], settings["batch"]
    plan = SAETrainerConfig(
        total_training_samples=steps * batch,
        train_batch_size_samples=batch,
        lr=settings["lr"],
        lr_end=settings["lr"],
        lr_warm_up_steps=round(settings["warmup"] * steps),
        lr_decay_steps=round(settings["decay"] * steps),
        dead_feature_window=max(1, settings["dead_after"] // batch),
        logger=LoggingConfig(log_to_wandb=False),
    )
    SAETrainer(cfg=plan, sae=sae, data_provider=iter(batches)).fit()
    with TemporaryDirectory() as folder:
        sae.save_inference_model(folder)
        ready = SAE.load_from_disk(folder)

    def apply(x):
        z = ready.encode(x)
        return z, ready.decode(z)

    return Learned(ready.W_dec, apply)


if __name__ == "__main__":
    serve(train)
