"""Training of the judge on labelled pairs, by the config section `reward`."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import grain
import jax
import numpy as np
from jaxtyping import Array, PyTree

from onereward_jax.annotation.labelled_pairs import LabelledPair
from onereward_jax.chain.stage import StageContext
from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.common.rng import stream
from onereward_jax.convert import QWEN2_5_VL, init_adapter
from onereward_jax.data.aspect_buckets import Size
from onereward_jax.data.mixing import Mixing, mixed_rows
from onereward_jax.data.pipeline import batches_of_rows
from onereward_jax.parallel import is_writer, local_rows
from onereward_jax.parallel.progress import announce
from onereward_jax.reward.judge_loader import (
    RewardModel,
    abstract_reward_params,
    load_reward_params,
    read_reward_model,
)
from onereward_jax.stages.best_judge import BestJudge
from onereward_jax.stages.collect_pairs import picture_folders
from onereward_jax.stages.edits_of_pairs import edits_of_pairs
from onereward_jax.stages.judge_measurement import measure_judge, validation_loss
from onereward_jax.stages.pair_source import PairSource, maybe_mirrored, task_shares
from onereward_jax.stages.prompt_checks import settle_prompts
from onereward_jax.stages.reward_settings import reward_options, reward_settings
from onereward_jax.stages.run_training import Prepared, loop_of, run_training
from onereward_jax.stages.settings import plain
from onereward_jax.training.checkpoint import About
from onereward_jax.training.count_jaxpr_flops import Assumptions
from onereward_jax.training.metrics_jsonl import MetricsWriter
from onereward_jax.training.model_flops import full_attention_share, reward_model_flops
from onereward_jax.training.nonfinite_steps import Advice
from onereward_jax.training.preference_loss import PairAnswers
from onereward_jax.training.reward_step import (
    abstract_reward_state,
    first_reward_state,
    make_answers,
    make_reward_step,
)
from onereward_jax.training.train_loop import Periodic
from onereward_jax.training.train_state import TrainState

ACCURACY = "accuracy.json"
"""File with the accuracy on held-out pairs, see `judge_measurement.measure_judge`."""

Judges = Mapping[Size, RewardModel]
"""The judge without its weights per image size, most frequent first."""


class TrainedJudge(NamedTuple):
    """Weights after the training.

    Attributes:
      params: parameters of the judge, or factors of its adapter.
      base: parameters of the adapter's base; None if all of the judge was trained.
    """

    params: PyTree
    base: PyTree | None


def read_judges(
    context: StageContext, labelled: Mapping[str, Sequence[LabelledPair]]
) -> tuple[Judges, dict[str, PairSource]]:
    """The judge for every image size, and the pairs by split; checks the prompts.

    Raises:
      ValueError: prompts do not fit, see `settle_prompts`.
    """
    start = context.base_model("judge")
    everything = [pair for found in labelled.values() for pair in found]
    sizes = [size for size, _ in collections.Counter(p.size for p in everything).most_common()]
    judges = {
        size: read_reward_model(start, size, **reward_options(context.config)) for size in sizes
    }
    asked = ((f"{one.split}/{one.source}", one.task, one.prompt) for one in everything)
    settle_prompts(context, judges[sizes[0]].queries, dict.fromkeys(asked))
    queries = {size: judge.queries for size, judge in judges.items()}
    folders, edits = picture_folders(context), None
    if judges[sizes[0]].scorer.view.needs_mask:
        edits = edits_of_pairs(context, everything)
    return judges, {
        split: PairSource(found, folders, queries, edits)
        for split, found in labelled.items()
        if found
    }


def train_judge(
    context: StageContext,
    judges: Judges,
    pairs: Mapping[str, PairSource],
    *,
    name: str = "reward",
    folder: Path | None = None,
    seed: int | None = None,
) -> TrainedJudge:
    """Trains from the newest checkpoint or the base judge; writes `ACCURACY` periodically.

    With `config.reward.keep_best`, the result is the judge that fits pairs["validation"] best.

    Args:
      context: context of the stage.
      judges, pairs: see `read_judges`.
      name: name of the training run, for messages.
      folder: of logs, checkpoints and `ACCURACY`; None: the stage's.
      seed: seed of the training; default: that of the config.
    """
    config, mesh = context.config.reward, context.mesh
    seed = context.config.seed if seed is None else seed
    start = context.base_model("judge")
    settings = dataclasses.replace(reward_settings(context.config), seed=seed)
    scorer = next(iter(judges.values())).scorer  # for everything that does not depend on the size
    steps, answers = (
        {size: make(judge.scorer, settings, mesh) for size, judge in judges.items()}
        for make in (make_reward_step, make_answers)
    )
    shapes, adapts = abstract_reward_params(scorer, mesh), settings.lora is not None
    base = (load_reward_params(start, scorer, mesh),) if adapts else ()

    def first() -> TrainState:
        if adapts:
            key = stream(seed, "judge_adapter")
            adapter = init_adapter(shapes, QWEN2_5_VL, settings.lora, key, mesh)
            return first_reward_state(settings, adapter, mesh)
        return first_reward_state(settings, load_reward_params(start, scorer, mesh), mesh)

    train_pairs = pairs["train"]
    mixing = Mixing(task_shares(train_pairs.tasks, config.tasks))
    drawn = (
        mixed_rows(train_pairs.tasks, train_pairs.sizes, config.batch_size, seed, mixing)
        .map(train_pairs.__getitem__)
        .seed(seed)
        .random_map(functools.partial(maybe_mirrored, probability=config.mirror))
    )
    data = iter(
        batches_of_rows(
            drawn, config.batch_size, local_rows(config.batch_size, mesh)
        ).to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4))
    )

    def measure(state: TrainState, _writer: MetricsWriter) -> None:
        def ask(batch: Mapping[str, Array]) -> PairAnswers:
            return answers[_size(batch)](state.params, batch, *base)

        validated = {}
        if "validation" in pairs:
            loss = validation_loss(ask, pairs["validation"], config.batch_size, mesh)
            validated = {"validation_loss": loss}
            announce(f"{name}, step {int(state.step)}: loss {loss:.4f} on validation pairs")
            if config.keep_best and not best.consider(state, loss):
                return  # the accuracy is that of the judge that is kept
        found = validated | measure_judge(ask, pairs["test"], config.batch_size, mesh)
        if is_writer():
            with atomic_file((folder or context.folder) / ACCURACY) as draft:
                draft.write_text(json.dumps({"step": int(state.step), **found}, indent=1))

    abstract = abstract_reward_state(scorer, settings, mesh)
    kept = f"{folder.name}-best" if folder else "checkpoints-best"
    about = About(context.must_match, plain(context.config))
    best = BestJudge(context.checkpoints(kept), about, abstract.params)

    def model_flops() -> float:
        batch = {
            name: jax.ShapeDtypeStruct((config.batch_size, *np.shape(array)), array.dtype)
            for name, array in train_pairs[0].items()
        }
        assumptions = Assumptions(true_share=full_attention_share(scorer))
        judge = judges[_size(batch)].scorer
        return reward_model_flops(judge, shapes, batch, assumptions, settings.lora)

    state = run_training(
        context,
        lambda state: Prepared(
            lambda state, batch: steps[_size(batch)](state, batch, *base),
            [Periodic(config.evaluate_every, measure)],
            model_flops,
        ),
        name=name,
        abstract=abstract,
        first=first,
        data=data,
        loop=loop_of(context.config, "reward"),
        optimizer=settings.optimizer,
        advice=Advice("config.reward.optimizer.learning_rate", train_pairs.describe),
        folder=folder,
    )
    params = state.params
    if config.keep_best and (found := best.read()) is not None:
        del state, params
        announce(f"{name}: keeps the judge of step {int(found.step)}, best on validation pairs")
        params = found.params
    return TrainedJudge(params, *base or (None,))


def _size(batch: Mapping[str, Array | jax.ShapeDtypeStruct | np.ndarray]) -> Size:
    """Image size of a batch of pairs."""
    return batch["first"].shape[1:3]
