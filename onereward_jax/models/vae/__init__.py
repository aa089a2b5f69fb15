"""AutoencoderKL: images to latents and back."""

from onereward_jax.models.vae.config import VaeConfig
from onereward_jax.models.vae.model import AutoencoderKL

__all__ = ["AutoencoderKL", "VaeConfig"]
