"""The one door to attention kernels."""

from onereward_jax.models.attention.dispatch import attention

__all__ = ["attention"]
