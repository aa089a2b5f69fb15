"""Shared by the three training runs of the stage: optimiser, loop, checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grain
from ml_collections import FrozenConfigDict

from onereward_jax.chain.stage import StageContext
from onereward_jax.parallel import MeshFunction, shard_batch
from onereward_jax.stages.logging_setup import training_logs
from onereward_jax.stages.resume import restored_or_first
from onereward_jax.stages.settings import from_section, plain
from onereward_jax.training.checkpoint import About, Checkpointer
from onereward_jax.training.nonfinite_steps import Advice
from onereward_jax.training.optimizer import OptimizerConfig
from onereward_jax.training.train_loop import LoopConfig, train
from onereward_jax.training.train_state import TrainState


def optimizer_config(section: FrozenConfigDict) -> OptimizerConfig:
    """AdamW with warm-up and cosine decay, from a section of `config.pretrain`."""
    return from_section(
        OptimizerConfig,
        section,
        "config.pretrain",
        schedule="cosine",
        total_steps=section.steps,
        b2=0.99,
    )


def run_training(
    context: StageContext,
    name: str,
    section: FrozenConfigDict,
    step: MeshFunction,
    abstract: TrainState,
    create: Callable[[], TrainState],
    data: grain.MapDataset,
) -> TrainState:
    """Trains to `section.steps`, from the newest checkpoint if there is one.

    Args:
      context: the stage's context; files go to `<folder>/<name>_run`.
      name: name of the training run.
      section: its section of the config.
      step: (state, batch) -> (state, metrics).
      abstract: shapes and shardings of the state.
      create: makes the initial state.
      data: endless batches, dicts of arrays.
    """
    folder: Path = context.folder / f"{name}_run"
    pretrain = context.config.pretrain
    iterator = iter(data.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)))
    about = About(must_match={"training": plain(section)}, config=plain(context.config))
    with Checkpointer(context.checkpoints(folder.name), about, keep=1) as checkpointer:
        state = restored_or_first(
            checkpointer, abstract, iterator, create, name=name, optimizer=optimizer_config(section)
        )
        with training_logs(context, folder, int(state.step)) as (throughput, writer):
            return train(
                step,
                state,
                iterator,
                lambda batch: shard_batch(batch, context.mesh),
                LoopConfig(section.steps, pretrain.log_every, pretrain.checkpoint_every),
                checkpointer,
                writer,
                name=name,
                program=context.program(name),
                throughput=throughput,
                advice=Advice(f"config.pretrain.{name}.learning_rate"),
            )
