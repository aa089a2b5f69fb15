"""Sets up logging from `config.logging`. No stage's output depends on it."""

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
    """Checks the section and enables the compilation cache; before the first stage.

    Raises:
      ValueError: the section is missing, a field is out of range, or a package is not installed.
    """
    if "logging" not in config:
        raise ValueError("config.logging is missing: copy the section from configs/mini.py")
    section = config.logging
    first, last = _traced_steps(section)
    if (first, last) != (0, 0) and not 1 <= first <= last:
        raise ValueError(
            f"config.logging.profile_steps is ({first}, {last}): first and last step to profile, "
            "counted from 1, or (0, 0) for none, expected"
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
    """Performance metrics and metrics writer for `training.train_loop.train`.

    Args:
      context: context of the stage.
      folder: folder of metrics.jsonl, event files and profiles.
      first_step: the step from which training starts or resumes.
      model_flops: computes the model FLOPs of a step, see `training.model_flops`; called only if
        the devices' peak FLOP/s are known.
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
        # The start time distinguishes runs of the same name.
        run = f"{name}-{throughput.first_start():.0f}"
        config = plain(context.config)
        loggers.append(WeightsAndBiases(section.wandb, folder, run=run, name=name, config=config))
    return loggers


def _traced_steps(section: FrozenConfigDict) -> tuple[int, int]:
    steps = section.profile_steps
    if len(steps) != 2:
        raise ValueError(f"config.logging.profile_steps is {steps}: two numbers expected")
    return steps
