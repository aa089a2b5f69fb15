"""Stage `pretrain`: the mini world's base editor and judge, trained from scratch.

A real run starts from FLUX.1-Fill-dev and Qwen2.5-VL; the mini world trains its own base models.
Three training runs, each resumable: autoencoder, judge, editor with its text encoders.
"""

from __future__ import annotations

import jax

from onereward_jax.chain.stage import Results, StageContext
from onereward_jax.mini.pretrain.autoencoder import train_autoencoder
from onereward_jax.mini.pretrain.base_editor import train_editor
from onereward_jax.mini.pretrain.starting_judge import train_judge


def run(context: StageContext) -> Results:
    """Trains all three; writes `editor/` (diffusers layout) and `judge/` (transformers layout).

    Raises:
      ValueError: the run has more than one process.
    """
    if jax.process_count() > 1:
        raise ValueError("the stage pretrain runs in one process: remove --distributed")
    autoencoder = train_autoencoder(context)
    judge = train_judge(context)
    editor = train_editor(context)
    return {**autoencoder, **judge, **editor}
