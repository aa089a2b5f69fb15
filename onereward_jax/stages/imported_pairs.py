"""Pairs of the preferences folders in `config.reward.preferences`, for the stage `reward`.

Every picture gets the size of the bucket (`config.data.image_size`, `.aspect_ratios`) whose aspect
ratio is nearest to the first candidate's, see `judged_size`. An answer with a probability below 1
is a pair of its own with this label; all others follow the rules of the run's own answers.
"""

from __future__ import annotations

import collections
import functools
import math
import pathlib
from collections.abc import Iterator, Mapping

from ml_collections import FrozenConfigDict

from onereward_jax.annotation import Preference
from onereward_jax.annotation.comparisons import Comparison, Picture
from onereward_jax.annotation.labelled_pairs import (
    ComparedPair,
    LabelledPair,
    PairRules,
    compared_pairs,
)
from onereward_jax.annotation.preferences_folder import content_digest, read_comparisons
from onereward_jax.common.listing import first_of
from onereward_jax.data.aspect_buckets import Size, bucket_sizes, nearest_bucket
from onereward_jax.stages.imported_folders import FIELD, imported_folders
from onereward_jax.stages.judged_size import crop_box
from onereward_jax.stages.reward_settings import trained_view

MUCH = 0.1
"""A crop that loses a larger part of a picture is announced."""

SHAPE_TOLERANCE = 0.03
"""Largest difference, as a share, of the aspect ratio of mask or source from the candidates':
editors round sides to whole tokens."""


def imported_comparisons(config: FrozenConfigDict) -> dict[str, list[Comparison]]:
    """The comparisons of each folder.

    Raises:
      FileNotFoundError, ValueError: as `read_comparisons`, with the field.
    """
    found = {}
    for name, folder in imported_folders(config).items():
        try:
            found[name] = _read(folder, content_digest(folder))
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"{FIELD}: {error}") from error
    return found


@functools.lru_cache(maxsize=8)  # the check reads them first, then the stage
def _read(folder: pathlib.Path, digest: str) -> list[Comparison]:
    return read_comparisons(folder)


def check_imported(config: FrozenConfigDict) -> None:
    """Checks the folders, before the chain starts.

    Raises:
      FileNotFoundError, ValueError: as `imported_comparisons`; the buckets are invalid; a source
        picture is in both splits; or masks or sources are missing that the judge is to see.
    """
    if not imported_folders(config):
        return
    try:
        _buckets(config)
    except ValueError as error:
        raise ValueError(f"config.data.{error}") from None
    found = imported_comparisons(config)
    _check_splits(found, {})
    _check_edits(config, found)


def imported_pairs(
    config: FrozenConfigDict, rules: Mapping[str, PairRules], own: Mapping[str, str]
) -> Iterator[LabelledPair]:
    """The pairs of all folders.

    Args:
      config: the full config.
      rules: how answers become labels, per split.
      own: digest of each of the run's candidates -> its split.

    Raises:
      ValueError: a source picture is in both splits.
    """
    found = imported_comparisons(config)
    _check_splits(found, own)
    buckets = _buckets(config) if found else ()
    for folder, comparisons in found.items():
        for one in comparisons:
            size = _bucket(one, buckets)
            for pair in _compared(one, rules[one.split]):
                yield LabelledPair(
                    split=one.split,
                    source=one.source or one.id.removeprefix(f"{one.split}/"),
                    task=one.task,
                    dimension=pair.dimension,
                    prompt=one.prompt,
                    folder=folder,
                    first=one.candidates[pair.first].picture.path,
                    second=one.candidates[pair.second].picture.path,
                    size=size,
                    label=pair.label,
                    votes=pair.votes,
                    share=pair.share,
                    image=one.image.path if one.image else "",
                    mask=one.mask.path if one.mask else "",
                )


