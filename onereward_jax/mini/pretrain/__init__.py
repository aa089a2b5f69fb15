"""Stage `pretrain`: the mini world's base editor and judge, trained from scratch."""

from onereward_jax.mini.pretrain.stage_definition import STAGE

__all__ = ["STAGE"]
