"""Stage `evaluate`: the trained editor against its base, on held-out triplets with the same noise.

report/index.html     curves, Good/Same/Bad, judge accuracy, pictures: one self-contained page
report/summary.json   every figure of it
report/pictures.png   its pictures
"""

from __future__ import annotations

import collections
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from onereward_jax.common.rng import generator
from onereward_jax.data.pipeline import eval_batches, sizes_of
from onereward_jax.data.triplets import Triplets
from onereward_jax.evaluation.gains import ByDimension, gains
from onereward_jax.evaluation.gsb import Comparison, GoodSameBad, Verdict, good_same_bad
from onereward_jax.evaluation.image_metrics import ImageMetrics, mean_metrics, measure
from onereward_jax.evaluation.judge_accuracy import JudgeAccuracy
from onereward_jax.evaluation.oracle import Oracle, Triplet, WordReader, verdict
from onereward_jax.evaluation.report import Curve, GridRow, ReportInputs, write_report
from onereward_jax.parallel import gather, is_writer, mesh_jit, shard_whole
from onereward_jax.policy import EditorParams, load_editor, open_text_cache, sigma_table
from onereward_jax.policy.adapters import load_trained
from onereward_jax.policy.generate import EditBatch, make_generate
from onereward_jax.reward import QueryBatch
from onereward_jax.reward.loading import load_judge_params, read_judge
from onereward_jax.stages.candidates import to_uint8
from onereward_jax.stages.data import open_triplets
from onereward_jax.stages.progress import progress_bar
from onereward_jax.stages.settings import compute_dtype, plain
from onereward_jax.stages.stage import Results, StageContext
from onereward_jax.tasks import DIMENSIONS, TASKS, Dimension, Task

MONITORS = (
    "saturation",
    "edge_density",
    "outside_drift",
    "reference_outside_drift",
    "zero_gradient",
    "reference_distance",
    "grad_norm",
)
"""Curves beside the reward, by their names in metrics.jsonl."""

Pictures = dict[int, UInt8[np.ndarray, "h w 3"]]
"""Row of the test split -> what an editor made of it."""


def run(context: StageContext) -> Results:
    """Generates, compares, reports; returns Good - Bad in % per task, by the oracle if it can."""
    triplets = open_triplets(context, "test")
    rows = [
        int(row)
        for task in TASKS
        for row in triplets.with_task(task)[: context.config.evaluate.triplets[task.value]]
    ]
    base, policy = _edits(context, triplets, rows)
    preferences = _judge_preferences(context, triplets, rows, policy, base)
    if not is_writer():
        return {}
    config, seed = context.config.evaluate, context.config.seed
    truths = {row: Triplet.from_example(triplets[row]) for row in rows}
    tasks = {row: truth.task for row, truth in truths.items()}
    # only in the mini world is the truth of a scene known
    known = context.config.data.source == "mini"
    scores = _oracle_scores(truths, policy, base) if known else {}
    verdicts = {
        "by the oracle": {row: verdict(*pair, config.same_margin) for row, pair in scores.items()},
        "by the judge": {
            row: preferred(found, config.judge_same_margin) for row, found in preferences.items()
        },
    }
    gsb = {
        by: good_same_bad((Comparison(str(row), tasks[row], found[row]) for row in found), seed)
        for by, found in verdicts.items()
        if found
    }
    rewards, monitors = _curves(context.output("rl") / "metrics.jsonl")
    write_report(
        context.folder / "report",
        ReportInputs(
            title="OneReward: " + context.workdir.name,
            rewards=rewards,
            gsb=gsb,
            gains=gains(tasks, preferences, scores, seed),
            judge=_judge_table(context.output("reward") / "accuracy.json"),
            monitors=monitors,
            metrics={
                "base": _mean_metrics(base, truths),
                "policy": _mean_metrics(policy, truths),
            },
            grids=_grids(triplets, rows, base, policy, context.config.evaluate.pictures),
            settings=plain(context.config),
        ),
    )
    first = next(iter(gsb.values()))
    return _headline(first) | {"report": str(context.folder / "report" / "index.html")}


