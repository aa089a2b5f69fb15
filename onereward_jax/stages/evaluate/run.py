"""Runs the stage: pictures, opinions of them, report."""

from __future__ import annotations

from collections.abc import Mapping

from onereward_jax.evaluation.gains import gains
from onereward_jax.evaluation.gsb import Comparison, GoodSameBad, Verdict, good_same_bad
from onereward_jax.evaluation.report import ReportInputs, write_report
from onereward_jax.parallel import is_writer
from onereward_jax.stages.data import open_triplets
from onereward_jax.stages.evaluate.edits import make_edits
from onereward_jax.stages.evaluate.opinions import (
    HELD_OUT,
    held_out_folder,
    judge_preferences,
    preferred,
)
from onereward_jax.stages.evaluate.shown import (
    picture_grids,
    read_curves,
    read_judge_table,
    task_metrics,
)
from onereward_jax.stages.settings import plain
from onereward_jax.stages.stage import Results, StageContext
from onereward_jax.tasks import TASKS, Task

BY_ORACLE = "by the oracle"
BY_JUDGE = "by the judge it was trained against"
BY_HELD_OUT = "by the held-out judge"

REPORT = "evaluate/report/index.html"
"""The page, from the work folder: that may be moved."""


def run(context: StageContext) -> Results:
    """Generates, compares, reports; returns Good - Bad in % per task, by the oracle if it can.

    Pictures that are there already are not made again.
    """
    config, seed = context.config.evaluate, context.config.seed
    triplets = open_triplets(context, "test")
    rows = [
        int(row)
        for task in TASKS
        for row in triplets.with_task(task)[: config.triplets[task.value]]
    ]
    tasks = {row: TASKS[triplets.tasks[row]] for row in rows}
    base, policy = pictures = make_edits(context, triplets, rows)
    compared = (context, triplets, rows, pictures)
    trained_on = context.output("reward") / "judge"
    preferences = {
        BY_JUDGE: judge_preferences(
            *compared, trained_on, what="judge", int8=context.config.rl.judge_int8
        )
    }
    if (held_out := held_out_folder(context)) is not None:
        preferences[BY_HELD_OUT] = judge_preferences(*compared, held_out, what=HELD_OUT)
    if not is_writer():
        return {}
    verdicts: dict[str, dict[int, Verdict]] = {}
    scores, letters = {}, {"base": {}, "policy": {}}
    if context.config.data.source == "mini":  # only there is the truth of a scene known
        from onereward_jax.stages.evaluate import oracle

        scores = oracle.oracle_scores(triplets, rows, base, policy)
        verdicts[BY_ORACLE] = oracle.oracle_verdicts(scores, config.same_margin)
        letters = {
            "base": oracle.word_accuracies(triplets, rows, base),
            "policy": oracle.word_accuracies(triplets, rows, policy),
        }
    for by, found in preferences.items():
        verdicts[by] = {row: preferred(one, config.judge_same_margin) for row, one in found.items()}
    gsb = {
        by: good_same_bad((Comparison(str(row), tasks[row], found[row]) for row in found), seed)
        for by, found in verdicts.items()
    }
    rewards, monitors = read_curves(context.output("rl") / "metrics.jsonl")
    write_report(
        context.folder / "report",
        ReportInputs(
            title="OneReward: " + context.workdir.name,
            rewards=rewards,
            gsb=gsb,
            gains=gains(tasks, preferences[BY_JUDGE], scores, seed),
            judge=read_judge_table(context.output("reward") / "accuracy.json"),
            monitors=monitors,
            metrics={
                name: task_metrics(triplets, rows, made, letters[name])
                for name, made in (("base", base), ("policy", policy))
            },
            grids=picture_grids(triplets, rows, base, policy, config.pictures),
            settings=plain(context.config),
        ),
    )
    return _headline(next(iter(gsb.values()))) | {"report": REPORT}


def _headline(found: Mapping[Task, GoodSameBad]) -> Results:
    return {
        f"good_minus_bad_{task.value}": (
            f"{100 * gsb.difference:+.1f} % [{100 * gsb.low:+.1f}, {100 * gsb.high:+.1f}]"
        )
        for task, gsb in found.items()
    }
