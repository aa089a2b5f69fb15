"""The settings of a LoRA file: rank and alpha by layer, from its metadata or peft's config.

metadata "lora_adapter_metadata"   diffusers: peft's LoraConfig as JSON, names with "transformer."
adapter_config.json                peft: the same without prefix
metadata "ss_network_alpha"        kohya: informative, the tensors `.alpha` count
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

METADATA = "lora_adapter_metadata"
PREFIX = "transformer."
LARGEST = 1e9
"""Larger ranks and alphas are mistakes, and overflow."""
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq")
"""Initialisations of peft that take the first A B out of the base's weights."""


@dataclass(frozen=True)
class LoraSettings:
    """peft's `LoraConfig`, as far as it changes what an adapter means.

    Attributes:
      rank: r; None: that of the tensors.
      alpha: the scale is alpha / r; None: 1, unless a layer has a tensor `alpha`.
      ranks, alphas: exceptions: pattern of a layer's name -> value.
      rslora: the scale is alpha / sqrt(r).
      dora: the file must have magnitudes.
    """

    rank: int | None = None
    alpha: float | None = None
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    rslora: bool = False
    dora: bool = False

    def rank_of(self, spellings: Sequence[str]) -> int | None:
        """The stated rank of a layer with these names."""
        return _exception(self.ranks, spellings, self.rank)

    def scale_of(self, spellings: Sequence[str], rank: int) -> float:
        """The factor by which peft multiplies the B A of a layer with these names."""
        alpha = _exception(self.alphas, spellings, self.alpha)
        if alpha is None:
            return 1.0
        return alpha / (rank**0.5 if self.rslora else rank)


def stated_settings(
    path: Path, metadata: Mapping[str, str], peft_config: Mapping[str, Any] | None
) -> LoraSettings:
    """Reads the settings of the file `path`.

    Args:
      path: named in errors.
      metadata: the file's.
      peft_config: adapter_config.json of peft; None: there is none.

    Raises:
      ValueError: they are not JSON, or a value has another type or range than in peft, or they
        need what is not read (a base changed by PiSSA, another kind of adapter).
    """
    if METADATA not in metadata:
        defaults = {"r": 8, "lora_alpha": 8} if peft_config is not None else {}  # peft's
        return _settings(str(path.with_name("adapter_config.json")), defaults | (peft_config or {}))
    where = f"{path}: metadata {METADATA}"
    try:
        found = json.loads(metadata[METADATA])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{where} is {_short(found)}, expected a JSON object")
    own = {
        key.removeprefix(PREFIX): value
        for key, value in found.items()
        if not re.match(r"text_encoder(_\d)?\.", key)
    }
    return _settings(where, own)


def _settings(where: str, found: Mapping[str, Any]) -> LoraSettings:
    kind = found.get("peft_type") or "LORA"
    if kind != "LORA":
        raise ValueError(f"{where}: peft_type is {_short(kind)}; only LORA is read")
    start = found.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise ValueError(
            f"{where}: init_lora_weights is {start!r}, which changes the base, too: save the "
            "adapter with peft's path_initial_model_for_weight_conversion"
        )
    if found.get("modules_to_save"):
        raise ValueError(
            f"{where}: modules_to_save is {_short(found['modules_to_save'])}: whole layers beside "
            "an adapter are not read"
        )
    flags = {}
    for name in ("use_rslora", "use_dora", "fan_in_fan_out"):
        flags[name] = found.get(name) or False
        if not isinstance(flags[name], bool):
            raise ValueError(f"{where}: {name} is {_short(found[name])}, true or false expected")
    if flags["fan_in_fan_out"]:
        raise ValueError(f"{where}: fan_in_fan_out is true, which is not for linear layers")
    return LoraSettings(
        rank=_number(where, "r", found.get("r"), whole=True),
        alpha=_number(where, "lora_alpha", found.get("lora_alpha")),
        ranks=_pattern(where, "rank_pattern", found.get("rank_pattern"), whole=True),
        alphas=_pattern(where, "alpha_pattern", found.get("alpha_pattern")),
        rslora=flags["use_rslora"],
        dora=flags["use_dora"],
    )


def _pattern(where: str, name: str, found: Any, *, whole: bool = False) -> dict[str, Any]:
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError(f"{where}: {name} is {_short(found)}, expected a JSON object")
    values = {}
    for pattern, value in found.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{where}: {name} has {pattern!r}: {error}") from error
        if value is None:
            raise ValueError(f"{where}: {name} of {pattern!r} is null, a number expected")
        values[pattern] = _number(where, f"{name} of {pattern!r}", value, whole=whole)
    return values


def _number(where: str, name: str, value: Any, *, whole: bool = False) -> Any:
    """`value`, checked: finite, not zero, for `whole` a positive whole number."""
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not abs(value) <= LARGEST:  # NaN is refused, too
        raise ValueError(f"{where}: {name} is {_short(value)}, a number expected")
    if whole and (value != int(value) or value < 1):
        raise ValueError(f"{where}: {name} is {value}, a positive whole number expected")
    if value == 0:
        raise ValueError(f"{where}: {name} is 0: the adapter would have no effect")
    return int(value) if whole else float(value)


def _exception(patterns: Mapping[str, Any], spellings: Sequence[str], usual: Any) -> Any:
    """The value of the first pattern that matches a name, as in peft; else the usual one."""
    for pattern, value in patterns.items():
        if any(re.match(rf"(.*\.)?({pattern})$", name) for name in spellings):
            return value
    return usual


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
