"""The FLUX.1 transformer: a velocity predictor over packed latent tokens."""

from onereward_jax.models.flux.config import FluxConfig
from onereward_jax.models.flux.model import INT8_LAYERS, FluxTransformer

__all__ = ["INT8_LAYERS", "FluxConfig", "FluxTransformer"]
