"""Stage `export`: the trained editor and judge as folders that diffusers and transformers open."""

from __future__ import annotations

from onereward_jax.convert import (
    Weights,
    read_config,
    read_preprocessor,
    write_editor_folder,
    write_judge_folder,
)
from onereward_jax.convert.tensor_files import read_json
from onereward_jax.policy import read_editor
from onereward_jax.policy.adapters import load_trained
from onereward_jax.reward.loading import load_judge_params, read_judge, write_template_version
from onereward_jax.stages.stage import Results, StageContext


def run(context: StageContext) -> Results:
    """Writes `editor` and `judge`; returns where."""
    config, mesh, base = context.config.export, context.mesh, context.base_model("editor")
    trained = context.output("rl") / config.weights
    transformer = load_trained(trained, base, read_editor(base), mesh)
    write_editor_folder(
        context.folder / "editor",
        transformer=Weights(transformer, read_config(base / "transformer"), config.dtype),
        vae=base / "vae",
        text_encoder=base / "text_encoder",
        text_encoder_2=base / "text_encoder_2",
        tokenizer=base / "tokenizer",
        tokenizer_2=base / "tokenizer_2",
        scheduler=read_json(base / "scheduler" / "scheduler_config.json"),
    )
    trained, size = context.output("reward") / "judge", context.config.data.image_size
    scorer = read_judge(trained, (size, size)).scorer
    write_judge_folder(
        context.folder / "judge",
        model=Weights(load_judge_params(trained, scorer, mesh), read_config(trained), config.dtype),
        tokenizer=trained,
        preprocessor=read_preprocessor(trained),
    )
    write_template_version(context.folder / "judge")
    return {name: str(context.folder / name) for name in ("editor", "judge")}
