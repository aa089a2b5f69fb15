"""The stages of a run: host-side files that read the config and call the layers below."""

from onereward_jax.stages.chain import Outcome, run_chain
from onereward_jax.stages.registry import STAGES
from onereward_jax.stages.stage import Stage, StageContext

__all__ = ["STAGES", "Outcome", "Stage", "StageContext", "run_chain"]
