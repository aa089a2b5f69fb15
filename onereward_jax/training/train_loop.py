"""The training loop, shared by all training stages: steps, metrics, checkpoints."""

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
"""One update. The state is donated; the metrics include "refused"."""

REFUSED = "refused.json"
"""File next to the metrics, with the samples of refused steps; written if there are too many."""


@dataclasses.dataclass(frozen=True)
class Periodic:
    """A side task that runs at intervals (sample grids, a held-out judge).

    Attributes:
      every: interval in steps; also runs after the last step.
      call: gets the state and the metrics writer, e.g. to write images. It must not keep the state,
        because the next step donates it.
    """

    every: int
    call: Callable[[TrainState, MetricsWriter], None]


@dataclasses.dataclass(frozen=True)
class EarlyEnd:
    """A reason to end training before the last step.

    Attributes:
      every: interval in steps at which it is looked for; also before the first step. It waits for
        the device.
      why: says of the state why training is over; "" if it is not.
    """

    every: int
    why: Callable[[TrainState], str]


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """Duration and intervals of training.

    Attributes:
      total_steps: number of steps, including those before a resume.
      log_every, checkpoint_every: intervals in steps.
      max_refused: number of refused steps allowed since the process started.
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
    early_end: EarlyEnd | None = None,
) -> TrainState:
    """Trains until step `config.total_steps`, or until `early_end`.

    The host waits for the device only at log points and to read whether a step was refused. It
    reads that one step late, while the next step already runs.

    Args:
      step: one update.
      state: initial or restored state; donated.
      data: batch iterator at the position of `state`; dicts of numpy arrays, including "index".
      place: puts a batch on the mesh, e.g. `parallel.shard_batch`.
      config: duration and intervals.
      checkpointer: saves the state every `checkpoint_every` steps and whenever training ends.
      writer: writes the metrics every `log_every` steps.
      name: name of the stage, for the progress bar.
      program: see `progress_bar`; default: `name`.
      periodic: side tasks, see `Periodic`.
      throughput: measures speed and utilisation; default: a new one.
      advice: text of the error if too many steps are refused.
      early_end: ends training like the last step does; see `EarlyEnd`.

    Returns:
      The last state.

    Raises:
      TooManyRefusedSteps: more than `max_refused` steps were refused. `REFUSED`, next to the
        metrics, lists their samples. The state, which they did not change, is saved first.
      Stopped: the process was asked to stop. The state is saved first.
    """
    number = int(state.step)
    running: Metrics | None = None
    refusals = RefusedSteps(config.max_refused)
    add = jax.jit(measures.add)
    throughput, first = throughput or Throughput(), number + 1
    over = bool(early_end and early_end.why(state))
    with (
        progress_bar(name, config.total_steps, initial=number, program=program or name) as bar,
        stop_points(name) as stop,
        throughput.running(number),
    ):
        while number < config.total_steps and not over:
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

            if early_end and number % early_end.every == 0:
                over = bool(early_end.why(state))
            last = over or number == config.total_steps
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
        if number < config.total_steps and not over:
            raise stop.stopped(f"after step {number} of {config.total_steps}")
    return state
