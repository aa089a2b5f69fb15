"""The stages of a run: host-side files that read the config and call the layers below."""

from onereward_jax.stages.chain import Outcome, run_chain
from onereward_jax.stages.stage import Stage, StageContext
from onereward_jax.stages.table import STAGES

__all__ = ["STAGES", "Outcome", "Stage", "StageContext", "run_chain"]
