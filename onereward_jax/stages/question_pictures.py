"""The images of questions to people, in a self-contained folder.

File names contain digests of the pixels, so an existing file is the right one, and images of older
questions are kept.
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
"""Digits of a digest in a file name."""

SAME_TIME = 946684800
"""Modification time of blinded files, Unix time in seconds: the year 2000."""


class QuestionPaths(NamedTuple):
    """Paths of a question's images, relative to the folder of the questions."""

    image: str
    mask: str
    candidates: tuple[str, ...]


def question_paths(triplet: str, source: str, candidates: Sequence[str]) -> QuestionPaths:
    """The paths of a question's images.

    Args:
      triplet: its name.
      source: `source_digest` of the triplet's image and mask.
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
    *,
    blinded: bool = False,
) -> None:
    """Writes the missing images of a question.

    Args:
      folder: folder of the questions.
      paths, source: see `question_paths`.
      example: returns the decoded triplet; called only if its images are missing.
      made: files of the candidates; hard-linked, or copied if that is not possible.
      blinded: copy them all, with equal modification times: an editor's images are made together,
        so that their times would tell whose they are.

    Raises:
      ValueError: the candidates were made from another image or mask.
    """
    if not all((folder / path).exists() for path in (paths.image, paths.mask)):
        pixels = example()
        if source_digest(pixels["image"], pixels["mask"]) != source:
            raise ValueError(
                f"{Path(paths.image).parent}: its candidates were made from another image or mask "
                "of the same name: remove the folder of the stage candidates to regenerate them"
            )
        for path, array in ((paths.image, pixels["image"]), (paths.mask, pixels["mask"][..., 0])):
            with atomic_file(folder / path) as draft:
                Image.fromarray(array).save(draft)
    for path, file in zip(paths.candidates, made):
        if not (folder / path).exists():
            with atomic_file(folder / path) as draft:
                if blinded:
                    shutil.copyfile(file, draft)
                    os.utime(draft, (SAME_TIME, SAME_TIME))
                    continue
                try:
                    os.link(file, draft)
                except OSError:  # another disk, or a bucket
                    shutil.copyfile(file, draft)
