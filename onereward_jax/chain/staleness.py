"""Staleness: the output of a stage depends on config fields, file contents and earlier stages.

Each stage in `registry.py` declares the fields it reads and the effect of a change. From these
follow the inputs saved in `stage.json` (`stage_inputs`), whether a stage must be rerun (`compare`),
and which fields have no effect under the current config (`unread`).
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict, FrozenConfigDict

from onereward_jax.chain.base_models import MADE, made_by
from onereward_jax.chain.plugins import fields_of
from onereward_jax.common.config_files import flatten_config
from onereward_jax.common.listing import first_of

if TYPE_CHECKING:
    from onereward_jax.chain.stage import Stage


class Effect(enum.Enum):
    """The effect of a changed input on a stage."""

    OUTPUT = "output"
    """The output changes: the stage starts over."""
    GROWS = "grows"
    """A number of steps: the stage resumes if it increases and starts over if it decreases."""
    UPDATES = "updates"
    """The stage is rerun in its folder and keeps what is still valid."""
    ADDS = "adds"
    """Like UPDATES, but only adds to the output: stages that read it need not be rerun."""
    HOW = "how"
    """Performance or logging: nothing is rerun."""


OF_THE_RUN = ("seed", "stages", "rounds", "mesh", "logging", "compilation_cache")
"""Config sections and fields that do not belong to a stage."""

Digest = Callable[[FrozenConfigDict, pathlib.Path], str]
"""(config, work folder) -> fingerprint of the file or folder that a field names."""


@dataclasses.dataclass(frozen=True)
class Fields:
    """Config fields that a stage reads.

    Attributes:
      effect: effect of a change.
      names: dotted names without "config."; a section means all of its fields.
      when: field -> values for which these fields are read; empty: always.
      unless: field -> values for which they are not read.
      digest: fingerprint of the file or folder that the field names, compared instead of its path.
      value: config -> effective value of the field, compared instead of the field itself.
    """

    effect: Effect
    names: tuple[str, ...]
    when: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    unless: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    digest: Digest | None = None
    value: Callable[[FrozenConfigDict], Any] | None = None

    def covered(self, leaves: Iterable[str]) -> list[str]:
        """Those of `leaves` that are among the fields, read or not."""
        sections = tuple(f"{name}." for name in self.names)
        return [leaf for leaf in leaves if leaf in self.names or leaf.startswith(sections)]

    def apply(self, values: Mapping[str, Any]) -> bool:
        """Whether the fields are read under these settings."""
        return all(
            values.get(field) in allowed for field, allowed in self.when.items()
        ) and not any(values.get(field) in excluded for field, excluded in self.unless.items())


def output(
    *names: str,
    when: Mapping[str, tuple[Any, ...]] | None = None,
    unless: Mapping[str, tuple[Any, ...]] | None = None,
) -> Fields:
    """Fields with `Effect.OUTPUT`."""
    return Fields(Effect.OUTPUT, names, when or {}, unless or {})


def grows(*names: str) -> Fields:
    """Fields with `Effect.GROWS`."""
    return Fields(Effect.GROWS, names)


def updates(*names: str, when: Mapping[str, tuple[Any, ...]] | None = None) -> Fields:
    """Fields with `Effect.UPDATES`."""
    return Fields(Effect.UPDATES, names, when or {})


def adds(*names: str) -> Fields:
    """Fields with `Effect.ADDS`."""
    return Fields(Effect.ADDS, names)


def how(*names: str, when: Mapping[str, tuple[Any, ...]] | None = None) -> Fields:
    """Fields with `Effect.HOW`."""
    return Fields(Effect.HOW, names, when or {})


def content(
    name: str,
    digest: Digest,
    *,
    effect: Effect = Effect.OUTPUT,
    when: Mapping[str, tuple[Any, ...]] | None = None,
) -> Fields:
    """A field that names a file or folder, compared by content."""
    return Fields(effect, (name,), when or {}, digest=digest)


def comes_to(
    name: str, value: Callable[[FrozenConfigDict], Any], *, effect: Effect = Effect.OUTPUT
) -> Fields:
    """A field compared by its effective value, which also depends on other fields."""
    return Fields(effect, (name,), value=value)


class Action(enum.Enum):
    """What a stage has to do."""

    UNCHANGED = "unchanged"
    GOES_ON = "goes on"
    STARTS_OVER = "starts over"


@dataclasses.dataclass(frozen=True)
class Change:
    """The difference between the inputs of a stage's output and the current inputs.

    Attributes:
      action: what the stage has to do.
      differing: name -> (then, now) of the changed inputs.
    """

    action: Action
    differing: Mapping[str, tuple[Any, Any]]

    @property
    def only_settings(self) -> bool:
        """Whether only config fields differ: the old flags would make the output current again."""
        return all(name.startswith("config.") for name in self.differing)

    def __str__(self) -> str:
        """`name: then -> now; ...` of the first three; "" if nothing differs."""
        changes = [_in_words(name, *values) for name, values in self.differing.items()]
        return "; ".join(first_of(changes, 3))


def readers(stage: Stage, config: FrozenConfigDict) -> dict[str, Fields]:
    """Each field that `stage` reads under this config, with its entry."""
    values = leaves(config)
    found: dict[str, Fields] = {}
    for entry in (*stage.fields, *_plugin_fields(stage, config)):
        if not entry.apply(values):
            continue
        found |= dict.fromkeys(entry.covered(values), entry)
    return found


def _plugin_fields(stage: Stage, config: FrozenConfigDict) -> Iterator[Fields]:
    """The fields that the plug-ins of a stage read."""
    for field, effect in stage.plugins.items():
        if names := tuple(fields_of(config, field)):
            yield Fields(effect, names)


def reads_of(stage: Stage, config: FrozenConfigDict) -> dict[str, Effect]:
    """Earlier stages that `stage` reads, including those that make a model or data for it."""
    makers = (made_by(config, leaf) for leaf in readers(stage, config) if leaf in MADE)
    made = {name: Effect.OUTPUT for name in makers if name}
    return made | dict(stage.reads) | dict(stage.reads_also(config))


def stage_inputs(
    stage: Stage, config: FrozenConfigDict, workdir: pathlib.Path, earlier: Mapping[str, str]
) -> dict[str, Any]:
    """Everything that the output of `stage` depends on, by name, after a JSON round trip.

    Args:
      stage, config, workdir: the stage, the config and the work folder.
      earlier: stage that this one reads -> `identity` of its output.

    Raises:
      ValueError: a section that the stage reads is missing from the config.
      OSError: a file to fingerprint cannot be read.
    """
    require_sections(stage, config)
    inputs: dict[str, Any] = {"format": stage.format}
    inputs |= {f"version.{name}": version for name, version in stage.versions.items()}
    values = leaves(config)
    for leaf, entry in readers(stage, config).items():
        if entry.effect is Effect.HOW:
            continue
        if entry.digest is not None:
            inputs[f"content.{leaf}"] = entry.digest(config, workdir)
        elif entry.value is not None:
            inputs[f"config.{leaf}"] = entry.value(config)
        else:
            inputs[f"config.{leaf}"] = values[leaf]
    inputs |= {f"stage.{name}": identity for name, identity in earlier.items()}
    # JSON turns tuples into lists.
    return json.loads(json.dumps(inputs))


def require_sections(stage: Stage, config: FrozenConfigDict) -> None:
    """Raises ValueError if the config lacks a field that the stage reads."""
    values = leaves(config)
    for entry in stage.fields:
        if entry.effect is Effect.ADDS:  # fields of other stages, which the run may not have
            continue
        for name in entry.names:
            present = any(leaf == name or leaf.startswith(f"{name}.") for leaf in values)
            if entry.apply(values) and not present:
                raise ValueError(f"config.{name} is missing: stage {stage.name} needs it")


def identity(stage: Stage, config: FrozenConfigDict, inputs: Mapping[str, Any]) -> str:
    """Hash that identifies the output of `stage` for these inputs."""
    effects = input_effects(stage, config)
    kept = {
        name: _as_floats(value)
        for name, value in inputs.items()
        if effects(name) is not Effect.ADDS
    }
    text = json.dumps(kept, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _as_floats(value: Any) -> Any:
    """The value with all numbers as floats: `compare` treats (1,) and (1.0,) as equal."""
    if isinstance(value, list | tuple):
        return [_as_floats(one) for one in value]
    if isinstance(value, dict):
        return {name: _as_floats(one) for name, one in value.items()}
    return float(value) if isinstance(value, int) else value


def compare(
    stage: Stage, config: FrozenConfigDict, then: Mapping[str, Any], now: Mapping[str, Any]
) -> Change:
    """Compares the inputs of existing output, `then`, with the current ones.

    Inputs that are no longer read do not count: the field that decides so is itself an input.
    """
    effects = input_effects(stage, config)
    absent = "(none)"
    action, differing = Action.UNCHANGED, {}
    # Report changed inputs before added ones: they explain more.
    for name in sorted(now, key=lambda name: (name not in then, name)):
        before, after = then.get(name, absent), now[name]
        if before == after:
            continue
        effect = effects(name)
        grown = effect is Effect.GROWS and before != absent and after > before
        goes_on = grown or effect in (Effect.UPDATES, Effect.ADDS)
        if not goes_on:
            action = Action.STARTS_OVER
        elif action is Action.UNCHANGED:
            action = Action.GOES_ON
        differing[name] = (before, after)
    return Change(action, differing)


def unread(
    overrides: Iterable[str], stages: Iterable[Stage], config: FrozenConfigDict
) -> dict[str, str]:
    """The overridden fields that no stage reads under this config, each with the reason.

    Args:
      overrides: dotted names, with "config.".
      stages: all stages of the run.
      config: the config, with overrides.
    """
    stages = list(stages)
    read = {leaf for stage in stages for leaf in readers(stage, config)}
    reasons = {}
    for field in overrides:
        leaf = field.removeprefix("config.")
        if leaf in read or leaf.partition(".")[0] in OF_THE_RUN:
            continue
        conditions = [
            " and ".join(
                f"config.{name} = {' or '.join(map(repr, allowed))}"
                for name, allowed in entry.when.items()
            )
            for stage in stages
            for entry in stage.fields
            if entry.when and entry.covered([leaf])
        ]
        if conditions:
            reasons[field] = "it is read only with " + ", or ".join(dict.fromkeys(conditions))
        else:
            reasons[field] = "no stage of this config reads it"
    return reasons


def leaves(config: ConfigDict) -> dict[str, Any]:
    """Every field of the config by its dotted name, without "config."."""
    return {name.removeprefix("config."): value for name, value in flatten_config(config).items()}


def input_effects(stage: Stage, config: FrozenConfigDict) -> Callable[[str], Effect]:
    """Function from input name to the effect of its change."""
    read, reads = readers(stage, config), reads_of(stage, config)

    def effect(name: str) -> Effect:
        kind, _, rest = name.partition(".")
        if kind == "stage":
            return reads.get(rest, Effect.OUTPUT)
        if kind in ("config", "content") and rest in read:
            return read[rest].effect
        return Effect.OUTPUT

    return effect


def _in_words(name: str, then: Any, now: Any) -> str:
    kind, _, rest = name.partition(".")
    if kind == "stage":
        return f"the output of {rest} has changed"
    if kind == "content":
        return f"the content of config.{rest} has changed"
    if kind == "format":
        return f"output format: {then} -> {now}"
    return f"{name}: {then} -> {now}"
