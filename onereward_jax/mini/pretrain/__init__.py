"""Stage `pretrain`: the mini world's base editor and judge, trained from nothing."""

from onereward_jax.mini.pretrain.stage_definition import STAGE

__all__ = ["STAGE"]
