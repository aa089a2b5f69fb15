"""Shared by the three training runs of the stage: optimiser, loop, checkpoints."""

from __future__ import annotations

from collections.abc import Callable

import grain
from ml_collections import FrozenConfigDict

from onereward_jax.chain.stage import StageContext
from onereward_jax.parallel import MeshFunction
from onereward_jax.stages.run_training import Prepared, run_training
from onereward_jax.stages.settings import from_section, plain
from onereward_jax.training.nonfinite_steps import Advice
from onereward_jax.training.optimizer import OptimizerConfig
from onereward_jax.training.train_loop import LoopConfig
from onereward_jax.training.train_state import TrainState


def optimizer_config(config: FrozenConfigDict, name: str) -> OptimizerConfig:
    """AdamW with warm-up and cosine decay, from the section `config.pretrain.<name>`."""
    section = config.pretrain[name]
    return from_section(
        OptimizerConfig,
        section,
        f"config.pretrain.{name}",
        schedule="cosine",
        total_steps=section.steps,
        b2=0.99,
    )


def train_model(
    context: StageContext,
    name: str,
    step: MeshFunction,
    abstract: TrainState,
    create: Callable[[], TrainState],
    data: grain.MapDataset,
) -> TrainState:
    """Trains to the steps of its section, from the newest checkpoint if there is one.

    Args:
      context: the stage's context; files go to `<folder>/<name>_run`.
      name: name of the training run, and of its section of `config.pretrain`.
      step: (state, batch) -> (state, metrics).
      abstract: shapes and shardings of the state.
      create: makes the initial state.
      data: endless batches, dicts of arrays.
    """
    pretrain, section = context.config.pretrain, context.config.pretrain[name]
    return run_training(
        context,
        lambda state: Prepared(step),
        name=name,
        abstract=abstract,
        first=create,
        data=iter(data.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=8))),
        loop=LoopConfig(section.steps, pretrain.log_every, pretrain.checkpoint_every),
        optimizer=optimizer_config(context.config, name),
        folder=context.folder / f"{name}_run",
        advice=Advice(f"config.pretrain.{name}.learning_rate"),
        must_match={"training": plain(section)},
        keep=1,
    )
