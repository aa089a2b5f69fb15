"""OneReward in JAX: RL of a mask-guided image editor with one vision-language reward model."""

import importlib

__version__ = "0.1.0"
__all__ = ["Editor", "Judge"]


def __getattr__(name: str) -> object:
    """Imports `Editor` and `Judge` lazily: they import every model."""
    if name in __all__:
        return getattr(importlib.import_module("onereward_jax.inference"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
