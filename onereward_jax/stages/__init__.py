"""The stages of a run: host-side code that reads the config and calls the layers below."""

from onereward_jax.stages.registry import STAGES

__all__ = ["STAGES"]
