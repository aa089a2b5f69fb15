"""Good/Same/Bad of the policy's images against the base's, by judges."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onereward_jax.chain.stage import StageContext
from onereward_jax.common.pixels import from_uint8
from onereward_jax.convert import resolve_folder
from onereward_jax.data.pipeline import same_size_parts, sizes_of
from onereward_jax.data.triplets import Triplets
from onereward_jax.evaluation.gains_by_dimension import ByDimension
from onereward_jax.evaluation.gsb import Verdict, verdict_of
from onereward_jax.parallel import (
    HostLocalRow,
    batch_sharding,
    host_local_rows,
    local_rows,
    mesh_jit,
    shard_batch,
)
from onereward_jax.parallel.distributed import gather_on_writer
from onereward_jax.parallel.progress import progress_bar
from onereward_jax.pictures.mask_reading import EDITED
from onereward_jax.reward.judge_loader import RewardModel, load_reward_params, read_reward_model
from onereward_jax.stages import judge_parts
from onereward_jax.stages.evaluate.compared_edits import Pictures
from onereward_jax.stages.io_pipeline import overlapped
from onereward_jax.stages.rl_settings import judge_options
from onereward_jax.tasks import DIMENSIONS, TASKS

HELD_OUT = "config.evaluate.judge"


def held_out_folder(context: StageContext) -> Path | None:
    """The folder of the held-out judge: the named one, or that of the stage `reward`, if any.

    Raises:
      FileNotFoundError: there is no such folder.
    """
    if name := context.config.evaluate.judge:
        return resolve_folder(name, HELD_OUT)
    own = context.output("reward") / judge_parts.HELD_OUT
    return own if own.is_dir() else None


def open_judge(
    folder: Path, size: tuple[int, int], options: Mapping[str, Any], what: str
) -> RewardModel:
    """`read_reward_model`, with the name of the judge in errors.

    Raises:
      FileNotFoundError, ValueError: as `read_reward_model`.
    """
    try:
        return read_reward_model(folder, size, **options)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"{what}: {error}") from error


def judge_preferences(
    context: StageContext,
    triplets: Triplets,
    rows: Sequence[int],
    pictures: tuple[Pictures, Pictures],
    folder: Path,
    *,
    what: str,
    int8: bool = False,
) -> dict[int, ByDimension]:
    """A judge's probability that the policy's result is better, averaged over both orders.

    The judge has the same dtype and quantization as in the stage `rl`. Each process reads the
    images of its own devices, overlapped with computation.

    Args:
      context: context of the stage.
      triplets, rows: the compared triplets.
      pictures: images of base and policy.
      folder: folder of the judge.
      what: name of the judge in errors and on the progress bar.
      int8: see `load_reward_params`.

    Returns:
      Preferences by row on process 0; {} on the others.

    Raises:
      FileNotFoundError, ValueError: as `read_reward_model`, or a prompt is too long for the judge.
    """
    batch_size, mesh = context.config.evaluate.batch_size, context.mesh
    options = judge_options(context.config)
    judges = {size: open_judge(folder, size, options, what) for size in sizes_of(triplets)}
    params = load_reward_params(folder, next(iter(judges.values())).scorer, mesh, int8=int8)
    samples = batch_sharding(mesh)
    ask = {
        size: mesh_jit(judge.scorer.score, mesh, out_shardings=samples)
        for size, judge in judges.items()
    }
    prompts, here = triplets.column("prompt"), local_rows(batch_size, mesh)
    parts = [
        part.tolist()
        for part in same_size_parts(triplets.sizes[list(rows)], np.array(rows), batch_size)
    ]
    own = [[part[min(row, len(part) - 1)] for row in here.tolist()] for part in parts]

    view = next(iter(judges.values())).scorer.view

    def read(row: int) -> list[np.ndarray]:
        found = [from_uint8(made[row]) for made in pictures]
        if not view.needs_mask:
            return found
        edit = triplets.read(row, ["image", "mask"])
        masks, sources = edit["mask"][None, ..., 0] >= EDITED, from_uint8(edit["image"][None])
        return found + [values[0] for values in view.inputs(masks, sources).values()]

    def compute(number: int, found: Sequence[list[np.ndarray]]) -> Iterator[Answer]:
        part, size = parts[number], tuple(triplets.sizes[parts[number][0]].tolist())
        tasks = [TASKS[triplets.tasks[row]] for row in own[number]]
        try:
            asked = judges[size].queries.encode(tasks, [prompts[row] for row in own[number]])
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from error
        both = dict(zip(own[number], found))
        base, policy, *seen = (np.stack(one) for one in zip(*(both[row] for row in own[number])))
        asked = asked._replace(**dict(zip(view.needed, seen)))
        base, policy, queries = shard_batch((base, policy, asked), mesh)
        forth = ask[size](params, policy, base, queries)
        back = ask[size](params, base, policy, queries)
        for logits in zip(*(host_local_rows(one) for one in (*forth, *back)), strict=True):
            if logits[0].row < len(part):
                yield part[logits[0].row], logits

    unique = (list(dict.fromkeys(rows)) for rows in own)
    preferences = {}
    with progress_bar(what, len(rows), unit="triplet", program=context.program(what)) as bar:
        for part, found in zip(parts, overlapped(unique, read, compute, _preference)):
            for text in gather_on_writer(json.dumps(found)):
                for row, values in json.loads(text):
                    dimensions = DIMENSIONS[TASKS[triplets.tasks[row]]]
                    preferences[row] = dict(zip(dimensions, values))
            bar.update(len(part))
    return preferences


Answer = tuple[int, tuple[HostLocalRow, ...]]
"""(row, (yes, no) with the policy's image first, (yes, no) with the base's first), flattened."""


def _preference(answer: Answer) -> tuple[int, list[float]]:
    """Preference for the policy's image in [0, 1] per dimension, averaged over both orders."""
    row, logits = answer
    yes, no, other_yes, other_no = (one.fetch() for one in logits)
    first, second = (1.0 / (1.0 + np.exp(n - y)) for y, n in ((yes, no), (other_yes, other_no)))
    return row, ((first + 1.0 - second) / 2.0).tolist()


def preferred(preference: ByDimension, margin: float) -> Verdict:
    """The verdict for a preference for the first image, in [0, 1] per dimension."""
    return verdict_of(float(np.mean(list(preference.values()))) - 0.5, margin)
