"""Attention kernels; all models call `attention`."""

from onereward_jax.models.attention.dispatch import attention

__all__ = ["attention"]
