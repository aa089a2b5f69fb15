"""The preference of a judge for each editor's picture over the first editor's."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from onereward_jax.chain import fingerprints
from onereward_jax.chain.stage import StageContext
from onereward_jax.convert import resolve_folder
from onereward_jax.inference.pairwise_judge import Judge
from onereward_jax.parallel import make_mesh
from onereward_jax.parallel.distributed import is_multiprocess
from onereward_jax.stages import judge_parts
from onereward_jax.stages.benchmark.metric_kinds import Measure, MetricKind, Sample, Values, nothing
from onereward_jax.stages.benchmark_inputs import JUDGE, OWN
from onereward_jax.stages.evaluate.judge_verdicts import HELD_OUT, held_out_folder
from onereward_jax.stages.reward_settings import answers_only, query_options
from onereward_jax.stages.settings import compute_dtype
from onereward_jax.tasks import DIMENSIONS, Dimension

FIRST = "the others are compared with this editor"
NO_FIRST = "the first editor has no picture of the row"


def judge_kinds(context: StageContext) -> list[MetricKind]:
    """The run's judge and the held-out one.

    Raises:
      FileNotFoundError: a named folder does not exist.
    """
    return [_kind(context, metric, *found) for metric, found in judge_folders(context).items()]


def judge_folders(context: StageContext) -> dict[str, tuple[Path | None, str]]:
    """Metric -> (the judge's folder, why there is none).

    Raises:
      FileNotFoundError: a named folder does not exist.
    """
    name, own = context.config.benchmark.judge, context.output("reward")
    has_own = name == OWN and "reward" in context.config.stages
    judge, held_out = own / "judge", own / judge_parts.HELD_OUT
    no_judge = "the run has no trained judge" if name == OWN else f"{JUDGE} is empty"
    no_held_out = f"{HELD_OUT} is empty, and the run has trained none (config.reward.held_out)"
    if name != OWN:
        judge = resolve_folder(name, JUDGE) if name else None
    elif not (has_own and judge.is_dir()):
        judge = None
    if context.config.evaluate.judge:
        held_out = held_out_folder(context)
    elif not (has_own and held_out.is_dir()):
        held_out = None
    return {
        "judge": (judge, "" if judge else no_judge),
        "judge_held_out": (held_out, "" if held_out else no_held_out),
    }


def _kind(context: StageContext, metric: str, folder: Path | None, absent: str) -> MetricKind:
    config = context.config
    if folder is None:
        return MetricKind(metric, (metric,), "", nothing, absent)
    dtype = compute_dtype(config)
    options = {
        **query_options(config),
        "answers_only": answers_only(config, "rl"),
        "dtype": dtype,
        "param_dtype": dtype,
    }

    def load() -> Measure:
        judge = Judge(folder, make_mesh(devices=jax.local_devices()), options)
        return functools.partial(_preferences, judge, metric)

    told = (fingerprints.of_model(folder), *(str(one) for one in options.values()))
    return MetricKind(metric, (metric,), " ".join(("1", *told)), load, compares=True)


def _preferences(judge: Judge, metric: str, samples: Sequence[Sample]) -> list[Values]:
    """Mean over the dimensions of the task and over both orders.

    Questions are asked in batches of as many as there are samples, so that one program serves.
    """
    found: list[Values] = [{} for _ in samples]
    asked: list[tuple[int, Dimension]] = []
    for number, one in enumerate(samples):
        if one.first is None:
            found[number][metric] = NO_FIRST
        elif reason := judge.unfit(one.row.prompt, one.row.task, one.row.size):
            found[number][metric] = reason
        else:
            asked += [(number, dimension) for dimension in DIMENSIONS[one.row.task]]
    if not asked and is_multiprocess():  # all processes compile the judge together
        _ask(judge, samples, [(0, DIMENSIONS[samples[0].row.task][0])] * len(samples))
    answers: dict[int, list[float]] = {}
    for start in range(0, len(asked), len(samples)):
        part = asked[start : start + len(samples)]
        padded = [*part, *[part[-1]] * (len(samples) - len(part))]
        for (number, _), preference in zip(part, _ask(judge, samples, padded)):
            answers.setdefault(number, []).append(float(preference))
    for number, preferences in answers.items():
        found[number][metric] = float(np.mean(preferences))
    return found


def _ask(
    judge: Judge, samples: Sequence[Sample], asked: Sequence[tuple[int, Dimension]]
) -> np.ndarray:
    rows = [samples[number] for number, _ in asked]
    results = [one.result for one in rows]
    firsts = [one.result if one.first is None else one.first for one in rows]
    about = dict(
        task=[one.row.task.value for one in rows],
        dimension=[dimension.value for _, dimension in asked],
        prompt=[one.row.prompt for one in rows],
        masks=[one.pixels.mask.astype(np.uint8) * 255 for one in rows],
        sources=[one.pixels.source for one in rows],
    )
    forth = judge.score(results, firsts, **about)
    back = judge.score(firsts, results, **about)
    return (forth + 1.0 - back) / 2.0
