"""Draws batches from folders of a `SyntheticModel`, in the environment of SAELens, for truth.py.

A line of JSON in, {"folder", "batch", "sparse"}; a line out, the processor's seconds of one batch.
The first batch of a folder is not timed.
"""

import json
import os
import sys
import time

import torch
from sae_lens.synthetic import SyntheticModel


def main():
    """Answer requests until there are none."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(1)
    models = {}
    for line in sys.stdin:
        request = json.loads(line)
        folder, batch = request["folder"], request["batch"]
        if folder not in models:
            models[folder] = SyntheticModel.load_from_disk(folder)
        models[folder].use_sparse_tensors = request["sparse"]
        if request.get("first"):
            models[folder].sample(batch)
        began = time.process_time()
        models[folder].sample(batch)
        answers.write(json.dumps(time.process_time() - began) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
