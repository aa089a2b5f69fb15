"""Runs the training of a stage: restores the newest checkpoint, then trains and saves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grain
from ml_collections import FrozenConfigDict

from onereward_jax.chain.stage import StageContext
from onereward_jax.parallel import shard_batch
from onereward_jax.parallel.progress import announce
from onereward_jax.stages.settings import from_section, plain
from onereward_jax.stages.training_logs import training_logs
from onereward_jax.training.checkpoint import About, Checkpointer
from onereward_jax.training.nonfinite_steps import Advice
from onereward_jax.training.optimizer import OptimizerConfig, in_words
from onereward_jax.training.train_loop import EarlyEnd, LoopConfig, Periodic, StepFn, train
from onereward_jax.training.train_state import TrainState


class Prepared(NamedTuple):
    """A training step and its side tasks.

    Attributes:
      step: one update.
      periodic: side tasks, see `Periodic`.
      model_flops: returns the FLOPs of a step, see `training.model_flops`; optional.
    """

    step: StepFn
    periodic: Sequence[Periodic] = ()
    model_flops: Callable[[], float] | None = None


def loop_of(config: FrozenConfigDict, stage: str) -> LoopConfig:
    """Duration and intervals of a stage's training."""
    section = config[stage]
    return from_section(LoopConfig, section, f"config.{stage}", total_steps=section.steps)


def run_training(
    context: StageContext,
    prepare: Callable[[TrainState], Prepared],
    *,
    name: str,
    abstract: TrainState,
    first: Callable[[], TrainState],
    data: grain.DatasetIterator,
    loop: LoopConfig,
    optimizer: OptimizerConfig,
    advice: Advice,
    folder: Path | None = None,
    must_match: Mapping[str, Any] | None = None,
    keep: int = 3,
    early_end: EarlyEnd | None = None,
) -> TrainState:
    """Trains from the newest readable checkpoint, or the initial state; announces a resume.

    Args:
      context: the stage's context.
      prepare: makes the step from the state; called after the restore, so that what it loads does
        not add to the restore's peak memory.
      name: name of the training run, for messages.
      abstract: shapes and shardings of the state.
      first: makes the initial state.
      data: iterator of endless batches, dicts of arrays; its state is restored too.
      loop: durations and intervals.
      optimizer: optimizer settings, with `total_steps`.
      advice: text of the error if too many steps are refused.
      folder: folder of the logs; its name is also that of the checkpoint folder. Default: those of
        the stage.
      must_match: what a checkpoint must match; default: `context.must_match`.
      keep: number of checkpoints kept.
      early_end: see `train_loop.EarlyEnd`.

    Returns:
      The state after the last step.

    Raises:
      IncompatibleCheckpoint: the newest checkpoint belongs to another model or setting.
    """
    about = About(
        must_match=context.must_match if must_match is None else must_match,
        config=plain(context.config),
    )
    checkpoints = context.checkpoints(folder.name) if folder else context.checkpoints()
    with Checkpointer(checkpoints, about, keep=keep) as checkpointer:
        state, complaints = checkpointer.restore_newest(abstract, data)
        for complaint in complaints:
            announce(f"{name}: {complaint}")
        if state is None:
            state = first()
        else:
            announce(f"{name}: {in_words(optimizer, int(state.step))}")
        step, periodic, model_flops = prepare(state)
        with training_logs(context, folder or context.folder, int(state.step), model_flops) as (
            throughput,
            writer,
        ):
            return train(
                step,
                state,
                data,
                lambda batch: shard_batch(batch, context.mesh),
                loop,
                checkpointer,
                writer,
                name=name,
                program=context.program(name),
                periodic=periodic,
                throughput=throughput,
                advice=advice,
                early_end=early_end,
            )
