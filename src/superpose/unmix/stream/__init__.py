"""The stream of samples that un-mixing trains on: where they come from, in which order."""

from superpose.unmix.stream.batches import Batch, Source, Stream, open, source

__all__ = ["Batch", "Source", "Stream", "open", "source"]
