"""Labelled pairs as a grain source: pictures, queries and labels for the judge's training step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from jaxtyping import Integer

from onereward_jax.annotation.labelled_pairs import LabelledPair
from onereward_jax.common.pixels import from_uint8
from onereward_jax.data.aspect_buckets import Size
from onereward_jax.data.pipeline import same_size_parts
from onereward_jax.reward import QueryTokenizer
from onereward_jax.reward.judge_view import mirrored_box
from onereward_jax.stages.edits_of_pairs import EditsOfPairs
from onereward_jax.stages.judged_size import judged_pixels
from onereward_jax.tasks import DIMENSIONS, TASKS, Dimension, Task


class PairSource:
    """Labelled pairs with the fields of `preference_loss.Pairs`; a grain source.

    Attributes:
      pairs: the pairs, in the order of the source.
      tasks: int32 [n], task of each pair, an index into `tasks.TASKS`.
      sizes: int32 [n, 2], image height and width of each pair.
    """

    def __init__(
        self,
        pairs: Sequence[LabelledPair],
        folders: Mapping[str, Path],
        queries: Mapping[Size, QueryTokenizer],
        edits: EditsOfPairs | None = None,
    ) -> None:
        """Tokenises the queries; images are read on access.

        Args:
          pairs: pairs of one split, at least one.
          folders: where the folders that the pairs name are.
          queries: query tokenizer per image size; their view says what else the judge sees.
          edits: reads the edit of a pair; needed by a judge that sees more than two results.
        """
        self.pairs, self._folders = pairs, folders
        self.tasks = np.array([TASKS.index(one.task) for one in pairs], np.int32)
        self.sizes = np.array([one.size for one in pairs], np.int32)
        self._view, self._edits = next(iter(queries.values())).view, edits
        self._boxes: dict[tuple[str, ...], np.ndarray] = {}
        self._asked: dict[int, tuple[np.ndarray, ...]] = {}
        for part in same_size_parts(self.sizes, np.arange(len(self)), len(self)):
            found = [pairs[index] for index in part]
            asked = queries[found[0].size].encode_dimensions(
                [one.task for one in found],
                [one.dimension for one in found],
                [one.prompt for one in found],
            )
            self._asked |= zip(part.tolist(), zip(*asked[:3]))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: SupportsIndex) -> dict[str, np.ndarray]:
        index = int(index)
        one = self.pairs[index]
        prefix, suffix, suffix_mask = self._asked[index]
        return self._seen(one) | {
            "first": self._picture(one, one.first),
            "second": self._picture(one, one.second),
            "label": np.float32(one.label),
            "task": np.int32(TASKS.index(one.task)),
            "dimension": np.int32(DIMENSIONS[one.task].index(one.dimension)),
            "query_prefix": prefix,
            "query_suffix": suffix,
            "query_suffix_mask": suffix_mask,
            "index": np.int32(index),
        }

    def _seen(self, one: LabelledPair) -> dict[str, np.ndarray]:
        """What the judge sees besides the two results; the box of a source is computed once."""
        found = {}
        if self._view.crop:
            edit = one.folder, one.split, one.source, one.mask
            if edit not in self._boxes:
                self._boxes[edit] = self._view.boxes([self._edits.mask(one)])[0]
            found["query_box"] = self._boxes[edit]
        if self._view.source:
            found["query_source"] = from_uint8(self._edits.source(one))
            found["query_mask"] = self._edits.mask(one)[..., None].astype(np.float32)
        return found

    def describe(self, index: SupportsIndex) -> dict[str, str]:
        """Describes pair `index` for messages."""
        one = self.pairs[index]
        return {
            "triplet": f"{one.split}/{one.source}",
            "dimension": one.dimension.value,
            "first": one.first,
            "second": one.second,
            "label": f"{one.label:g}",
        }

    def _picture(self, one: LabelledPair, path: str) -> np.ndarray:
        return from_uint8(judged_pixels(self._folders[one.folder] / path, one.size))


def task_shares(tasks: Integer[np.ndarray, "n"], drawn: str) -> dict[Task, float]:
    """The probability of each task when drawing pairs; sums to 1.

    Args:
      tasks: task of each pair, an index into `tasks.TASKS`.
      drawn: "as_found": in proportion to the number of pairs; "evenly": equally often, for tasks
        with few pairs (few dimensions, or similar candidates).

    Raises:
      ValueError: another value of `drawn`.
    """
    found, counts = np.unique(tasks, return_counts=True)
    weights = {"as_found": counts, "evenly": np.ones(len(found))}
    if drawn not in weights:
        raise ValueError(f'reward.tasks must be "as_found" or "evenly", found {drawn!r}')
    shares = weights[drawn] / weights[drawn].sum()
    return {TASKS[task]: float(share) for task, share in zip(found, shares)}


def maybe_mirrored(
    pair: dict[str, np.ndarray], rng: np.random.Generator, *, probability: float
) -> dict[str, np.ndarray]:
    """Mirrors the images of a pair with `probability`, and all that the judge sees with them.

    Not for pairs about text alignment: a prompt may mention a side or letters.
    """
    asked = DIMENSIONS[TASKS[pair["task"]]][pair["dimension"]]
    if asked is Dimension.TEXT_ALIGNMENT or rng.random() >= probability:
        return pair
    pictures = {"first", "second", "query_source", "query_mask"} & pair.keys()
    turned = {name: pair[name][:, ::-1] for name in pictures}
    if "query_box" in pair:
        turned["query_box"] = mirrored_box(pair["query_box"], pair["first"].shape[1])
    return pair | turned
