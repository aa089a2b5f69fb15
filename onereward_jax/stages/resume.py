"""Restores the newest checkpoint of a training run, or makes its initial state."""

from __future__ import annotations

from collections.abc import Callable

import grain

from onereward_jax.parallel.progress import announce
from onereward_jax.training.checkpoint import Checkpointer
from onereward_jax.training.optimizer import OptimizerConfig, in_words
from onereward_jax.training.train_state import TrainState


def restored_or_first(
    checkpointer: Checkpointer,
    abstract: TrainState,
    data: grain.DatasetIterator,
    first: Callable[[], TrainState],
    *,
    name: str,
    optimizer: OptimizerConfig,
) -> TrainState:
    """The state of the newest readable checkpoint, or the initial one; announces a resume.

    Args:
      checkpointer: the checkpointer.
      abstract: shapes and shardings of the state.
      data: data iterator; its state is restored too.
      first: makes the initial state.
      name: name of the training run, for messages.
      optimizer: optimizer settings, with `total_steps`.

    Raises:
      IncompatibleCheckpoint: the newest checkpoint belongs to another model or setting.
    """
    state, complaints = checkpointer.restore_newest(abstract, data)
    for complaint in complaints:
        announce(f"{name}: {complaint}")
    if state is None:
        return first()
    announce(f"{name}: {in_words(optimizer, int(state.step))}")
    return state
