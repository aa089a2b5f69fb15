"""Preference pairs joined with their triplets, for methods of the stage `rl` that learn from pairs.

Pairs of the run's own answers have a triplet of this run. Those of `config.reward.preferences` have
one if their folder has the source picture and the mask; the others are left out.

pairs.jsonl     the labelled pairs, of which the decided ones of the training split are used
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Int32

from onereward_jax.annotation.labelled_pairs import LabelledPair, read_pairs, write_pairs
from onereward_jax.chain.stage import StageContext
from onereward_jax.common.pixels import from_uint8
from onereward_jax.data.triplets import Triplets
from onereward_jax.parallel import is_writer
from onereward_jax.parallel.progress import announce
from onereward_jax.pictures.mask_reading import EDITED
from onereward_jax.stages.collect_pairs import (
    PAIRS,
    all_pairs,
    has_own_pairs,
    picture_folders,
)
from onereward_jax.stages.imported_folders import FIELD, imported_folders
from onereward_jax.stages.imported_pairs import check_imported, imported_comparisons
from onereward_jax.stages.judged_size import judged_pixels
from onereward_jax.stages.own_candidates import is_own
from onereward_jax.tasks import DIMENSIONS, FIXED_PROMPTS, TASKS, Dimension, Task


@dataclasses.dataclass(frozen=True)
class Edit:
    """What the pictures of a pair are edits of.

    Attributes:
      row: row of the triplet in the training split; -1: pictures of a preferences folder.
      image, mask: those pictures; None if there is a triplet.
    """

    row: int
    image: Path | None = None
    mask: Path | None = None


class PairsWithTriplets:
    """Decided pairs, each with its triplet; a `data.pipeline.TripletSequence` of pairs.

    Attributes:
      tasks: int32 [n], task of each pair, an index into `tasks.TASKS`.
      sizes: int32 [n, 2], image height and width of each pair.
    """

    def __init__(
        self, pairs: Sequence[tuple[LabelledPair, Edit]], triplets: Triplets, context: StageContext
    ) -> None:
        """Reads no picture; arguments as `open_pairs` finds them."""
        self._pairs, self._triplets = pairs, triplets
        self._folders = picture_folders(context)
        self._with_targets = context.config.rl.flow_matching_weight > 0
        self.tasks = np.array([TASKS.index(one.task) for one, _ in pairs], np.int32)
        self.sizes = np.array([one.size for one, _ in pairs], np.int32).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._pairs)

    def __repr__(self) -> str:
        return f"PairsWithTriplets({len(self)} pairs of {self._triplets!r})"

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """The sample of a pair: fields of `methods.pair_batch.PairBatch`, with the prompt."""
        one, edit = self._pairs[int(index)]
        image, mask = self._asked(one, edit)
        target = self._target(edit, image.shape) if self._with_targets else {}
        swapped = one.label < 0.5
        winner, loser = (one.second, one.first) if swapped else (one.first, one.second)
        return {
            "image": from_uint8(image),
            "mask": (mask >= EDITED).astype(np.float32),
            "winner": self._picture(one, winner),
            "loser": self._picture(one, loser),
            "label": np.float32(1.0 - one.label if swapped else one.label),
            "task": np.int32(TASKS.index(one.task)),
            "dimension": np.int32(DIMENSIONS[one.task].index(one.dimension)),
            "index": np.int32(index),
            "prompt": prompt_of(one.task, one.prompt),
            **target,
        }

    def with_task(self, task: Task) -> Int32[np.ndarray, "n"]:
        """The indices of all pairs of a task."""
        return np.flatnonzero(self.tasks == TASKS.index(task)).astype(np.int32)

    def describe(self, index: int) -> dict[str, str]:
        """Describes pair `index` for messages."""
        one, _ = self._pairs[int(index)]
        return {
            "triplet": f"{one.split}/{one.source}",
            "dimension": one.dimension.value,
            "first": one.first,
            "second": one.second,
            "label": f"{one.label:g}",
        }

    def _asked(self, one: LabelledPair, edit: Edit) -> tuple[np.ndarray, np.ndarray]:
        """Source [h, w, 3] and mask [h, w, 1], uint8."""
        if edit.image is None:
            found = self._triplets.read(edit.row, ("image", "mask"))
            return found["image"], found["mask"]
        return judged_pixels(edit.image, one.size), judged_pixels(edit.mask, one.size)[..., :1]

    def _target(self, edit: Edit, shape: tuple[int, ...]) -> dict[str, Any]:
        """The target of the triplet, if it has one; black without."""
        if edit.row < 0 or not self._triplets.has_target[edit.row]:
            return {"target": np.full(shape, -1.0, np.float32), "has_target": np.False_}
        found = self._triplets.read(edit.row, ("target",))
        return {"target": from_uint8(found["target"]), "has_target": np.True_}

    def _picture(self, one: LabelledPair, path: str) -> np.ndarray:
        return from_uint8(judged_pixels(self._folders[one.folder] / path, one.size))


def check_pairs(context: StageContext) -> None:
    """Checks before the chain starts that there are answers to learn from.

    Raises:
      FileNotFoundError, ValueError: naming the field.
    """
    config = context.config
    check_imported(config)
    if not has_own_pairs(config) and not imported_folders(config):
        raise ValueError(
            f"config.rl.algorithm is {config.rl.algorithm!r}, which learns from answers, but "
            f"{FIELD} is empty and config.stages has no stage annotate"
        )


def open_pairs(context: StageContext, triplets: Triplets) -> PairsWithTriplets:
    """Writes `PAIRS` on process 0, shares it, and joins the decided pairs with their triplets.

    Dimensions with `config.rl.dimension_weights` of 0 are left out.

    Raises:
      ValueError: no pair is left.
    """
    if is_writer():
        write_pairs(context.folder / PAIRS, all_pairs(context))
    context.share(PAIRS)
    weights = context.config.rl.dimension_weights
    wanted = {one for one in Dimension if weights[one.value]}
    decided = [
        one
        for one in read_pairs(context.folder / PAIRS)
        if one.split == "train" and one.decided and one.dimension in wanted
    ]
    joined = list(_joined(context, triplets, decided))
    lacking = len(decided) - len(joined)
    if not joined:
        why = f": {lacking} lack the source picture or the mask" if lacking else ""
        raise ValueError(
            f"config.rl.algorithm is {context.config.rl.algorithm!r}, but there is no decided pair "
            f"of the training split to learn from{why}"
        )
    if lacking:
        announce(
            f"rl: {lacking} of {len(decided)} pairs lack the source picture or the mask ({FIELD}): "
            "left out"
        )
    return PairsWithTriplets(joined, triplets, context)


def imported_prompts(config: Any) -> Iterator[str]:
    """Prompts of the comparisons of `config.reward.preferences`, for the stage `embed`."""
    for comparisons in imported_comparisons(config).values():
        for one in comparisons:
            yield prompt_of(one.task, one.prompt)


def prompt_of(task: Task, prompt: str) -> str:
    """The prompt that the editor gets: the fixed one of tasks that have one."""
    return FIXED_PROMPTS.get(task, prompt)


def _joined(
    context: StageContext, triplets: Triplets, pairs: Iterable[LabelledPair]
) -> Iterator[tuple[LabelledPair, Edit]]:
    """The pairs that have a triplet, or a source picture and a mask."""
    rows = {name: row for row, name in enumerate(triplets.column("id"))}
    folders = imported_folders(context.config)
    edits = {
        (name, one.task, one.prompt, candidate.picture.path): Edit(
            -1, folders[name] / one.image.path, folders[name] / one.mask.path
        )
        for name, comparisons in imported_comparisons(context.config).items()
        for one in comparisons
        if one.image is not None and one.mask is not None
        for candidate in one.candidates
    }
    for one in pairs:
        if is_own(one):
            yield one, Edit(rows[one.source])
        elif (edit := edits.get((one.folder, one.task, one.prompt, one.first))) is not None:
            yield one, edit
