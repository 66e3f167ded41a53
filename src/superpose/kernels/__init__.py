"""The training step, fused. `superpose.models.ToyModel` is the definition that it equals."""
