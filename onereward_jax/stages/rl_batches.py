"""The batches of the stage `rl`: triplets, or pairs of pictures with their triplets.

What a batch holds is declared by the method, see `training.methods.method.Method`.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from onereward_jax.chain.stage import StageContext
from onereward_jax.common.rng import generator
from onereward_jax.data.aspect_buckets import Size
from onereward_jax.data.mixing import Mixing
from onereward_jax.data.pipeline import TripletSequence, eval_batches, sizes_of, train_batches
from onereward_jax.data.triplets import Triplets
from onereward_jax.parallel import local_rows
from onereward_jax.parallel.progress import announce
from onereward_jax.policy import TextCache, open_text_cache
from onereward_jax.reward import WHOLE, Questions
from onereward_jax.reward.reward_interface import dimension_mask
from onereward_jax.stages.guidance_settings import rl_guidance
from onereward_jax.stages.rl_pairs import PairsWithTriplets, open_pairs
from onereward_jax.stages.rl_settings import method_of, task_probabilities
from onereward_jax.tasks import TASKS, Task

Describe = Callable[[int], dict[str, str]]
"""Index of a sample -> what it is, for messages."""

Transform = Callable[[dict[str, Any]], dict[str, np.ndarray]]


class RLBatches(NamedTuple):
    """What the stage trains on and what it shows.

    Attributes:
      data: endless batches of the step.
      describe: index of a sample, `batch["index"]`, -> what it is.
      shown: the batch of the sample images; triplets of the most frequent size.
      captions: a caption for each of its first samples.
      measured: step -> a batch to measure with: triplets of all tasks in turn, others at each step.
    """

    data: grain.DatasetIterator
    describe: Describe
    shown: dict[str, np.ndarray]
    captions: list[str]
    measured: Callable[[int], dict[str, np.ndarray]]


def open_samples(context: StageContext, triplets: Triplets) -> Triplets | PairsWithTriplets:
    """What the method draws its batches from; `triplets` are those of the training split.

    Raises:
      ValueError: see `open_pairs`.
    """
    if method_of(context.config).batches == "pairs":
        return open_pairs(context, triplets)
    return triplets


def make_batches(
    context: StageContext,
    triplets: Triplets,
    samples: Triplets | PairsWithTriplets,
    queries: Mapping[Size, Questions] | None,
) -> RLBatches:
    """Batches with tasks drawn by `config.rl.task_probabilities`.

    Args:
      context: of the stage.
      triplets: those of the training split, which are shown.
      samples: see `open_samples`.
      queries: image size -> query tokenizer; None: the step asks no questions.

    Raises:
      ValueError: see `available_tasks`.
    """
    config, paired = context.config.rl, isinstance(samples, PairsWithTriplets)
    chances = task_probabilities(context.config)
    transform = make_transform(
        open_text_cache(context.output("embed") / "prompts"),
        queries,
        rl_guidance(context.config)["policy"].negative_prompt,
    )
    data = train_batches(
        samples,
        config.batch_size,
        context.config.seed,
        mixing=Mixing(available_tasks(chances, samples), config.task_per),
        transform=transform,
        rows=local_rows(config.batch_size, context.mesh),
        read=operator.getitem if paired else None,
    )
    about = functools.partial(describe_triplet, triplets)
    rows = _one_of_each(triplets, chances, config.batch_size)
    captions = [": ".join((one["task"], one["prompt"])) for one in map(about, rows)]
    shown = next(eval_batches(triplets, config.batch_size, indices=rows, transform=transform))

    def measured(step: int) -> dict[str, np.ndarray]:
        drawn = generator(context.config.seed, "measured", step)
        rows = _one_of_each(triplets, chances, config.batch_size, drawn)
        batch = next(eval_batches(triplets, config.batch_size, indices=rows, transform=transform))
        return {name: array for name, array in batch.items() if name != "valid"}

    describe = samples.describe if paired else about
    return RLBatches(data, describe, shown, captions, measured)


def make_transform(
    cache: TextCache, queries: Mapping[Size, Questions] | None, negative_prompt: str
) -> Transform:
    """A function that replaces the prompts of a batch by embeddings and queries for the step.

    `queries`: image size -> query tokenizer; None for a step or a reward without queries.
    """
    negative = cache.lookup([negative_prompt])

    def transform(batch: dict[str, Any]) -> dict[str, np.ndarray]:
        size, prompts = batch["image"].shape[1:3], list(batch["prompt"])
        embeds = cache.lookup(prompts)
        tasks = [TASKS[task] for task in batch["task"]]
        asked = queries[size].encode(tasks, prompts)._asdict() if queries else {}
        if queries and (view := getattr(queries[size], "view", WHOLE)).crop:
            asked["box"] = view.boxes(batch["mask"][..., 0] > 0)
        rest = {name: array for name, array in batch.items() if name != "prompt"}
        return rest | {
            "prompt_embeds": embeds.prompt_embeds,
            "pooled_prompt_embeds": embeds.pooled_prompt_embeds,
            "negative_prompt_embeds": np.repeat(negative.prompt_embeds, len(prompts), 0),
            "negative_pooled_prompt_embeds": np.repeat(
                negative.pooled_prompt_embeds, len(prompts), 0
            ),
            "dimension_mask": dimension_mask(tasks),
            **{f"query_{name}": array for name, array in asked.items() if array is not None},
        }

    return transform


def describe_triplet(triplets: Triplets, row: int) -> dict[str, str]:
    """Id, task and prompt of a row of the training split, for messages."""
    about = {name: triplets.column(name)[row] for name in ("task", "prompt")}
    return {"triplet": f"train/{triplets.column('id')[row]}", **about}


def available_tasks(
    probabilities: Mapping[Task, float], samples: TripletSequence
) -> dict[Task, float]:
    """p_k of the tasks that occur in the samples, normalised to sum to 1; announces the others.

    Raises:
      ValueError: none of the tasks occurs.
    """
    found = {task: p for task, p in probabilities.items() if len(samples.with_task(task))}
    kind = "pair" if isinstance(samples, PairsWithTriplets) else "triplet"
    if not found:
        raise ValueError(
            f"config.rl.task_probabilities: the training split has no {kind} of "
            + ", ".join(probabilities)
        )
    if lacking := [task.value for task in probabilities if task not in found]:
        announce(f"rl: the training split has no {kind} of {', '.join(lacking)}: left out")
    return {task: p / sum(found.values()) for task, p in found.items()}


def _one_of_each(
    triplets: Triplets,
    tasks: Iterable[Task],
    count: int,
    drawn: np.random.Generator | None = None,
) -> Sequence[int]:
    """Rows of up to `count` triplets with images of the most frequent size, cycling over tasks.

    The first ones of each task, or those drawn.
    """
    usual = (triplets.sizes == sizes_of(triplets)[0]).all(axis=1)
    found = [triplets.with_task(task) for task in tasks]
    kept = [rows[usual[rows]] for rows in found]
    if drawn is not None:
        kept = [drawn.permutation(rows) for rows in kept]
    by_task = [rows.tolist() for rows in kept if len(rows)]
    turns = [row for rows in zip(*by_task) for row in rows]
    return turns[:count]
