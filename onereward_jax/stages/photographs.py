"""Which photograph each labelled pair belongs to, so that judges can learn from different ones.

Several triplets may be made from one photograph, and a preferences folder may have comparisons of
the run's own. Pairs belong together if their triplets have the same photograph (`Example.photo`),
equal pixels of image or target, the same source in a folder, or a candidate in common; also over
several such links.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from onereward_jax.annotation.labelled_pairs import LabelledPair
from onereward_jax.annotation.picture_digests import pixel_digest
from onereward_jax.chain.stage import StageContext
from onereward_jax.stages.data import open_triplets
from onereward_jax.stages.imported_pairs import imported_comparisons
from onereward_jax.stages.own_candidates import rounds_so_far
from onereward_jax.stages.preference_stores import read_store

Source = tuple[str, str]
"""Folder of `config.reward.preferences`, or "" for the run's own triplets; and their source."""


def with_photographs(
    context: StageContext, pairs: Iterable[LabelledPair]
) -> Iterator[LabelledPair]:
    """The pairs, those of the training split with their `photo`; on process 0."""
    pairs, imported = list(pairs), imported_comparisons(context.config)

    def source(pair: LabelledPair) -> Source:
        return (pair.folder if pair.folder in imported else "", pair.source)

    train = [pair for pair in pairs if pair.split == "train"]
    links: dict[Source, list[str]] = {source(pair): [] for pair in train}
    _link_own(context, links, with_candidates=bool(imported))
    for folder, comparisons in imported.items():
        for one in comparisons:
            name = one.source or one.id.removeprefix(f"{one.split}/")
            if (folder, name) in links:
                seen = [one.image, *(each.picture for each in one.candidates)]
                found = [f"pixels {each.pixels}" for each in seen if each is not None]
                links[folder, name] += [f"source {name}", *found]
    photos = grouped(links)
    for pair in pairs:
        photo = photos[source(pair)] if pair.split == "train" else ""
        yield dataclasses.replace(pair, photo=photo)


def _link_own(
    context: StageContext, links: dict[Source, list[str]], *, with_candidates: bool
) -> None:
    """Adds what the run's own training triplets are linked by."""
    if not any(folder == "" for folder, _ in links):
        return
    triplets = open_triplets(context, "train")
    photos, has_target = triplets.column("photo"), triplets.has_target
    rows = {name: row for row, name in enumerate(triplets.column("id")) if ("", name) in links}

    def pixels(row: int) -> list[str]:
        names = ("image", "target") if has_target[row] else ("image",)
        return [f"pixels {pixel_digest(one)}" for one in triplets.read(row, names).values()]

    with concurrent.futures.ThreadPoolExecutor() as threads:
        for (name, row), found in zip(rows.items(), threads.map(pixels, rows.values())):
            links["", name] += [f"photo {photos[row]}", *found]
    for number in rounds_so_far(context) if with_candidates else ():
        with read_store(context, "annotate", number) as store:
            for one in store.candidates():
                split, _, name = one.triplet_id.partition("/")
                if split == "train" and name in rows and one.digest:
                    links["", name].append(f"pixels {one.digest}")


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
            pair = (root(first[source]), root(one))
            # Named by a photograph if possible: the names of triplets come and go.
            kept, other = sorted(pair, key=lambda name: (not name.startswith("photo "), name))
            parents[other] = kept
    return {source: root(first[source]) for source in links}
