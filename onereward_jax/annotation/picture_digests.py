"""Digests that tie a question and its answers to its images.

Triplets change, candidates are regenerated, rows move: an answer counts as long as its digest is
that of a question of the run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from onereward_jax.tasks import Task

DIGITS = 16
"""Hexadecimal digits of a digest: the probability of a collision among a million is 3e-8."""


def pixel_digest(*pictures: UInt8[np.ndarray, "h w ..."]) -> str:
    """Digest of the shapes and pixels of images, in this order."""
    found = hashlib.sha256()
    for picture in pictures:
        found.update(f"{picture.shape}".encode())
        found.update(np.ascontiguousarray(picture).data)
    return found.hexdigest()[:DIGITS]


def source_digest(image: UInt8[np.ndarray, "h w 3"], mask: UInt8[np.ndarray, "h w 1"]) -> str:
    """Digest of a triplet's image and its mask, binarized at 128."""
    return pixel_digest(image, np.uint8(255) * (mask >= 128))


def question_digest(
    triplet: str, task: Task, prompt: str, source: str, candidates: Sequence[str]
) -> str:
    """Digest of everything that an annotator of a triplet sees.

    Args:
      triplet: its name.
      task, prompt: the edit.
      source: `source_digest` of its image and mask.
      candidates: `pixel_digest` of each candidate, by index.
    """
    content = json.dumps([triplet, task.value, prompt, source, list(candidates)])
    return hashlib.sha256(content.encode()).hexdigest()[:DIGITS]
