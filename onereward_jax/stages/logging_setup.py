"""The section `config.logging`: how a run can be watched. No stage's output depends on it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_collections import FrozenConfigDict

from onereward_jax.chain.stage import StageContext
from onereward_jax.parallel import is_writer
from onereward_jax.parallel.compilation_cache import use_compilation_cache
from onereward_jax.parallel.peak_flops import peak_flops
from onereward_jax.parallel.progress import announce
from onereward_jax.stages.settings import plain
from onereward_jax.training.loggers import Logger, TensorBoard, WeightsAndBiases
from onereward_jax.training.metrics_jsonl import METRICS, MetricsWriter, read_metrics
from onereward_jax.training.profiler import StepTrace
from onereward_jax.training.throughput import Throughput


def prepare_logging(config: FrozenConfigDict) -> None:
    """Before the first stage: says what is wrong with the section, starts the compilation cache.

    Raises:
      ValueError: the section is missing, a field is out of range, a package is not installed.
    """
    if "logging" not in config:
        raise ValueError("config.logging is missing: copy the section from configs/mini.py")
    section = config.logging
    first, last = _traced_steps(section)
    if (first, last) != (0, 0) and not 1 <= first <= last:
        raise ValueError(
            f"config.logging.profile_steps is ({first}, {last}): the first and the last step that "
            "are traced, counted from 1, or (0, 0) for none"
        )
    if section.wandb and importlib.util.find_spec("wandb") is None:
        raise ValueError(
            f"config.logging.wandb is {section.wandb!r} and the package wandb is not installed: "
            "pip install -e '.[wandb]'"
        )
    if complaint := use_compilation_cache(config.compilation_cache):
        announce(complaint)


@contextmanager
def training_logs(
    context: StageContext,
    folder: Path,
    first_step: int,
    model_flops: Callable[[], float] | None = None,
) -> Iterator[tuple[Throughput, MetricsWriter]]:
    """What `training.train_loop.train` takes to be watched.

    Args:
      context: of the stage.
      folder: of the training's log; event files and traces go into it too.
      first_step: the step that the training starts or resumes from.
      model_flops: the least operations of a step, see `training.model_flops`; asked only where the
        devices' peak is known.
    """
    section = context.config.logging
    history = read_metrics(folder / METRICS)
    peak = peak_flops(context.mesh)
    first, last = _traced_steps(section)
    throughput = Throughput(
        started=context.started,
        history=history,
        ideal_step_seconds=model_flops() / peak if model_flops and peak else None,
        trace=StepTrace(folder / "profile", first, last) if first else None,
    )
    loggers = _loggers(context, folder, first_step, throughput) if is_writer() else []
    with MetricsWriter(folder, first_step=first_step, loggers=loggers) as writer:
        yield throughput, writer


def _loggers(
    context: StageContext, folder: Path, first_step: int, throughput: Throughput
) -> list[Logger]:
    section, loggers = context.config.logging, []
    folder.mkdir(parents=True, exist_ok=True)
    if section.tensorboard:
        loggers.append(TensorBoard(folder / "events", first_step))
    if section.wandb:
        name = f"{context.workdir.resolve().name}-{folder.relative_to(context.workdir).as_posix()}"
        name = name.replace("/", "-")
        # Runs of the same name are told apart by when they began.
        run = f"{name}-{throughput.first_start():.0f}"
        config = plain(context.config)
        loggers.append(WeightsAndBiases(section.wandb, folder, run=run, name=name, config=config))
    return loggers


def _traced_steps(section: FrozenConfigDict) -> tuple[int, int]:
    steps = section.profile_steps
    if len(steps) != 2:
        raise ValueError(f"config.logging.profile_steps is {steps}: two numbers are wanted")
    return steps
