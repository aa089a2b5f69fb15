"""Stage `pretrain`: the mini world's base editor and judge, trained from nothing."""

from onereward_jax.stages.pretrain.mini_models import run

__all__ = ["run"]
