"""Where a training begins: at its newest checkpoint, or at the start."""

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
    """The state of the newest checkpoint that can be read, or the first one; says which.

    Args:
      checkpointer: of the training.
      abstract: shapes and shardings of the state.
      data: an iterator, set to where the state left off.
      first: makes the state of step 0.
      name: of the training.
      optimizer: its `total_steps` are the end of the training.

    Raises:
      IncompatibleCheckpoint: the newest checkpoint is whole and of something else.
    """
    state, complaints = checkpointer.restore_newest(abstract, data)
    for complaint in complaints:
        announce(f"{name}: {complaint}")
    if state is None:
        return first()
    announce(f"{name}: {in_words(optimizer, int(state.step))}")
    return state
