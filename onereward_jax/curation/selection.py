"""Which pictures are kept, and why the others are not."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from onereward_jax.curation.clusters import choose_of_clusters, find_clusters
from onereward_jax.curation.embeddings import Embedded
from onereward_jax.curation.near_duplicates import find_near_duplicates
from onereward_jax.data.aspect_buckets import Size
from onereward_jax.data.folder_source import is_small

BLANK = 4.0
"""Pictures whose luminance has a smaller standard deviation, in grey levels, are blank."""

KEPT, NOT_CHOSEN, NO_TASK = "", "not chosen", "no task"
IDENTICAL, NEAR_DUPLICATE = "identical", "near-duplicate"
REASONS = ("unreadable", "blank", "small", IDENTICAL, NEAR_DUPLICATE, NOT_CHOSEN, NO_TASK)
"""Why a picture is left out; the first one that holds counts."""


@dataclasses.dataclass
class Decision:
    """What becomes of a picture.

    Attributes:
      name: path below the folder of pictures.
      digest: of the file.
      size: height and width of the upright picture in pixels; zeros if unreadable.
      why: one of `REASONS`; "" if it is kept.
      detail: the error of an unreadable picture.
      of: the picture that it is a duplicate of.
      cosine: of the two embeddings.
      cluster, distance: its cluster, and the distance from its centre, unless it is left out
        before.
      group: pictures of the same group are near-duplicates, directly or through a left-out one.
    """

    name: str
    digest: str
    size: tuple[int, int]
    why: str = KEPT
    detail: str = ""
    of: str = ""
    cosine: float | None = None
    cluster: int | None = None
    distance: float | None = None
    group: str = ""

    def fields(self) -> dict[str, Any]:
        """The line of list.jsonl, without empty fields."""
        numbers = {
            name: round(value, 4)
            for name in ("cosine", "distance")
            if (value := getattr(self, name)) is not None
        }
        texts = {name: getattr(self, name) for name in ("why", "detail", "of", "cluster")}
        texts = {name: value for name, value in texts.items() if value not in ("", None)}
        return {"picture": self.name, "kept": self.why == KEPT} | texts | numbers


def select(
    names: Sequence[str],
    embedded: Embedded,
    *,
    clusters: int,
    near: int,
    far: int,
    duplicates: float,
    refused_below: Sequence[Size] | None,
    seed: int,
    progress: Callable[[int], object] = lambda count: None,
) -> list[Decision]:
    """Decides about every picture.

    Args:
      names: of the pictures, in ascending order.
      embedded: of these pictures.
      clusters, near, far: see `find_clusters` and `choose_of_clusters`.
      duplicates: least cosine of near-duplicates. The one with more pixels is kept.
      refused_below: buckets of which a picture must have the size; None: any size will do.
      seed: of all draws.
      progress: called with the number of pictures compared with all others.

    Raises:
      ValueError: there are fewer usable pictures than clusters.
    """
    decisions = [
        Decision(name, digest, (int(size[0]), int(size[1])), group=name)
        for name, digest, size in zip(names, embedded.digests, embedded.sizes)
    ]
    first: dict[str, str] = {}
    for one, contrast, error in zip(decisions, embedded.contrasts, embedded.errors):
        if error:
            one.why, one.detail = "unreadable", error
        elif contrast < BLANK:
            one.why = "blank"
        elif refused_below is not None and is_small(one.size[::-1], refused_below):
            one.why = "small"
        elif one.digest in first:
            one.why, one.of = IDENTICAL, first[one.digest]
        else:
            first[one.digest] = one.name
    progress(sum(one.why != KEPT for one in decisions))

    places = [place for place, one in enumerate(decisions) if one.why == KEPT]
    left = embedded.embeddings[places]
    order = sorted(
        range(len(places)), key=lambda row: (-_pixels(decisions[places[row]]), names[places[row]])
    )
    found = find_near_duplicates(left, order, duplicates, progress=progress)
    for row, place in enumerate(places):
        decisions[place].group = names[places[found.groups[row]]]
    for row, (kept, cosine) in found.of.items():
        one = decisions[places[row]]
        one.why, one.of, one.cosine = NEAR_DUPLICATE, names[places[kept]], cosine

    rows = [row for row, place in enumerate(places) if decisions[place].why == KEPT]
    if len(rows) < clusters:
        counts = counted(decisions)
        others = f" ({counts})" if counts else ""
        raise ValueError(
            f"config.curate.clusters is {clusters}, but only {len(rows)} of {len(names)} pictures "
            f"can be used{others}"
        )
    grouped = find_clusters(left[rows], clusters, seed)
    kept_names = [names[places[row]] for row in rows]
    chosen = set(choose_of_clusters(grouped, kept_names, near=near, far=far, seed=seed))
    for number, row in enumerate(rows):
        one = decisions[places[row]]
        one.cluster, one.distance = int(grouped.labels[number]), float(grouped.distances[number])
        if number not in chosen:
            one.why = NOT_CHOSEN
    return decisions


def counted(decisions: Iterable[Decision]) -> str:
    """The left-out pictures, e.g. "blank 3, near-duplicate 20"; "" if there are none."""
    counts = Counter(one.why for one in decisions)
    return ", ".join(f"{reason} {counts[reason]}" for reason in REASONS if counts[reason])


def straddlers(decisions: Iterable[Decision]) -> set[str]:
    """Groups that have more than one kept picture."""
    counts = Counter(one.group for one in decisions if one.why == KEPT)
    return {group for group, count in counts.items() if count > 1}


def _pixels(one: Decision) -> int:
    return int(np.prod(one.size))
