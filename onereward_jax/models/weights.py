"""The weights of a model in their forms: plain parameters, quantised, with an adapter, or both."""

from __future__ import annotations

from typing import Any

from jaxtyping import PyTree

from onereward_jax.models import int8, lora


def variables(weights: PyTree | int8.Quantized | lora.Adapted) -> dict[str, Any]:
    """The variables for `Module.apply`."""
    if isinstance(weights, int8.Quantized):
        return {"params": weights.params, int8.COLLECTION: weights.scales}
    if isinstance(weights, lora.Adapted):
        return {**variables(weights.params), lora.COLLECTION: weights.factors}
    return {"params": weights}
