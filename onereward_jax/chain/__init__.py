"""Runs the stages of a run: staleness, resume, the lock of the work folder, plug-ins."""

from onereward_jax.chain.runner import Outcome, run_chain
from onereward_jax.chain.stage import Stage, StageContext

__all__ = ["Outcome", "Stage", "StageContext", "run_chain"]
