"""Gathers what is known of a picture from the files of a team; what does not fit is left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from onereward_jax.curation.draw_triplets import Known
from onereward_jax.curation.segmentation import GivenObject, GivenPicture
from onereward_jax.curation.words_and_captions import Word, caption_beside
from onereward_jax.data.aspect_buckets import Size
from onereward_jax.data.metadata import by


@dataclasses.dataclass(frozen=True)
class Notes:
    """What the files of a team say about its pictures, by the pictures' names.

    Attributes:
      segmentation, words, captions: as their readers give them.
    """

    segmentation: Mapping[str, GivenPicture]
    words: Mapping[str, Sequence[Word]]
    captions: Mapping[str, str]


def known_of(file: Path, name: str, size: Size, notes: Notes) -> tuple[Known, list[str]]:
    """What is known of a picture, and remarks about what cannot be used.

    Args:
      file: the picture; a text file beside it is its caption, unless `notes` have one.
      name: its name in the notes.
      size: height and width of the upright picture in pixels.
      notes: of all pictures.
    """
    remarks = []
    words = []
    for word in notes.words.get(name, ()):
        y0, x0, y1, x1 = word.box
        if 0 <= y0 < y1 <= size[0] and 0 <= x0 < x1 <= size[1]:
            words.append(word)
        else:
            remarks.append(f"the word {word.text!r} is outside {name}")
    try:
        caption = notes.captions.get(name) or caption_beside(file)
    except ValueError as error:
        caption, _ = "", remarks.append(f"the caption of {name}: {error}")
    objects: Sequence[GivenObject] = ()
    given = notes.segmentation.get(name)
    if given is not None and given.size not in (None, size):
        remarks.append(
            f"the segmentation of {name} is for {by(given.size[::-1])} pixels, it has "
            f"{by(size[::-1])}"
        )
    elif given is not None:
        objects = given.objects
    return Known(name, size, objects, words, caption), remarks
