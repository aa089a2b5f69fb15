"""The stages of a run: host-side files that read the config and call the layers below."""

from onereward_jax.stages.registry import STAGES

__all__ = ["STAGES"]
