"""Stage `reward`: trains the judge on preferences (stage 2 of the paper).

judge/           the trained judge, a transformers folder
judge_adapter/   with config.reward.lora: its adapter, in peft's format; judge/ has it merged
pairs.jsonl      the labelled pairs, made of the answers by the rules of config.reward
accuracy.json    Table 1: accuracy and position bias per task and dimension, on held-out pairs
"""

from __future__ import annotations

import collections
import functools
import json
from collections.abc import Mapping

import grain
import jax
import numpy as np
from jaxtyping import Array

from onereward_jax.chain.base_models import made_by
from onereward_jax.chain.stage import Results, StageContext
from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.common.rng import stream
from onereward_jax.convert import (
    QWEN2_5_VL,
    Weights,
    init_adapter,
    read_config,
    read_preprocessor,
    save_peft_adapter,
    write_judge_folder,
)
from onereward_jax.data.aspect_buckets import Size
from onereward_jax.data.mixing import Mixing, mixed_rows
from onereward_jax.data.pipeline import batches_of_rows
from onereward_jax.models.lora import scale_factors, uniform_adapter
from onereward_jax.models.lora_merge import merge_into
from onereward_jax.parallel import is_writer, local_rows
from onereward_jax.reward.judge_loader import (
    abstract_reward_params,
    load_reward_params,
    read_reward_model,
    write_judge_template,
)
from onereward_jax.stages.collect_pairs import collect_pairs, has_own_pairs, picture_folders
from onereward_jax.stages.imported_pairs import check_imported, imported_folders
from onereward_jax.stages.judge_measurement import headline, measure_judge
from onereward_jax.stages.pair_source import PairSource, maybe_mirrored, task_shares
from onereward_jax.stages.prompt_checks import check_prompts, settle_prompts
from onereward_jax.stages.reward_settings import reward_options, reward_settings
from onereward_jax.stages.run_training import Prepared, loop_of, run_training
from onereward_jax.stages.settings import check_batch
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

ADAPTER = "judge_adapter"
"""Folder of the judge's adapter, if it is trained as a LoRA."""


def check(context: StageContext) -> None:
    """Checks settings, batch size, mesh, the judge's folder, adapted layers and prompts.

    Raises:
      FileNotFoundError, ValueError: naming the field.
    """
    config, mesh = context.config, context.mesh
    settings = reward_settings(config)
    reward_options(config)
    check_batch(config, "reward", mesh)
    check_imported(config)
    if not has_own_pairs(config) and not imported_folders(config):
        raise ValueError(
            "config.reward.preferences is empty and config.stages has no stage annotate: there are "
            "no answers to train on"
        )
    if not made_by(config, "models.judge"):
        size = (config.data.image_size, config.data.image_size)
        judge = read_reward_model(context.base_model("judge"), size, **reward_options(config))
        if settings.lora is not None:
            try:
                abstract_reward_state(judge.scorer, settings, mesh)
            except ValueError as error:
                raise ValueError(f"config.reward.lora.targets: {error}") from error
    check_prompts(context)


def run(context: StageContext) -> Results:
    """Trains and evaluates the judge; returns its mean accuracy for fill, extend and removal."""
    config, mesh, start = context.config.reward, context.mesh, context.base_model("judge")
    labelled = collect_pairs(context)
    everything = [pair for split in labelled.values() for pair in split]
    sizes = [size for size, _ in collections.Counter(p.size for p in everything).most_common()]
    judges = {
        size: read_reward_model(start, size, **reward_options(context.config)) for size in sizes
    }
    scorer = judges[sizes[0]].scorer  # for everything that does not depend on the size
    asked = ((f"{one.split}/{one.source}", one.task, one.prompt) for one in everything)
    settle_prompts(context, judges[sizes[0]].queries, dict.fromkeys(asked))
    queries = {size: judge.queries for size, judge in judges.items()}
    folders = picture_folders(context)
    pairs = {split: PairSource(found, folders, queries) for split, found in labelled.items()}
    settings = reward_settings(context.config)
    steps, answers = (
        {size: make(judge.scorer) for size, judge in judges.items()}
        for make in (
            lambda scorer: make_reward_step(scorer, settings, mesh),
            lambda scorer: make_answers(scorer, settings, mesh),
        )
    )
    adapts, seed = settings.lora is not None, context.config.seed
    base = (load_reward_params(start, scorer, mesh),) if adapts else ()

    def first() -> TrainState:
        if adapts:
            key, shapes = stream(seed, "judge_adapter"), abstract_reward_params(scorer, mesh)
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
    table_path = context.folder / "accuracy.json"

    def measure(state: TrainState, _writer: MetricsWriter) -> None:
        def ask(batch: Mapping[str, Array]) -> PairAnswers:
            return answers[_size(batch)](state.params, batch, *base)

        found = measure_judge(ask, pairs["test"], config.batch_size, mesh)
        if is_writer():
            with atomic_file(table_path) as draft:
                draft.write_text(json.dumps({"step": int(state.step), **found}, indent=1))

    def model_flops() -> float:
        pair = train_pairs[0]
        shapes = {
            name: jax.ShapeDtypeStruct((config.batch_size, *np.shape(array)), array.dtype)
            for name, array in pair.items()
        }
        assumptions = Assumptions(true_share=full_attention_share(scorer))
        judge = judges[_size(shapes)].scorer
        params = abstract_reward_params(judge, mesh)
        return reward_model_flops(judge, params, shapes, assumptions, settings.lora)

    abstract = abstract_reward_state(scorer, settings, mesh)
    state = run_training(
        context,
        lambda state: Prepared(
            lambda state, batch: steps[_size(batch)](state, batch, *base),
            [Periodic(config.evaluate_every, measure)],
            model_flops,
        ),
        name="reward",
        abstract=abstract,
        first=first,
        data=data,
        loop=loop_of(context.config, "reward"),
        optimizer=settings.optimizer,
        advice=Advice("config.reward.optimizer.learning_rate", train_pairs.describe),
    )
    trained = state.params
    del state  # free Adam's moments before gathering the weights
    if adapts:
        adapter = uniform_adapter(trained, settings.lora.scale)
        named = context.config.models.judge
        save_peft_adapter(context.folder / ADAPTER, adapter, QWEN2_5_VL, base_model=named)
        trained = merge_into(*base, scale_factors(trained, settings.lora.scale), mesh)
    write_judge_folder(
        context.folder / "judge",
        model=Weights(trained, read_config(start)),
        tokenizer=start,
        preprocessor=read_preprocessor(start),
    )
    if not is_writer():
        return {}
    write_judge_template(context.folder / "judge", judges[sizes[0]].queries.template)
    return headline(json.loads(table_path.read_text())["rows"])


def _size(batch: Mapping[str, Array | jax.ShapeDtypeStruct | np.ndarray]) -> Size:
    """Image size of a batch of pairs."""
    return batch["first"].shape[1:3]
