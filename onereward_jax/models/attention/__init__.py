"""The one door to attention kernels."""

from onereward_jax.models.attention.choice import attention

__all__ = ["attention"]
