"""A real network: measure, un-mix and name a hidden layer of the digits, or a user's own arrays."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from superpose import records
from superpose.activations import Activations
from superpose.experiments import digits
from superpose.experiments.configuration import NetworkSection
from superpose.networks.measure import varying
from superpose.unmix import SAETraining

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class OwnArrays:
    """A user's activations, and a digest of them that tells results apart."""

    activations: Activations
    source: str
    digest: str


def own_arrays(activations: Path, labels: Path | None = None) -> OwnArrays:
    """Read a user's arrays; raises ValueError or FileNotFoundError naming the file.

    Too few samples, or none that differ, raise here what `measure` would raise late in the job.
    """
    acts = Activations.from_file(activations, labels=labels)
    try:
        varying(acts)
    except ValueError as error:
        raise ValueError(f"{activations}: {error}") from None
    digest = hashlib.sha256()
    for name, array in (("activations", acts.x.numpy()), ("labels", acts.labels)):
        if array is not None:
            digest.update(f"{name} {array.shape} {array.dtype.str}\n".encode())
            digest.update(array.tobytes())
    return OwnArrays(acts, activations.name, digest.hexdigest())


def look(
    section: NetworkSection,
    own: OwnArrays | None,
    seed: int,
    folder: Path,
    made_from: dict[str, Any],
    progress: Progress | None = None,
) -> None:
    """Look at the digits network, or at `own`; findings go to a record."""
    about: dict[str, Any] = {"made_from": made_from}
    arrays = {}
    if own is None:
        trained = digits.train_digits(section.hidden, seed)
        acts = trained.activations
        about |= {
            "source": "digits",
            "accuracy": trained.accuracy,
            "train_accuracy": trained.train_accuracy,
            "held_out": len(trained.held_out),
        }
        # Pixels are sixteenths, so whole numbers keep them exactly.
        arrays["images"] = np.rint(trained.images * 16).astype(np.uint8)
        arrays["digits"] = trained.labels
    else:
        acts = own.activations
        about |= {"source": own.source, "labelled": acts.labels is not None}
    silent = max(1, section.samples // 5)
    training = SAETraining(samples=section.samples, lr=1e-2, dead_after=silent)
    found = digits.look(acts, seed=seed, seeds=section.seeds, training=training, progress=progress)
    about |= {
        "samples": len(acts),
        "units": acts.x.shape[1],
        "verdict": found.measurement.verdict,
        "reason": found.measurement.reason,
        "code": {"d_sae": found.code.d_sae, "k": found.code.k},
        "explained_variance": found.explained_variance,
        "level": found.names.level,
        "advice": found.advice,
    }
    records.save(
        folder,
        kind="network",
        about=about,
        arrays=arrays | found.sae.arrays(),
        tables=found.tables,
    )
