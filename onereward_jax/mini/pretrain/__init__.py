"""Stage `pretrain`: the mini world's base editor and judge, trained from nothing."""

from onereward_jax.mini.pretrain.all_models import run

__all__ = ["run"]
