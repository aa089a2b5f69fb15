"""The batches of the stage `rl`: triplets, or pairs of pictures with their triplets.

What a batch holds is declared by the method, see `training.methods.method.Method`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import grain
import numpy as np

from onereward_jax.chain.stage import StageContext
from onereward_jax.data.aspect_buckets import Size
from onereward_jax.data.pipeline import eval_batches, train_batches
from onereward_jax.data.triplets import Triplets
from onereward_jax.parallel import local_rows
from onereward_jax.policy import TextCache, open_text_cache
from onereward_jax.reward import WHOLE, Questions
from onereward_jax.reward.reward_interface import dimension_mask
from onereward_jax.stages.guidance_settings import rl_guidance
from onereward_jax.stages.reference_bank import open_bank
from onereward_jax.stages.rl_pairs import PairsWithTriplets, open_pairs
from onereward_jax.stages.rl_rows import announce_lacking, mixing_of, one_of_each
from onereward_jax.stages.rl_settings import method_of, task_probabilities
from onereward_jax.tasks import TASKS

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
    """Batches with tasks drawn by `config.rl.task_probabilities`; with a bank, its references too.

    Args:
      context: of the stage.
      triplets: those of the training split, which are shown.
      samples: see `open_samples`.
      queries: image size -> query tokenizer; None: the step asks no questions.

    Raises:
      ValueError: see `rl_rows.available_tasks`.
    """
    config, paired = context.config.rl, isinstance(samples, PairsWithTriplets)
    announce_lacking(task_probabilities(context.config), samples)
    bank = open_bank(context, triplets) if config.references == "bank" else None
    read = (lambda row, number: samples[row]) if paired else None
    transform = make_transform(
        open_text_cache(context.output("embed") / "prompts"),
        queries,
        rl_guidance(context.config)["policy"].negative_prompt,
    )
    data = train_batches(
        samples,
        config.batch_size,
        context.config.seed,
        mixing=mixing_of(context.config, samples),
        transform=transform,
        rows=local_rows(config.batch_size, context.mesh),
        read=bank.sample if bank else read,
    )
    about = functools.partial(describe_triplet, triplets)
    one_batch = functools.partial(
        eval_batches,
        triplets,
        config.batch_size,
        transform=transform,
        read=bank.first_sample if bank else None,
    )
    rows = one_of_each(context.config, triplets)
    captions = [": ".join((one["task"], one["prompt"])) for one in map(about, rows)]
    shown = next(one_batch(indices=rows))

    def measured(step: int) -> dict[str, np.ndarray]:
        rows = one_of_each(context.config, triplets, step, among=bank.rows if bank else None)
        batch = next(one_batch(indices=rows))
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
