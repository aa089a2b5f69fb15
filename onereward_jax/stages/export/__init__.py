"""Stage `export`: the trained editor and judge as folders that diffusers and transformers open."""

from onereward_jax.stages.export.export_models import run

__all__ = ["run"]
