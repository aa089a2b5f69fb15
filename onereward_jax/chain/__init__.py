"""The chain of a run: which stages run, what is stale, what is resumed, one run at a time."""

from onereward_jax.chain.chain import Outcome, run_chain
from onereward_jax.chain.stage import Stage, StageContext

__all__ = ["Outcome", "Stage", "StageContext", "run_chain"]
