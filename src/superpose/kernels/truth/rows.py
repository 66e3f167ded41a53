"""Entries in the order of rows and columns, and the samples that they add up to."""

import numpy as np

from superpose.kernels.truth.compiling import compiled


@compiled
def scale(value, node_of, above, mean, scaled, feature):
    """Multiply entries by their parent's value over its mean, where the parent is to scale them.

    Parents come before their children. A group passes on what its own parent has.
    """
    ratio = np.ones(len(value), np.float32)
    for e in range(len(value)):
        node, parent = node_of[e], above[e]
        if parent >= 0 and scaled[node_of[parent]]:
            value[e] *= ratio[parent]
        if feature[node] >= 0:
            ratio[e] = value[e] / mean[feature[node]]
        elif parent >= 0:
            ratio[e] = ratio[parent]


@compiled
def in_rows(row, column, value, batch, n):
    """CSR of entries in any order: columns ascend within a row; those of column -1 are left out."""
    start = np.zeros(n + 1, np.int64)
    indptr = np.zeros(batch + 1, np.int64)
    for e in range(len(row)):
        if column[e] >= 0:
            start[column[e] + 1] += 1
            indptr[row[e] + 1] += 1
    start, indptr = np.cumsum(start), np.cumsum(indptr)
    order = np.empty(start[-1], np.int64)
    for e in range(len(row)):
        if column[e] >= 0:
            order[start[column[e]]] = e
            start[column[e]] += 1
    index, sorted_value = np.empty(len(order), np.int32), np.empty(len(order), np.float32)
    next_of = indptr.copy()
    for e in order:
        place = next_of[row[e]]
        index[place], sorted_value[place] = column[e], value[e]
        next_of[row[e]] += 1
    return indptr, index, sorted_value


@compiled
def add(x, indptr, index, value, directions):
    """Add to every sample what its active features weigh: x += f W."""
    for t in range(len(x)):
        for e in range(indptr[t], indptr[t + 1]):
            size, direction = value[e], directions[index[e]]
            for k in range(x.shape[1]):
                x[t, k] += size * direction[k]