def preferred(preference: ByDimension, margin: float) -> Verdict:
    """What a judge says who prefers the first picture this much, in [0, 1] for each dimension."""
    lead = float(np.mean(list(preference.values()))) - 0.5
    if abs(lead) <= margin:
        return Verdict.SAME
    return Verdict.GOOD if lead > 0 else Verdict.BAD


def _oracle_scores(
    truths: Mapping[int, Triplet], policy: Pictures, base: Pictures
) -> dict[int, tuple[ByDimension, ByDimension]]:
    """The oracle's scores of both results for each triplet."""
    oracle, scores = Oracle.mini_world(), {}
    with progress_bar("oracle", len(truths), unit="triplet") as bar:
        for row, truth in truths.items():
            scores[row] = tuple(oracle.scores(pictures[row], truth) for pictures in (policy, base))
            bar.update()
    return scores


def _mean_metrics(
    pictures: Pictures, truths: Mapping[int, Triplet]
) -> dict[Task, ImageMetrics]:
    """Plain measurements of an editor's pictures, averaged per task."""
    words = any(truth.kind == "word" for truth in truths.values())
    reader, measured = WordReader() if words else None, collections.defaultdict(list)
    for row, truth in truths.items():
        measured[truth.task].append(measure(pictures[row], truth, reader))
    return {task: mean_metrics(found) for task, found in measured.items()}


def _edits(
    context: StageContext, triplets: Triplets, rows: Sequence[int]
) -> tuple[Pictures, Pictures]:
    """What the base and the trained editor make of the triplets, from the same noise."""
    config, mesh = context.config.evaluate, context.mesh
    transformer = context.base_transformer()
    editor, base = load_editor(
        context.base_model("editor"),
        mesh,
        transformer=transformer,
        dtype=compute_dtype(context.config),
        paste_back=context.config.models.paste_back,
    )
    trained = load_trained(context.output("rl") / config.weights, transformer, editor, mesh)
    editors = (base, EditorParams(transformer=trained, vae=base.vae))
    cache = open_text_cache(context.output("embed") / "prompts")
    generate = {size: make_generate(editor, size, mesh) for size in sizes_of(triplets)}
    names, seed = triplets.column("id"), context.config.seed
    seeds = {row: generator(seed, "evaluate", names[row]).integers(2**31) for row in rows}
    found: tuple[Pictures, Pictures] = ({}, {})
    with progress_bar("edits", 2 * len(rows), unit="picture") as bar:
        for batch in eval_batches(triplets, config.batch_size, indices=rows):
            count = len(batch["index"])
            size = batch["image"].shape[1:3]
            grid = editor.sigmas(config.num_steps, size)
            negative = [config.negative_prompt] * count
            edit = EditBatch(
                image=batch["image"],
                mask=batch["mask"],
                embeds=cache.lookup(list(batch["prompt"])),
                negative_embeds=cache.lookup(negative),
                sigmas=sigma_table([grid] * count, len(grid)),
                guidance_scale=np.full(count, config.guidance_scale, np.float32),
                true_cfg_scale=np.full(count, config.true_cfg_scale, np.float32),
                noise_seed=np.int32([seeds[row] for row in batch["index"]]),
            )
            for pictures, params in zip(found, editors):
                made = generate[size](params, shard_whole(edit, mesh), np.int32(config.num_steps))
                images = gather(made)
                for row, image, valid in zip(batch["index"], images, batch["valid"]):
                    if valid:
                        pictures[int(row)] = to_uint8(image)
                bar.update(int(batch["valid"].sum()))
    return found


