"""Runs the stage: images, verdicts, report."""

from __future__ import annotations

from onereward_jax.annotation.questions import OVERALL
from onereward_jax.chain.stage import Results, StageContext
from onereward_jax.evaluation.gains_by_dimension import gains
from onereward_jax.evaluation.gsb import Comparison, Verdict, good_same_bad
from onereward_jax.evaluation.intervals import counted
from onereward_jax.evaluation.policy_against_base import (
    Decided,
    decided_by_scores,
    decided_by_verdicts,
    overall,
    right_on_policy,
)
from onereward_jax.evaluation.report import JudgeTrust, ReportInputs, remarks, write_report
from onereward_jax.parallel import is_writer
from onereward_jax.parallel.progress import announce
from onereward_jax.stages.data import open_triplets
from onereward_jax.stages.evaluate.blind_questions import BASE
from onereward_jax.stages.evaluate.compared_edits import make_edits
from onereward_jax.stages.evaluate.judge_verdicts import (
    HELD_OUT,
    held_out_folder,
    judge_preferences,
    preferred,
)
from onereward_jax.stages.evaluate.oracle_verdicts import (
    ask_oracle,
    make_oracle,
    oracle_verdicts,
    pair_margin,
)
from onereward_jax.stages.evaluate.other_pictures import other_pictures
from onereward_jax.stages.evaluate.people_verdicts import PeopleOpinion, ask_people
from onereward_jax.stages.evaluate.provenance import about, read_agreement
from onereward_jax.stages.evaluate.report_contents import (
    picture_grids,
    read_conflicts,
    read_curves,
    read_judge_table,
    read_trust,
    round_rows,
    task_metrics,
)
from onereward_jax.stages.label_curve import CURVE
from onereward_jax.stages.make_reward import needs_judge
from onereward_jax.stages.settings import plain
from onereward_jax.tasks import TASKS, Dimension

POLICY = "policy"

BY_PEOPLE = "by people"
BY_ORACLE = "by the oracle"
BY_JUDGE = "by the judge it was trained against"
BY_OWN = "by the judge of this run"
"""Label of the judge if the policy was trained with another reward."""
BY_HELD_OUT = "by the held-out judge"

REPORT = "evaluate/report/index.html"
"""Path of the page, relative to the work folder, which may be moved."""


