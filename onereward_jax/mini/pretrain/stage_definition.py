"""The stage "onereward_jax.mini.pretrain" of `config.stages`."""

from __future__ import annotations

from onereward_jax.chain.allowed_values import (
    SHARE,
    SIDE,
    Rule,
    between,
    jitter,
    number,
    whole,
)
from onereward_jax.chain.stage import Stage
from onereward_jax.chain.staleness import how, output
from onereward_jax.mini.pretrain.all_models import run
from onereward_jax.reward import TEMPLATE_VERSION
from onereward_jax.tasks import PAPER_TASKS


def _model(section: str) -> dict[str, Rule]:
    """Config rules that the training runs of all models share."""
    rules = {name: whole(1) for name in ("steps", "batch_size")}
    rules |= {"learning_rate": number(0.0, above=True), "clip_norm": number(0.0, above=True)}
    rules |= {"warmup_steps": whole(0), "final_fraction": SHARE, "weight_decay": number(0.0)}
    return {f"{section}.{name}": rule for name, rule in rules.items()}


def _editor(section: str) -> dict[str, Rule]:
    shares = (*(f"shares.{task.value}" for task in PAPER_TASKS), "ema_decay", "drop_prompt")
    own = {f"{section}.{name}": SHARE for name in (*shares, "faint", "flaws")}
    own |= {f"{section}.scenes": whole(1), f"{section}.opacity": between(0.0, 1.0)}
    return _model(section) | own


def _judge(section: str) -> dict[str, Rule]:
    own = {f"{section}.pairs": whole(1), f"{section}.words_weight": number(0.0)}
    return _model(section) | own | jitter(section)


RULES: dict[str, Rule] = {
    "pretrain.image_size": SIDE,
    "pretrain.checkpoint_every": whole(1),
    "pretrain.log_every": whole(1),
    **_model("pretrain.vae"),
    "pretrain.vae.ema_decay": SHARE,
    "pretrain.vae.kl_weight": number(0.0),
    "pretrain.vae.squared_weight": number(0.0),
    **_editor("pretrain.editor"),
    **_editor("pretrain.editor_flawed"),
    **_judge("pretrain.judge"),
    **_judge("pretrain.judge_refined"),
}

STAGE = Stage(
    name="pretrain",
    summary="train the mini world's base editor and judge from nothing",
    run=run,
    fields=(
        output("seed", "pretrain"),
        how("pretrain.checkpoint_every", "pretrain.log_every"),
    ),
    rules=RULES,
    versions={"query_template": TEMPLATE_VERSION},
    resumes=True,
)
