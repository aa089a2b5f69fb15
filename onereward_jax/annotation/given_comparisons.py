"""Comparisons from elsewhere, before their pictures are checked and named."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from onereward_jax.annotation.comparisons import (
    PIXEL_DIGITS,
    ComparedPicture,
    Comparison,
    Judgement,
    Picture,
    check_judgement,
)
from onereward_jax.annotation.given_pictures import GivenPicture, checked_picture
from onereward_jax.data.example import RowError, Split
from onereward_jax.tasks import Task


@dataclasses.dataclass(frozen=True)
class Given:
    """A comparison, or a part of its answers, as a reader of a format finds it.

    Attributes:
      task, prompt, split, answers: as in `Comparison`.
      id: "" to derive it from the content. Then equal comparisons are joined, whatever the order
        of their candidates.
      source: id of the source picture; "" to take the digest of its pixels.
      image, mask: None if not known.
      candidates: two or more.
      models, settings: of each candidate; empty if not known.
      expected: digests that pictures must have, by their places: "image", "mask" or a candidate's
        index. A reader gives them where its format has them.
    """

    task: Task
    prompt: str
    split: Split | None
    candidates: tuple[GivenPicture, ...]
    answers: tuple[Judgement, ...]
    id: str = ""
    source: str = ""
    image: GivenPicture | None = None
    mask: GivenPicture | None = None
    models: tuple[str, ...] = ()
    settings: tuple[Mapping[str, Any], ...] = ()
    expected: Mapping[str | int, str] = dataclasses.field(default_factory=dict)


class Row(NamedTuple):
    """What a reader yields: the place in the file, and what is there or why it cannot be used."""

    place: str
    given: Given | RowError


class Loaded(NamedTuple):
    """A comparison and the content of its pictures, by path."""

    comparison: Comparison
    contents: Mapping[str, bytes]


Rows = Iterator[Row]


def load(given: Given) -> Loaded:
    """Reads and checks the pictures of a comparison.

    Raises:
      RowError: naming the field.
    """
    contents: dict[str, bytes] = {}

    def stored(place: str | int, one: GivenPicture) -> Picture:
        field = f"candidates[{place}]" if isinstance(place, int) else place
        content = one.read()
        picture = checked_picture(content, f"{field} {one.name}", mask=place == "mask")
        if given.expected.get(place, picture.digest) != picture.digest:
            raise RowError(
                f"{field} {one.name} has the digest {picture.digest}, not {given.expected[place]}: "
                "the file has changed"
            )
        contents[picture.path] = content
        return picture

    image = given.image and stored("image", given.image)
    mask = given.mask and stored("mask", given.mask)
    if image and mask and (image.width, image.height) != (mask.width, mask.height):
        raise RowError(
            f"mask is {mask.width}x{mask.height} pixels, image {image.width}x{image.height}"
        )
    pictures = [stored(place, one) for place, one in enumerate(given.candidates)]
    models = given.models or ("",) * len(pictures)
    settings = given.settings or ({},) * len(pictures)
    candidates = [
        ComparedPicture(picture, model, dict(setting))
        for picture, model, setting in zip(pictures, models, settings, strict=True)
    ]
    for answer in given.answers:
        check_judgement(answer, given.task, len(candidates))
    comparison = Comparison(
        id=given.id,
        task=given.task,
        prompt=given.prompt,
        split=given.split,
        source=given.source or (image.pixels if image else ""),
        image=image,
        mask=mask,
        candidates=tuple(candidates),
        answers=given.answers,
    )
    return Loaded(comparison if given.id else _named_by_content(comparison), contents)


def _named_by_content(comparison: Comparison) -> Comparison:
    """Orders the candidates by their digests, and takes the id from the content.

    So the order does not tell which one is preferred, as in sets that list the better one first.
    """
    order = sorted(
        range(len(comparison.candidates)),
        key=lambda place: comparison.candidates[place].picture.digest,
    )
    place_of = {old: new for new, old in enumerate(order)}
    place_of[None] = None
    candidates = tuple(comparison.candidates[old] for old in order)
    digests = [one and one.digest for one in (comparison.image, comparison.mask)]
    digests += [one.picture.digest for one in candidates]
    content = json.dumps([comparison.task, comparison.prompt, comparison.source, digests])
    return dataclasses.replace(
        comparison,
        id=hashlib.sha256(content.encode()).hexdigest()[:PIXEL_DIGITS],
        candidates=candidates,
        answers=tuple(
            dataclasses.replace(one, best=place_of[one.best], worst=place_of[one.worst])
            for one in comparison.answers
        ),
    )
