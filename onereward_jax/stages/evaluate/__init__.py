"""Stage `evaluate`: the trained editor against its base, on held-out triplets with the same noise.

pictures/base/, pictures/policy/    edits of both: <name of the triplet>.png; other editors' beside
report/index.html                   curves, Good/Same/Bad, images: one self-contained page
report/summary.json                 all its figures
report/pictures.png                 its images
"""

from onereward_jax.stages.evaluate.evaluate_check import check
from onereward_jax.stages.evaluate.evaluate_run import run

__all__ = ["check", "run"]
