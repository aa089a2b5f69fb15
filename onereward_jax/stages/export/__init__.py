"""Stage `export`: writes the trained editor and judge for diffusers and transformers."""

from onereward_jax.stages.export.export_models import run

__all__ = ["run"]
