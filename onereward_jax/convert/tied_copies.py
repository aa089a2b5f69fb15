"""Whether two tensors of a checkpoint are copies of each other."""

from __future__ import annotations

import numpy as np

from onereward_jax.convert.safetensors_reader import TensorOnDisk

BLOCK_VALUES = 1 << 23


def same_values(one: TensorOnDisk, other: TensorOnDisk) -> bool:
    """Whether both have the same shape and values; read in blocks, up to the first difference.

    Values of two dtypes are compared in float32, so a rounded copy differs. NaN differs from NaN,
    as for torch.

    Raises:
      KeyError: a dtype is not in `DTYPES`.
    """
    if one.shape != other.shape:
        return False
    if 0 in one.shape:
        return True
    wide = one.kind != other.kind
    rows = max(1, BLOCK_VALUES // int(np.prod(one.shape[1:], dtype=np.int64)))
    for start in range(0, one.shape[0] if one.shape else 1, rows):
        index = (slice(start, start + rows),) if one.shape else ()
        first, second = one[index], other[index]
        if wide:
            first, second = first.astype(np.float32), second.astype(np.float32)
        if not np.array_equal(first, second):
            return False
    return True
