"""Values of a config file: of another type, not finite, out of range; and seeds."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from bad_inputs_case import Case
from ml_collections import ConfigDict, FrozenConfigDict

from configs import flux_fill_dev, mini
from onereward_jax.chain.preflight import check_config
from onereward_jax.chain.staleness import leaves
from onereward_jax.common.rng import key_of
from onereward_jax.stages import STAGES

VALUES = (
    None, -1, 2**70, 1.5, math.nan, math.inf, -math.inf, "word", "", "5", True, False, (), (1, "a"),
    (math.nan,), ("word",), np.float32(2), [1], {"a": 1},
)  # fmt: skip
EXPERIMENTS = {"mini": mini, "flux_fill_dev": flux_fill_dev}
SEEDS = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**53 + 1, 2**63, 2**64 - 1)


def prepare(root: Path) -> None:
    """Nothing to write."""


def cases(root: Path, rng: random.Random) -> Iterator[Case]:
    """Every field of two experiments."""
    for name, module in EXPERIMENTS.items():
        found = leaves(FrozenConfigDict(module.get_config()))
        for leaf, value in found.items():
            for number, new in enumerate(VALUES):
                if type(new) is type(value) and new == value:
                    continue
                yield Case(
                    "settings: config files",
                    f"{name}.{leaf} = {new!r:.40} ({number})",
                    functools.partial(_check, name, leaf, new),
                    functools.partial(_is_right, value, new),
                )
    for seed in SEEDS:
        yield Case(
            "settings: seeds", str(seed), functools.partial(_seed, seed), _is_own(seed), True
        )
    for seed in (-1, 2**64, 1.0, "1", True, None):
        yield Case("settings: seeds", repr(seed), functools.partial(_seed, seed))


def _check(name: str, leaf: str, new: Any, folder: Path) -> Any:
    config = EXPERIMENTS[name].get_config()
    *sections, field = leaf.split(".")
    section = functools.reduce(getattr, sections, config)
    with section.unlocked(), section.ignore_type():
        section[field] = ConfigDict(new) if isinstance(new, dict) else new
    check_config(FrozenConfigDict(config), STAGES, ())
    return new


def _is_right(value: Any, new: Any) -> Any:
    """Whether a value may be accepted: a finite one of the kind of the intact value, or of none."""
    # ConfigDict makes a number of a truth value.
    kinds = ((str,), (bool, int, float, np.floating), (tuple, list), (dict,))
    kind = lambda one: next((each for each in kinds if isinstance(one, each)), None)
    finite = not (isinstance(new, float) and math.isnan(new))
    both_none = (value is None and not isinstance(new, dict)) or new is None
    return lambda found: finite and (both_none or kind(new) == kind(value))


def _seed(seed: Any, folder: Path) -> list[int]:
    config = mini.get_config()
    with config.unlocked(), config.ignore_type():
        config.seed = seed
    check_config(FrozenConfigDict(config), STAGES, ())
    return jax.random.key_data(key_of(seed)).tolist()


def _is_own(seed: int) -> Any:
    """Of every seed another key; below 2^32 that of JAX."""

    def right(found: list[int]) -> bool:
        others = [jax.random.key_data(key_of(one)).tolist() for one in SEEDS if one != seed]
        jax_own = seed >= 2**32 or found == jax.random.key_data(jax.random.key(seed)).tolist()
        return jax_own and found not in others

    return lambda: right
