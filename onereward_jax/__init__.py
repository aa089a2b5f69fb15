"""OneReward in JAX: reinforcement of a mask-guided image editor from one vision-language judge."""

__version__ = "0.1.0"
