"""Stage `evaluate`: the trained editor against its base, on held-out triplets with the same noise.

pictures/base/, pictures/policy/    what either made of a triplet: <name of the triplet>.png
report/index.html                   curves, Good/Same/Bad, pictures: one self-contained page
report/summary.json                 every figure of it
report/pictures.png                 its pictures
"""

from onereward_jax.stages.evaluate.evaluate_check import check
from onereward_jax.stages.evaluate.evaluate_run import run

__all__ = ["check", "run"]
