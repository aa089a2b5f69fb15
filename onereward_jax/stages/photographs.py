"""Which photograph each labelled pair belongs to, so that judges can learn from different ones.

Several triplets may be made from one photograph, and a preferences folder may have comparisons of
the run's own. Pairs belong together if their triplets have the same photograph (`Example.photo`),
equal pixels of image or target, the same source in a folder, or a candidate in common; also over
several such links.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from onereward_jax.annotation import Candidate
from onereward_jax.annotation.labelled_pairs import LabelledPair
from onereward_jax.annotation.picture_digests import pixel_digest
from onereward_jax.chain.rounds import in_round
from onereward_jax.chain.stage import StageContext
from onereward_jax.common.rng import generator
from onereward_jax.data.triplets import Triplets
from onereward_jax.stages.data import open_triplets
from onereward_jax.stages.imported_pairs import imported_comparisons
from onereward_jax.stages.own_candidates import OWN, is_own, rounds_so_far
from onereward_jax.stages.preference_stores import read_store

Source = tuple[str, str]
"""`LabelledPair.folder` and `.source`."""


def with_photographs(
    context: StageContext, pairs: Iterable[LabelledPair]
) -> Iterator[LabelledPair]:
    """The pairs, those of the training split with their `photo`; on process 0."""
    pairs = list(pairs)
    links: dict[Source, list[str]] = collections.defaultdict(list)
    if any(map(is_own, pairs)):
        _link_own(context, links)
    for folder, comparisons in imported_comparisons(context.config).items():
        for one in comparisons:
            source = one.source or one.id.removeprefix(f"{one.split}/")
            found = [f"source {source}", *(f"pixels {each.pixels}" for each in one.pictures())]
            if one.mask is not None:  # many pictures may have the same mask
                found.remove(f"pixels {one.mask.pixels}")
            links[folder, source] += found
    sources = dict.fromkeys((pair.folder, pair.source) for pair in pairs)
    photos = grouped({source: links[source] for source in sources})
    for pair in pairs:
        photo = photos[pair.folder, pair.source] if pair.split == "train" else ""
        yield dataclasses.replace(pair, photo=photo)


def _link_own(context: StageContext, links: dict[Source, list[str]]) -> None:
    """Adds what the run's own training triplets are linked by."""
    triplets = open_triplets(context, "train")
    for number in rounds_so_far(context):
        with read_store(context, "annotate", number) as store:
            _link_round(triplets, store.candidates(), in_round(OWN, number), links)


def _link_round(
    triplets: Triplets,
    candidates: Sequence[Candidate],
    folder: str,
    links: dict[Source, list[str]],
) -> None:
    """`_link_own` for the candidates of a round, which are in `folder`."""
    ids, photos = triplets.column("id"), triplets.column("photo")

    def pixels(row: int) -> list[str]:
        names = ("image", "target") if triplets.has_target[row] else ("image",)
        return [f"pixels {pixel_digest(one)}" for one in triplets.read(row, names).values()]

    judged = {one.triplet_id for one in candidates}
    rows = [row for row, name in enumerate(ids) if f"train/{name}" in judged]
    with concurrent.futures.ThreadPoolExecutor() as threads:
        for row, found in zip(rows, threads.map(pixels, rows)):
            links[folder, ids[row]] += [f"photo {photos[row]}", *found]
    for one in candidates:
        split, _, name = one.triplet_id.partition("/")
        if split == "train" and one.digest:
            links[folder, name].append(f"pixels {one.digest}")


def grouped(links: dict[Source, Sequence[str]]) -> dict[Source, str]:
    """A name per source, equal for those with a link in common, directly or not."""
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        while (parent := parents.get(name, name)) != name:
            name = parent
        return name

    first = {source: f"{source[0]}/{source[1]}" for source in links}
    for source, found in links.items():
        for one in found:
            low, high = sorted((root(first[source]), root(one)))
            parents[high] = low
    return {source: root(first[source]) for source in links}


def divided(
    pairs: Sequence[LabelledPair], share: float, seed: int, name: str
) -> tuple[list[LabelledPair], list[LabelledPair]]:
    """Pairs of about `share` of the training data, and the rest; no photograph is in both.

    Photographs are drawn until they have this share of the pairs; at least one is.
    """
    counts = collections.Counter(pair.photo for pair in pairs)
    photos = sorted(counts)
    drawn: set[str] = set()
    total = 0
    for place in generator(seed, name).permutation(len(photos)):
        photo = photos[place]
        if drawn and total + counts[photo] / 2 > share * len(pairs):
            continue
        drawn.add(photo)
        total += counts[photo]
    return (
        [pair for pair in pairs if pair.photo in drawn],
        [pair for pair in pairs if pair.photo not in drawn],
    )
