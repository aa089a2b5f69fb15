"""The pictures beside questions to people: a folder of them can be sent to anybody as it is.

Names carry the digests of the pixels, so a file that is there is the right one, and pictures of
earlier questions stay beside those of later ones.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from onereward_jax.annotation.picture_digests import source_digest
from onereward_jax.common.atomic_file import atomic_file

SHOWN_DIGITS = 8
"""Digits of a digest in a file's name."""


class QuestionPaths(NamedTuple):
    """Paths of a question's pictures, relative to the folder of the questions."""

    image: str
    mask: str
    candidates: tuple[str, ...]


def question_paths(triplet: str, source: str, candidates: Sequence[str]) -> QuestionPaths:
    """Where the pictures of a question lie.

    Args:
      triplet: its name.
      source: `source_digest` of the triplet's picture and mask.
      candidates: `pixel_digest` of each candidate.
    """
    return QuestionPaths(
        image=f"{triplet}/image-{source[:SHOWN_DIGITS]}.png",
        mask=f"{triplet}/mask-{source[:SHOWN_DIGITS]}.png",
        candidates=tuple(
            f"{triplet}/{number}-{digest[:SHOWN_DIGITS]}.png"
            for number, digest in enumerate(candidates)
        ),
    )


def save_question_pictures(
    folder: Path,
    paths: QuestionPaths,
    source: str,
    example: Callable[[], Mapping[str, Any]],
    made: Sequence[Path],
) -> None:
    """Writes those pictures of a question that are not there yet.

    Args:
      folder: of the questions.
      paths, source: see `question_paths`.
      example: gives the triplet, decoded; asked only where its pictures are missing.
      made: the files of the candidates. They are linked, or copied where links are not possible.

    Raises:
      ValueError: the triplet's pictures are not those that the candidates were made of.
    """
    if not all((folder / path).exists() for path in (paths.image, paths.mask)):
        pixels = example()
        if source_digest(pixels["image"], pixels["mask"]) != source:
            raise ValueError(
                f"{Path(paths.image).parent}: its candidates were made of another picture or mask "
                "of the same name: remove the folders of the stage candidates to make them anew"
            )
        for path, array in ((paths.image, pixels["image"]), (paths.mask, pixels["mask"][..., 0])):
            with atomic_file(folder / path) as draft:
                Image.fromarray(array).save(draft)
    for path, file in zip(paths.candidates, made):
        if not (folder / path).exists():
            with atomic_file(folder / path) as draft:
                try:
                    os.link(file, draft)
                except OSError:  # another disk, or a bucket
                    shutil.copyfile(file, draft)
