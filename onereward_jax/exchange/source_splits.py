"""Splits by source picture, never by pair: `data.splits` does the same for the rows of a folder.

Comparisons share a source picture if their source ids or the pixels of their source images are
equal; if the source of one is not known, if they share a candidate. A source picture without a
stated split gets one by its digest, so that adding rows moves none. The result is written down: it
does not change with the decoder of another machine.
"""

from __future__ import annotations

import hashlib

from onereward_jax.annotation.comparisons import Comparison
from onereward_jax.common.listing import first_of
from onereward_jax.data.example import Split
from onereward_jax.data.splits import TEST_SHARE


class SourceSplits:
    """Collects comparisons, then gives each its split."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}
        self._stated: list[tuple[str, Split, str]] = []
        self._made_from: list[tuple[str, str]] = []
        self._of: dict[str, Split] = {}

    def add(self, one: Comparison, place: str) -> None:
        """Adds a comparison, whose row is `place`."""
        first, *others = _keys(one)
        self._parents.setdefault(first, first)
        for key in others:
            self._join(first, key)
        if one.source or one.image:
            self._made_from += [(candidate, first) for candidate in _candidates(one)]
        if one.split is not None:
            self._stated.append((first, one.split, f"{one.source or one.id} ({place})"))

    def settle(self, where: str) -> None:
        """Draws missing splits, once all comparisons are there.

        If a split would be empty, the source picture that is nearest to it is moved there.

        Raises:
          ValueError: source pictures are in both splits (all are listed).
        """
        for candidate, source in self._made_from:
            if candidate in self._parents:  # of a comparison whose source is not known
                self._join(source, candidate)
        self._made_from.clear()
        named: dict[str, tuple[Split, str]] = {}
        both = []
        for key, split, source in self._stated:
            known, _ = named.setdefault(self._root(key), (split, source))
            if known != split:
                both.append(source)
        if both:
            plural = len(both) > 1
            raise ValueError(
                f"{where}: {len(both)} comparison{'s have' if plural else ' has'} another split "
                "than earlier ones of the same source picture, which must be in one split: "
                + ", ".join(first_of(both))
            )
        self._of = {root: split for root, (split, _) in named.items()}
        free = sorted((_fraction(root), root) for root in self._roots() if root not in self._of)
        drawn = {root: "test" if part < TEST_SHARE else "train" for part, root in free}
        if len({*self._of, *drawn}) > 1:
            for split, nearest in (("test", 0), ("train", -1)):
                if free and split not in {*self._of.values(), *drawn.values()}:
                    drawn[free[nearest][1]] = split
        self._of |= drawn
        self._stated.clear()

    def of(self, one: Comparison) -> Split:
        """The split of a comparison that was added."""
        return self._of[self._root(_keys(one)[0])]

    def _join(self, one: str, other: str) -> None:
        # The smallest key is the root, so that the order of rows does not matter.
        root, below = sorted((self._root(one), self._root(other)))
        self._parents[root] = self._parents[below] = root

    def _roots(self) -> list[str]:
        return [key for key, parent in self._parents.items() if key == parent]

    def _root(self, key: str) -> str:
        path = []
        while (parent := self._parents.get(key, key)) != key:
            path.append(key)
            key = parent
        self._parents |= dict.fromkeys(path, key)
        return key


def _keys(one: Comparison) -> list[str]:
    """What a comparison shares with others of the same source picture."""
    keys = [f"source {one.source}"] if one.source else []
    if one.image:
        keys.append(f"image {one.image.pixels}")
    return keys or _candidates(one)


def _candidates(one: Comparison) -> list[str]:
    return [f"candidate {each.picture.pixels}" for each in one.candidates]


def _fraction(root: str) -> float:
    """A number in [0, 1) that is drawn by the digest of the source picture."""
    return int(hashlib.sha256(root.encode()).hexdigest()[:12], 16) / 16**12