def run(context: StageContext) -> Results:
    """Generates, compares, reports; returns Good - Bad in % per task, by the most reliable rater.

    `judge_right` is the judge's accuracy on pairs of policy and base, by the same kind of rater.

    Existing images are not generated again. The raters: people, if they have answered; an oracle,
    if there is one; the judges.
    """
    config, seed = context.config.evaluate, context.config.seed
    triplets = open_triplets(context, "test")
    rows = [
        int(row)
        for task in TASKS
        for row in triplets.with_task(task)[: config.triplets[task.value]]
    ]
    tasks = {row: TASKS[triplets.tasks[row]] for row in rows}
    others, to_generate = other_pictures(context, triplets, rows)
    base, policy = pictures = make_edits(context, triplets, rows, to_generate)
    compared = (context, triplets, rows, pictures)
    own = context.output("reward") / "judge"
    by_own = BY_JUDGE if needs_judge(context.config) else BY_OWN
    preferences = {}
    if own.is_dir():  # not with every reward
        int8 = context.config.rl.judge_int8
        preferences[by_own] = judge_preferences(*compared, own, what="judge", int8=int8)
    if (held_out := held_out_folder(context)) is not None:
        preferences[BY_HELD_OUT] = judge_preferences(*compared, held_out, what=HELD_OUT)
    if not is_writer():
        return {}
    editors = {BASE: base, POLICY: policy, **others}
    people = ask_people(context, triplets, rows, editors)
    verdicts: dict[str, dict[int, Verdict]] = {}
    scores, letters = {}, {"base": {}, "policy": {}}
    decided = {BY_PEOPLE: _decided_by_people(people)} if people is not None else {}
    oracle = make_oracle(context)
    if oracle is not None:
        scores, letters = ask_oracle(oracle, triplets, rows, base, policy)
        verdicts[BY_ORACLE] = oracle_verdicts(scores, oracle.same_margin)
        decided[BY_ORACLE] = decided_by_scores(scores, pair_margin(oracle))
    for by, found in preferences.items():
        verdicts[by] = {row: preferred(one, config.judge_same_margin) for row, one in found.items()}
    gsb = {}
    if people is not None and people.overall(POLICY):
        gsb[BY_PEOPLE] = good_same_bad(people.overall(POLICY), seed)
    gsb |= {
        by: good_same_bad((Comparison(str(row), tasks[row], found[row]) for row in found), seed)
        for by, found in verdicts.items()
    }
    rewards, monitors = read_curves(context.output("rl") / "metrics.jsonl")
    held_out_too = preferences.get(BY_HELD_OUT) if own.is_dir() else None
    inputs = ReportInputs(
        title="OneReward: " + context.workdir.absolute().name,
        rewards=rewards,
        gsb=gsb,
        gains=gains(tasks, next(iter(preferences.values())), scores, seed, held_out_too)
        if preferences
        else {},
        judge=read_judge_table(context.output("reward") / "accuracy.json") if own.is_dir() else {},
        monitors=monitors,
        conflicts=read_conflicts(context.output("rl") / "metrics.jsonl"),
        metrics={
            name: task_metrics(triplets, rows, made, letters[name])
            for name, made in (("base", base), ("policy", policy))
        },
        grids=picture_grids(triplets, rows, base, policy, config.pictures),
        settings=plain(context.config),
        about=about(context) | ({"people": people.told} if people is not None else {}),
        triplets={
            task: (config.triplets[task.value], sum(one is task for one in tasks.values()))
            for task in TASKS
        },
        trust=read_trust(
            context.output("reward") / "accuracy.json", context.output("label_curve") / CURVE
        )
        if own.is_dir()
        else JudgeTrust(),
        agreement=read_agreement(context.output("annotate") / "agreement.json"),
        people=people.counted(seed) if people is not None else None,
        on_policy={
            f"{judge.removeprefix('by ')}, {by}": right_on_policy(tasks, found, one)
            for judge, found in preferences.items()
            for by, one in decided.items()
            if one
        },
        rounds=round_rows(context),
    )
    page = write_report(context.folder / "report", inputs)
    if people is not None:
        announce(f"evaluate: {people.told}")
    for remark in remarks(inputs):
        announce(f"evaluate: {remark}")
    announce(f"evaluate: report at {page}")
    return _headline(inputs) | {"report": REPORT}


def _headline(inputs: ReportInputs) -> Results:
    """Good - Bad by the first rater that compared every task, with the numbers of triplets."""
    by, gsb = next(
        (by, found)
        for by, found in inputs.gsb.items()
        if all(task in found for task, (_, count) in inputs.triplets.items() if count)
    )
    results = {"good_minus_bad": by}
    for task, (asked, found) in inputs.triplets.items():
        if found:
            one = gsb[task]
            results[task.value] = (
                f"{100 * one.difference:+.1f} % [{100 * one.low:+.1f}, {100 * one.high:+.1f}] "
                f"({counted(one.triplets, 'triplet')})"
            )
        elif asked:
            results[task.value] = "not compared (no test triplets)"
    for found in list(inputs.on_policy.values())[:1]:
        right = overall(found)
        results["judge_right"] = f"{100 * right.accuracy:.1f} % ({counted(right.pairs, 'pair')})"
    return results


def _decided_by_people(people: PeopleOpinion) -> Decided:
    return decided_by_verdicts(
        (int(one.triplet_id), Dimension(dimension), one.verdict)
        for (editor, dimension), found in people.comparisons.items()
        if editor == POLICY and dimension != OVERALL
        for one in found
    )
