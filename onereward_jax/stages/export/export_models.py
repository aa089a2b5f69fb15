"""Stage `export`: writes the trained editor and judge as diffusers and transformers folders.

    editor/        the full pipeline (config.export.editor = "pipeline"), or
    transformer/   only the trained component ("transformer")
    comfyui/       the transformer as a single file, with config.export.comfyui
    judge/         weights, tokenizer, image processor, query template
    editor_adapter/ what editor/ has merged, if it was trained as a LoRA: one file, with the names
                    of config.export.adapter
    judge_adapter/ what judge/ has merged, if it was trained as a LoRA; for peft

All but the last have a model card, README.md.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from huggingface_hub import ModelCard
from ml_collections import FrozenConfigDict

from onereward_jax.chain.plugins import described
from onereward_jax.chain.stage import Results, StageContext
from onereward_jax.convert import (
    FLUX,
    Weights,
    is_adapter,
    read_preprocessor,
    save_params,
    write_editor_folder,
    write_judge_folder,
)
from onereward_jax.convert.atomic_folder import atomic_folder
from onereward_jax.convert.safetensors_reader import read_json
from onereward_jax.data.pipeline import sizes_of
from onereward_jax.parallel import is_writer
from onereward_jax.policy import read_policy
from onereward_jax.policy.lora_adapters import load_trained, write_editor_adapter
from onereward_jax.policy.policy_loader import transformer_config
from onereward_jax.reward.judge_folder import written_config
from onereward_jax.reward.judge_loader import (
    judge_template,
    judge_view,
    load_reward_params,
    read_reward_model,
    write_judge_template,
)
from onereward_jax.stages.data import open_triplets
from onereward_jax.stages.export.card_origin import origin_of
from onereward_jax.stages.export.comfyui_file import COMFYUI, write_comfyui
from onereward_jax.stages.export.diffusers_call import call_of, editing_of
from onereward_jax.stages.export.model_card import DataFacts, editor_card, judge_card
from onereward_jax.stages.reward import ADAPTER
from onereward_jax.stages.settings import DTYPES, plain
from onereward_jax.tasks import TASKS

WEIGHTS = ("policy", "ema")
SOURCES = {
    "folder": "a folder of images with masks and prompts",
    "tfds": "a ready TFDS data set",
}
"""config.data.source -> description."""
EDITORS = {"pipeline": "editor", "transformer": "transformer"}
"""config.export.editor -> output folder."""
EDITOR_ADAPTER = "editor_adapter"


def run(context: StageContext) -> Results:
    """Writes editor, judge (if the run has one) and their cards; returns their paths.

    Raises:
      ValueError: `config.export.weights`, `.editor` or `.dtype` is invalid.
    """
    config = context.config.export
    checked = (("weights", WEIGHTS), ("editor", tuple(EDITORS)), ("dtype", DTYPES))
    for field, choices in checked:
        if config[field] not in choices:
            raise ValueError(
                f"config.export.{field} is {config[field]!r}: choose one of {', '.join(choices)}"
            )
    editor, judge = context.folder / EDITORS[config.editor], context.folder / "judge"
    written = [editor, *_write_editor(context, editor)]
    has_judge = (context.output("reward") / "judge").is_dir()  # not with every reward
    if has_judge:
        _write_judge(context, judge)
        written.append(judge)
    if is_writer():
        data = _data_facts(context)
        settings = {name: plain(context.config[name]) for name in ("reward", "rl", "export")}
        summary = _summary(context)
        alone = config.editor == "transformer"
        facts = (origin_of(context, "editor"), call_of(context), data, settings, summary)
        _save_card(editor, editor_card(*facts, weights=config.weights, alone=alone))
        if has_judge:
            accuracy = read_json(context.output("reward") / "accuracy.json")["rows"]
            origin = origin_of(context, "judge")
            _save_card(judge, judge_card(origin, data, settings, accuracy, judge))
    if is_adapter(context.output("rl") / config.weights):
        written.append(context.folder / EDITOR_ADAPTER)
        name = f"onereward_{config.weights}_lora.safetensors"
        _write_adapter(context, written[-1], name)
        if is_writer():
            base = context.config.models.transformer
            card = editor_card(*facts, weights=config.weights, adapter=name, transformer=base)
            _save_card(written[-1], card)
    if (adapter := context.output("reward") / ADAPTER).is_dir():
        written.append(context.folder / ADAPTER)
        with atomic_folder(written[-1]) as draft:
            if is_writer():
                shutil.copytree(adapter, draft, dirs_exist_ok=True)
    return {path.name: path.relative_to(context.workdir).as_posix() for path in written}


def _write_editor(context: StageContext, folder: Path) -> list[Path]:
    """Writes the trained transformer, for "pipeline" with copies of the other components.

    Returns the folders of other formats, from the same loaded weights.
    """
    config, base = context.config.export, context.base_model("editor")
    transformer = context.base_transformer()
    static = read_policy(base, transformer=transformer)
    trained = context.output("rl") / config.weights
    params = load_trained(trained, transformer, static, context.mesh)
    architecture = transformer_config(base, transformer)
    written = {"dtype": config.dtype, "max_shard_bytes": _shard_bytes(config)}
    others = []
    if config.comfyui:
        others.append(context.folder / COMFYUI)
        write_comfyui(context, others[-1], params, architecture)
    if config.editor == "transformer":
        save_params(folder, params, FLUX, config=architecture, **written)
        return others
    write_editor_folder(
        folder,
        transformer=Weights(params, architecture, **written),
        vae=base / "vae",
        text_encoder=base / "text_encoder",
        text_encoder_2=base / "text_encoder_2",
        tokenizer=base / "tokenizer",
        tokenizer_2=base / "tokenizer_2",
        scheduler=read_json(base / "scheduler" / "scheduler_config.json"),
        editing=editing_of(context) or None,
    )
    return others


def _write_adapter(context: StageContext, folder: Path, name: str) -> None:
    """Writes the trained adapter alone."""
    config = context.config.export
    static = read_policy(context.base_model("editor"), transformer=context.base_transformer())
    with atomic_folder(folder) as draft:
        write_editor_adapter(
            draft / name,
            context.output("rl") / config.weights,
            static,
            context.mesh,
            spelling=config.adapter,
            dtype=config.dtype,
        )


def _write_judge(context: StageContext, folder: Path) -> None:
    config, trained = context.config.export, context.output("reward") / "judge"
    size = sizes_of(open_triplets(context, "train"))[0]  # any: the weights do not depend on it
    params = load_reward_params(trained, read_reward_model(trained, size).scorer, context.mesh)
    write_judge_folder(
        folder,
        model=Weights(params, written_config(trained), config.dtype, _shard_bytes(config)),
        tokenizer=trained,
        preprocessor=read_preprocessor(trained),
    )
    if is_writer():
        write_judge_template(folder, judge_template(trained), judge_view(trained))


def _shard_bytes(config: FrozenConfigDict) -> int:
    return round(config.shard_gb * 1e9)


def _data_facts(context: StageContext) -> DataFacts:
    """Number and description of the triplets."""
    counts = {}
    for split in ("train", "test"):
        triplets = open_triplets(context, split)
        counts[split] = {task: len(triplets.with_task(task)) for task in TASKS}
    config = context.config
    return DataFacts(
        triplets=SOURCES.get(config.data.source) or described(config, "data.source"),
        image_size=config.data.image_size,
        counts=counts,
        preferences="people"
        if config.annotate.by in ("people", "web")
        else described(config, "annotate.by"),
    )


def _summary(context: StageContext) -> dict | None:
    """The summary of the stage `evaluate`; None if the run does not have it."""
    if "evaluate" not in context.config.stages:
        return None
    return read_json(context.output("evaluate") / "report" / "summary.json")


def _save_card(folder: Path, card: ModelCard) -> None:
    (folder / "README.md").write_text(str(card), encoding="utf-8")