def _judge_preferences(
    context: StageContext,
    triplets: Triplets,
    rows: Sequence[int],
    policy: Pictures,
    base: Pictures,
) -> dict[int, ByDimension]:
    """The judge's probability that the policy's result is the better one, asked in both orders."""
    config, mesh = context.config.evaluate, context.mesh
    folder, length = context.output("reward") / "judge", context.config.reward.suffix_length
    judges = {size: read_judge(folder, size, suffix_length=length) for size in sizes_of(triplets)}
    params = load_judge_params(folder, next(iter(judges.values())).scorer, mesh)
    ask = {size: mesh_jit(judge.scorer.score, mesh) for size, judge in judges.items()}
    preferences = {}
    for batch in eval_batches(triplets, config.batch_size, indices=rows):
        size, tasks = batch["image"].shape[1:3], [TASKS[task] for task in batch["task"]]
        asked = judges[size].queries.encode(tasks, list(batch["prompt"]))
        inputs = shard_whole(
            {
                "policy": _stack(policy, batch["index"]),
                "base": _stack(base, batch["index"]),
                **asked._asdict(),
            },
            mesh,
        )
        queries = QueryBatch(*(inputs[name] for name in QueryBatch._fields))
        forth = gather(ask[size](params, inputs["policy"], inputs["base"], queries))
        back = gather(ask[size](params, inputs["base"], inputs["policy"], queries))
        first, second = (1.0 / (1.0 + np.exp(no - yes)) for yes, no in (forth, back))
        preference = (first + 1.0 - second) / 2.0
        for row, task, values, valid in zip(batch["index"], tasks, preference, batch["valid"]):
            if valid:
                preferences[int(row)] = dict(zip(DIMENSIONS[task], values.tolist()))
    return preferences


def _stack(pictures: Pictures, rows: Sequence[int]) -> np.ndarray:
    return np.stack([np.float32(pictures[int(row)]) / 127.5 - 1.0 for row in rows])


def _curves(
    path: Path,
) -> tuple[dict[tuple[Task, Dimension], Curve], dict[str, Curve]]:
    """Rewards per task and dimension, and monitors, of a run's metrics.jsonl."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    steps = np.array([line["step"] for line in lines])

    def curve(name: str) -> Curve:
        return Curve(steps, np.array([line.get(name, np.nan) for line in lines], np.float64))

    rewards = {
        (task, dimension): curve(f"reward/{task.value}/{dimension.value}")
        for task in TASKS
        for dimension in DIMENSIONS[task]
    }
    return rewards, {name: curve(name) for name in MONITORS}


def _judge_table(path: Path) -> dict[tuple[Task, Dimension], JudgeAccuracy]:
    """Table 1 as the stage `reward` measured it."""
    table = {}
    for row in json.loads(path.read_text())["rows"]:
        cell = Task(row.pop("task")), Dimension(row.pop("dimension"))
        table[cell] = JudgeAccuracy(**row)
    return table


def _grids(
    triplets: Triplets, rows: Sequence[int], base: Pictures, policy: Pictures, count: int
) -> dict[Task, list[GridRow]]:
    """The first triplets of each task with both results."""
    grids: dict[Task, list[GridRow]] = {}
    for row in rows:
        task = TASKS[triplets.tasks[row]]
        shown = grids.setdefault(task, [])
        if len(shown) < count:
            example = triplets[row]
            caption = example["prompt"] if task is not Task.REMOVAL else example["label"]
            shown.append(
                GridRow(
                    caption=caption,
                    source=example["image"],
                    mask=example["mask"][..., 0],
                    base=base[row],
                    policy=policy[row],
                    truth=example["target"],
                )
            )
    return grids


def _headline(found: Mapping[Task, GoodSameBad]) -> Results:
    return {
        f"good_minus_bad_{task.value}": (
            f"{100 * gsb.difference:+.1f} % [{100 * gsb.low:+.1f}, {100 * gsb.high:+.1f}]"
        )
        for task, gsb in found.items()
    }
