"""What binds a question, and its answers, to the very pictures that it is about.

Triplets change, candidates are made anew, rows move: an answer counts as long as the digest it
carries is that of a question of the run, whatever else has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from onereward_jax.tasks import Task

DIGITS = 16
"""Hexadecimal digits of a digest: among a million, two are alike with a chance of 3e-8."""


def pixel_digest(*pictures: UInt8[np.ndarray, "h w ..."]) -> str:
    """The digest of the pixels and the shapes of pictures, in this order."""
    found = hashlib.sha256()
    for picture in pictures:
        found.update(f"{picture.shape}".encode())
        found.update(np.ascontiguousarray(picture).data)
    return found.hexdigest()[:DIGITS]


def source_digest(image: UInt8[np.ndarray, "h w 3"], mask: UInt8[np.ndarray, "h w 1"]) -> str:
    """The digest of a triplet's picture and of its mask, which counts from 128 on."""
    return pixel_digest(image, np.uint8(255) * (mask >= 128))


def question_digest(
    triplet: str, task: Task, prompt: str, source: str, candidates: Sequence[str]
) -> str:
    """The digest of all that a person looks at who answers about a triplet.

    Args:
      triplet: its name.
      task, prompt: what was to be done.
      source: `source_digest` of its picture and mask.
      candidates: `pixel_digest` of each candidate, in the order of their numbers.
    """
    content = json.dumps([triplet, task.value, prompt, source, list(candidates)])
    return hashlib.sha256(content.encode()).hexdigest()[:DIGITS]
