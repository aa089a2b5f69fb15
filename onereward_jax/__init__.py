"""OneReward in JAX: reinforcement of a mask-guided image editor from one vision-language judge."""

import importlib

__version__ = "0.1.0"
__all__ = ["Editor", "Judge"]


def __getattr__(name: str) -> object:
    """`Editor` and `Judge` on first use: they bring along every model there is."""
    if name in __all__:
        return getattr(importlib.import_module("onereward_jax.inference"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
