"""Inference: the editor and the judge on images of any size."""

from onereward_jax.inference.canvas import Padding, extended
from onereward_jax.inference.editor import Editor
from onereward_jax.inference.pairwise_judge import Judge
from onereward_jax.inference.photograph_edit import edit_photograph
from onereward_jax.inference.stitch import paste_back

__all__ = ["Editor", "Judge", "Padding", "edit_photograph", "extended", "paste_back"]
