"""Oracle scores of many pictures, in processes: reading a word takes about 60 ms."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from onereward_jax.evaluation.picture_features import Picture
from onereward_jax.mini.oracle import SceneOracle, SceneTruth, WordReader, structure_by_truth
from onereward_jax.mini.oracle.reading import letters_read
from onereward_jax.tasks import Dimension

NEEDED = ("image", "mask", "target", "background", "task", "kind", "label", "prompt", "box")
"""Fields of an example that the oracle reads."""


class Scores(NamedTuple):
    """What the oracle says of a picture.

    Attributes:
      scores: per dimension of the task, in [0, 1].
      hidden: the same, with the structure of extensions compared with what was cut off.
      letters: share of the letters of the word that can be read; None without a word.
    """

    scores: dict[Dimension, float]
    hidden: dict[Dimension, float]
    letters: float | None


Mapped = Callable[..., Iterable[Any]]
"""`map`, here or in other processes."""


@contextlib.contextmanager
def in_processes(count: int) -> Iterator[Mapped]:
    """`map` in `count` processes; in this one for 1. They are fresh ones: JAX has threads."""
    if count == 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(count, mp_context=context) as pool:
        yield functools.partial(pool.map, chunksize=16)


def score_all(
    pictures: Iterable[tuple[Mapping[str, Any], UInt8[np.ndarray, "h w 3"]]], mapped: Mapped
) -> list[Scores]:
    """Scores of (example, picture), in order."""
    # Only arrays and texts travel to the processes.
    jobs = ((*(example[name] for name in NEEDED), picture) for example, picture in pictures)
    return list(mapped(_score, jobs))


def _score(job: tuple[Any, ...]) -> Scores:
    *fields, picture = job
    truth = SceneTruth.from_example(dict(zip(NEEDED, fields, strict=True)))
    scores = _oracle().scores(picture, truth)
    hidden = dict(scores)
    if truth.kind == "scene":
        by_truth = structure_by_truth.score(Picture.read(picture), truth)
        hidden[Dimension.STRUCTURE] = by_truth
    return Scores(scores, hidden, letters_read(picture, truth, WordReader()))


@functools.cache
def _oracle() -> SceneOracle:
    """The oracle, read once per process."""
    return SceneOracle.mini_world()
