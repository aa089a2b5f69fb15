"""The training loop: batches in, checkpoints and metrics out. It knows nothing of any method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import grain
import jax
import numpy as np

from onereward_jax.parallel.preemption import stop_points
from onereward_jax.parallel.progress import progress_bar
from onereward_jax.training import metrics as measures
from onereward_jax.training.checkpoint import Checkpointer
from onereward_jax.training.metrics import Metrics
from onereward_jax.training.metrics_jsonl import MetricsWriter
from onereward_jax.training.nonfinite_steps import Advice, RefusedSteps
from onereward_jax.training.throughput import Throughput, format_row
from onereward_jax.training.train_state import TrainState

StepFn = Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, Metrics]]
"""One update. The state is donated; metrics have "refused" among them."""

REFUSED = "refused.json"
"""Beside the metrics: the samples of refused steps, when there are too many of them."""


@dataclasses.dataclass(frozen=True)
class Periodic:
    """Something to do now and then beside training (sample grids, a held-out judge).

    Attributes:
      every: in steps; also done after the last one.
      call: is given the state, and may not keep it: the next step donates it; and what writes the
        metrics, to write pictures.
    """

    every: int
    call: Callable[[TrainState, MetricsWriter], None]


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How long, and how often what.

    Attributes:
      total_steps: where the run ends, counted from its very beginning.
      log_every, checkpoint_every: in steps.
      max_refused: refused steps that this process lets pass.
    """

    total_steps: int
    log_every: int = 10
    checkpoint_every: int = 500
    max_refused: int = 10


def train(
    step: StepFn,
    state: TrainState,
    data: grain.DatasetIterator,
    place: Callable[[dict[str, np.ndarray]], dict[str, jax.Array]],
    config: LoopConfig,
    checkpointer: Checkpointer,
    writer: MetricsWriter,
    *,
    name: str,
    program: str = "",
    periodic: Sequence[Periodic] = (),
    throughput: Throughput | None = None,
    advice: Advice | None = None,
) -> TrainState:
    """Runs until `config.total_steps`.

    The device is never waited for, except at log points and, one step late, for the question
    whether a step was refused: while the host asks about one step the next is already running.

    Args:
      step: one update.
      state: fresh or restored; used up.
      data: where `state` left off; elements are dicts of numpy arrays, "index" among them.
      place: puts a batch on the mesh, e.g. `parallel.shard_batch`.
      config: durations.
      checkpointer: gets the state every `checkpoint_every` steps and at the end of any kind.
      writer: gets the metrics every `log_every` steps.
      name: of the stage, for the progress bar.
      program: as of `progress_bar`; the name by default.
      periodic: see `Periodic`.
      throughput: counts what the run costs; a new one by default.
      advice: for the case that too many steps are refused.

    Returns:
      The last state.

    Raises:
      TooManyRefusedSteps: the samples of the refused batches are named in `REFUSED` beside the
        metrics. The state, which such steps did not touch, is saved first.
      Stopped: the process was asked to stop. The state is saved first.
    """
    number = int(state.step)
    running: Metrics | None = None
    refusals = RefusedSteps(config.max_refused)
    add = jax.jit(measures.add)
    throughput, first = throughput or Throughput(), number + 1
    with (
        progress_bar(name, config.total_steps, initial=number, program=program or name) as bar,
        stop_points(name) as stop,
        throughput.running(number),
    ):
        while number < config.total_steps:
            with throughput.waiting():
                batch = next(data)
                placed = place(batch)
            number += 1
            state, measured = throughput.run(step, number, state, placed)
            told = throughput.first_step() if number == first and not bar.disable else ""
            bar.update()
            if told:
                bar.write(f"{name}: {told}")
            running = measured if running is None else add(running, measured)
            refusals.add(number, placed["index"], measured["refused"])
            if refusals.too_many():
                checkpointer.save(state, data)
                raise refusals.report(writer.folder / REFUSED, name, advice or Advice())

            last = number == config.total_steps
            if last or number % config.log_every == 0:
                named = measures.scalars(running) | throughput.read(number)
                writer.write(number, named)
                bar.set_postfix_str(format_row(named), refresh=False)
                running = None
            for task in periodic:
                if last or number % task.every == 0:
                    with throughput.pausing():
                        task.call(state, writer)
            stopping = stop.asked()
            if last or stopping or number % config.checkpoint_every == 0:
                with throughput.pausing():
                    checkpointer.save(state, data)
            if stopping:
                break
        refusals.settle()
        if refusals.too_many():
            raise refusals.report(writer.folder / REFUSED, name, advice or Advice())
        checkpointer.wait()
        if number < config.total_steps:
            raise stop.stopped(f"after step {number} of {config.total_steps}")
    return state