def crop_notes(config: FrozenConfigDict) -> list[str]:
    """A message about pictures that lose much to the crop; none if there are none."""
    cropped = total = 0
    found = imported_comparisons(config)
    buckets = _buckets(config) if found else ()
    for one in (one for comparisons in found.values() for one in comparisons):
        height, width = _bucket(one, buckets)
        for each in one.candidates:
            whole = each.picture.width * each.picture.height
            left, top, right, bottom = crop_box(
                (each.picture.width, each.picture.height), width / height
            )
            total += 1
            cropped += (right - left) * (bottom - top) < (1.0 - MUCH) * whole
    if not cropped:
        return []
    return [
        f"reward: {cropped} of {total} imported pictures lose more than {MUCH:.0%} to the crop: "
        "config.data.aspect_ratios may name more ratios (width / height)"
    ]


def _compared(one: Comparison, rules: PairRules) -> Iterator[ComparedPair]:
    """The compared pairs of a comparison, by candidate indices."""
    certain = [
        Preference(
            one.id,
            one.task,
            answer.dimension,
            answer.best,
            answer.worst,
            answer.annotator,
            answer.answered_at,
            answer.seconds,
        )
        for answer in one.answers
        if answer.probability == 1.0
    ]
    yield from compared_pairs(certain, {one.id: range(len(one.candidates))}, rules)
    for answer in one.answers:
        if answer.probability < 1.0 and answer.best is not None:
            label = 1.0 if rules.consensus == "majority" else answer.probability
            pair = (answer.best, answer.worst, label, 1, answer.probability)
            yield ComparedPair(one.id, one.task, answer.dimension, *pair)


def _buckets(config: FrozenConfigDict) -> tuple[Size, ...]:
    return bucket_sizes(config.data.image_size, tuple(config.data.aspect_ratios))


def _bucket(one: Comparison, buckets: tuple[Size, ...]) -> Size:
    first = one.candidates[0].picture
    return nearest_bucket((first.height, first.width), buckets)


def _check_edits(config: FrozenConfigDict, found: Mapping[str, list[Comparison]]) -> None:
    """Raises ValueError if a folder lacks masks or source pictures that the judge is to see."""
    view = trained_view(config)
    needed = {"mask": view.needs_mask, "image": bool(view.source)}
    for name, comparisons in found.items():
        for field in (field for field, is_needed in needed.items() if is_needed):
            count = sum(not _fits(one, getattr(one, field)) for one in comparisons)
            if count:
                what = {"mask": "mask", "image": "source picture"}[field]
                raise ValueError(
                    f"{FIELD}: {imported_folders(config)[name]}: {count} of {len(comparisons)} "
                    f"comparisons have no {what} of the candidates' shape, but the judge is to "
                    f"see {view.sees}: leave the folder out, or set config.reward.crop to 0 and "
                    'config.reward.source to ""'
                )


def _fits(one: Comparison, picture: Picture | None) -> bool:
    """Whether a picture of a comparison exists and has the aspect ratio of its candidates."""
    if picture is None:
        return False
    first = one.candidates[0].picture
    ratio = picture.width * first.height / (picture.height * first.width)
    return abs(math.log(ratio)) < SHAPE_TOLERANCE


def _check_splits(found: Mapping[str, list[Comparison]], own: Mapping[str, str]) -> None:
    """Raises ValueError if a source picture is in both splits.

    Those of the run are known by the candidates that were made from them, and so are those of
    comparisons without a source.
    """
    known: dict[str, str] = {}
    both = {}
    every = [one for comparisons in found.values() for one in comparisons]
    splits = collections.defaultdict(set)
    for one in every:
        for each in one.candidates:
            splits[each.picture.pixels].add(one.split)
    for one in every:
        keys = {one.source, one.image.pixels if one.image else ""} - {""}
        elsewhere = any(known.setdefault(key, one.split) != one.split for key in keys)
        if not keys:
            elsewhere = any(len(splits[each.picture.pixels]) > 1 for each in one.candidates)
        in_run = {own.get(each.picture.pixels, one.split) for each in one.candidates}
        if elsewhere or one.split not in in_run:
            both[one.source or one.id] = None
    if both:
        raise ValueError(
            f"{FIELD}: {len(both)} source pictures are in both splits, in different folders or in "
            f"a folder and this run: {', '.join(first_of(list(both)))}"
        )
