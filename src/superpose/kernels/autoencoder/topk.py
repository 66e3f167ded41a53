"""TopK: each sample keeps its k largest positive pre-activations."""

import numpy as np

from superpose.kernels.autoencoder.compiling import compiled, shared
from superpose.kernels.autoencoder.encoding import CHUNK, encode
from superpose.kernels.autoencoder.selection import top_of_row


@compiled
def select(x, theta, encoder, kept, dead):
    """Fill the lists with what every sample keeps; and with what it keeps of the dead.

    kept = (entries, k, room) with the room of `top_of_row`; dead = (latents, (row, keys), kept).
    """
    latents, _, auxiliary = dead
    kept[0][0][0] = auxiliary[0][0][0] = 0
    for first in range(0, len(x), CHUNK):
        count = encode(x, first, theta, encoder)
        for t in range(count):
            at = t * encoder.by_row
            width = encoder.width
            keep(encoder.pre, encoder.keys, at, width, first + t, kept)
            if len(latents) > 0:
                keep_dead(encoder, at, first + t, dead)


@shared
def keep(pre, keys, at, width, t, kept):
    """Add the list of sample t from its row of pre-activations."""
    (start, column, value), k, room = kept
    place = room[2]
    found = top_of_row(pre, keys, at, width, k, room)
    begin = start[t]
    for i in range(found):
        column[begin + i] = place[i]
        value[begin + i] = pre[at + place[i]]
    start[t + 1] = begin + found


@shared
def keep_dead(encoder, at, t, dead):
    """Add the list of sample t from the pre-activations of dead latents alone."""
    latents, (row, keys), kept = dead
    start, column, _ = kept[0]
    for j in range(len(latents)):
        row[j] = encoder.pre[at + latents[j]]
    keep(row, keys, np.int64(0), np.int64(len(row)), t, kept)
    for e in range(start[t], start[t + 1]):
        column[e] = latents[column[e]]
