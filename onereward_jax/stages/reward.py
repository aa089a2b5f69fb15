"""Stage `reward`: trains the judge on preferences (stage 2 of the paper).

judge/           the trained judge, a transformers folder
judge_adapter/   with config.reward.lora: its adapter, in peft's format; judge/ has it merged
judge-2/, ...    with config.reward.judges: the others of the ensemble; training-2/ has their logs
judge-held-out/  with config.reward.held_out: the held-out judge; training-held-out/ has its logs
pairs.jsonl      the labelled pairs, made of the answers by the rules of config.reward
accuracy.json    Table 1: accuracy and position bias per task and dimension, on held-out pairs;
                 calibration
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from onereward_jax.annotation.labelled_pairs import LabelledPair
from onereward_jax.chain.base_models import made_by
from onereward_jax.chain.stage import Results, StageContext
from onereward_jax.convert import (
    QWEN2_5_VL,
    Weights,
    read_preprocessor,
    save_peft_adapter,
    write_judge_folder,
)
from onereward_jax.evaluation.intervals import counted
from onereward_jax.models.lora import scale_factors, uniform_adapter
from onereward_jax.models.lora_merge import merge_into
from onereward_jax.parallel import is_writer
from onereward_jax.reward.judge_folder import find_judge, written_config
from onereward_jax.reward.judge_loader import read_reward_model, write_judge_template
from onereward_jax.stages.collect_pairs import collect_pairs, has_own_pairs
from onereward_jax.stages.imported_pairs import check_imported, imported_folders
from onereward_jax.stages.judge_measurement import headline, on_policy_headline
from onereward_jax.stages.judge_parts import JudgePart, check_parts, judge_parts
from onereward_jax.stages.later_pairs import with_later_share
from onereward_jax.stages.prompt_checks import check_prompts
from onereward_jax.stages.reward_settings import reward_options, reward_settings
from onereward_jax.stages.settings import check_batch
from onereward_jax.stages.train_judge import ACCURACY, read_judges, train_judge
from onereward_jax.training.reward_step import abstract_reward_state

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
    check_parts(config)
    if not has_own_pairs(config) and not imported_folders(config):
        raise ValueError(
            "config.reward.preferences is empty and config.stages has no stage annotate: there are "
            "no answers to train on"
        )
    if not made_by(config, "models.judge"):
        size = (config.data.image_size, config.data.image_size)
        judge = read_reward_model(context.base_model("judge"), size, **reward_options(config))
        if judge.scorer.is_scalar and config.reward.kind == "pairwise":
            raise ValueError(
                f"config.models.judge {config.models.judge} judges one picture at a time: set "
                'config.reward.kind to "scalar", or name a query template about two pictures '
                "(config.reward.query_template)"
            )
        if settings.lora is not None:
            if find_judge(context.base_model("judge")).adapter is not None:
                raise ValueError(
                    f"config.models.judge {config.models.judge} is an adapter, on which no other "
                    "(config.reward.lora) can be trained: merge it first"
                )
            try:
                abstract_reward_state(judge.scorer, settings, mesh)
            except ValueError as error:
                raise ValueError(f"config.reward.lora.targets: {error}") from error
    check_prompts(context)


def run(context: StageContext) -> Results:
    """Trains and evaluates the judges; returns the accuracy of the first for fill, extend, removal.

    That of the others is a mean over all held-out pairs. With `later_rounds.share`, also the number
    of pairs that it repeats.
    """
    labelled, results = collect_pairs(context), {}
    for part in judge_parts(context.config, labelled["train"]):
        folder = context.folder / part.logs if part.logs else context.folder
        if repeats := _train(context, part, labelled["test"]):
            results["repeated_pairs"] = repeats
        if is_writer():
            found = json.loads((folder / ACCURACY).read_text())
            if part.logs is None:
                results |= headline(found["rows"]) | on_policy_headline(found)
            else:
                results[part.name] = _overall(found["rows"])
    return results


def _train(context: StageContext, part: JudgePart, test: Sequence[LabelledPair]) -> int:
    """Trains one judge and writes its folder; returns how many pairs are repeats."""
    start = find_judge(context.base_model("judge")).model
    lora = reward_settings(context.config).lora
    train = with_later_share(context, part.train)
    given = {"train": train, "validation": part.validation, "test": test}
    judges, pairs = read_judges(context, given)
    trained, base = train_judge(
        context,
        judges,
        pairs,
        name="reward" if part.logs is None else f"reward, {part.name}",
        folder=context.folder / part.logs if part.logs else None,
        seed=part.seed,
    )
    adapter_folder = context.folder / part.name.replace("judge", ADAPTER)
    if lora is not None:
        adapter, named = uniform_adapter(trained, lora.scale), context.config.models.judge
        save_peft_adapter(adapter_folder, adapter, QWEN2_5_VL, base_model=named)
        trained = merge_into(base, scale_factors(trained, lora.scale), context.mesh)
    write_judge_folder(
        context.folder / part.name,
        model=Weights(trained, written_config(start)),
        tokenizer=start,
        preprocessor=read_preprocessor(start),
    )
    if is_writer():
        asked = next(iter(judges.values())).queries
        for folder in (context.folder / part.name, *([adapter_folder] if lora is not None else [])):
            write_judge_template(folder, asked.template, asked.view)
    return len(train) - len(part.train)


def _overall(rows: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy in % over all held-out pairs."""
    pairs = sum(row["pairs"] for row in rows)
    right = sum(row["pairs"] * row["accuracy"] for row in rows)
    return f"accuracy {100 * right / pairs:.1f} ({counted(pairs, 'pair')})"
