"""Inference: the editor and the judge on images of any size."""

from onereward_jax.inference.canvas import Padding, extended, paste_back
from onereward_jax.inference.editor import Editor
from onereward_jax.inference.pairwise_judge import Judge

__all__ = ["Editor", "Judge", "Padding", "extended", "paste_back"]
