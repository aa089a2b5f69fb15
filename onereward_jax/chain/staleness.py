"""What the output of a stage depends on: config fields, contents of files, earlier stages.

Each stage of `registry.py` lists the fields it reads and what a change means. From that list
follow the values that `stage.json` keeps (`stage_inputs`), whether a stage has to run again
(`compare`), and which fields nobody reads under the settings at hand (`unread`).
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

from onereward_jax.chain.base_models import MODELS, made_by
from onereward_jax.chain.plugins import fields_of
from onereward_jax.common.config_files import flatten_config
from onereward_jax.common.listing import first_of

if TYPE_CHECKING:
    from onereward_jax.chain.stage import Stage


class Effect(enum.Enum):
    """What the change of an input means to the stage that has it."""

    OUTPUT = "output"
    """Another output: the stage starts over."""
    GROWS = "grows"
    """A number of steps: the stage goes on when it rises and starts over when it falls."""
    UPDATES = "updates"
    """The stage runs again in its folder and keeps what still holds."""
    ADDS = "adds"
    """The same, and what was there stays as it was: stages that read it need not run again."""
    HOW = "how"
    """How it is computed or watched: nothing runs again."""


OF_THE_RUN = ("seed", "stages", "mesh", "logging", "compilation_cache")
"""Sections and fields of a config that are not of any stage."""

Digest = Callable[[FrozenConfigDict, pathlib.Path], str]
"""(config, work folder) -> a fingerprint of what a field names."""


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields that a stage reads.

    Attributes:
      effect: of a change.
      names: dotted, without "config."; a section stands for all of its fields.
      when: field -> its values with which these fields are read; empty: always.
      unless: field -> its values with which they are not read.
      digest: of the file or folder that the field names: its content counts, not its path.
      value: of the config, what the field comes to: that counts, not how it is spelled.
    """

    effect: Effect
    names: tuple[str, ...]
    when: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    unless: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    digest: Digest | None = None
    value: Callable[[FrozenConfigDict], Any] | None = None

    def cover(self, leaf: str) -> bool:
        """Whether `leaf` is one of the fields, read or not."""
        return any(leaf == name or leaf.startswith(f"{name}.") for name in self.names)

    def apply(self, values: Mapping[str, Any]) -> bool:
        """Whether the fields are read under these settings."""
        return all(values.get(field) in wanted for field, wanted in self.when.items()) and not any(
            values.get(field) in unwanted for field, unwanted in self.unless.items()
        )


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
    """A field that names a file or folder whose content counts."""
    return Fields(effect, (name,), when or {}, digest=digest)


def comes_to(
    name: str, value: Callable[[FrozenConfigDict], Any], *, effect: Effect = Effect.OUTPUT
) -> Fields:
    """A field that stands for a value which other fields decide too."""
    return Fields(effect, (name,), value=value)


class Action(enum.Enum):
    """What a stage has to do."""

    UNCHANGED = "unchanged"
    GOES_ON = "goes on"
    STARTS_OVER = "starts over"


@dataclasses.dataclass(frozen=True)
class Change:
    """The inputs that a stage's output was made from, beside those of now.

    Attributes:
      action: what has to be done.
      differing: name -> (then, now) of the inputs that led to it.
    """

    action: Action
    differing: Mapping[str, tuple[Any, Any]]

    @property
    def only_settings(self) -> bool:
        """Whether nothing but config fields differs: the same flags would bring it back."""
        return all(name.startswith("config.") for name in self.differing)

    def __str__(self) -> str:
        """`name: then -> now; ...`, the first three by name; "" when nothing differs."""
        told = [_in_words(name, *values) for name, values in self.differing.items()]
        return "; ".join(first_of(told, 3))


def readers(stage: Stage, config: FrozenConfigDict) -> dict[str, Fields]:
    """Each field that `stage` reads under this config, and the entry that says how."""
    values = leaves(config)
    found: dict[str, Fields] = {}
    for entry in (*stage.fields, *_plugin_fields(stage, config)):
        if not entry.apply(values):
            continue
        found |= {leaf: entry for leaf in values if entry.cover(leaf)}
    return found


def _plugin_fields(stage: Stage, config: FrozenConfigDict) -> Iterator[Fields]:
    """What the plug-ins of a stage read."""
    for field, effect in stage.plugins.items():
        if names := tuple(fields_of(config, field)):
            yield Fields(effect, names)


def reads_of(stage: Stage, config: FrozenConfigDict) -> dict[str, Effect]:
    """Earlier stages that `stage` reads, those that make a model for it included."""
    makers = (made_by(config, leaf) for leaf in readers(stage, config) if leaf in MODELS)
    return {name: Effect.OUTPUT for name in makers if name} | dict(stage.reads)


def stage_inputs(
    stage: Stage, config: FrozenConfigDict, workdir: pathlib.Path, earlier: Mapping[str, str]
) -> dict[str, Any]:
    """Everything that the output of `stage` depends on, by name, as JSON gives it back.

    Args:
      stage, config, workdir: of the run.
      earlier: stage -> `identity` of its output, of the stages that this one reads.

    Raises:
      ValueError: a section that the stage reads is missing from the config.
      OSError: a file whose content counts cannot be read.
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
    # Tuples come back from `stage.json` as lists.
    return json.loads(json.dumps(inputs))


def require_sections(stage: Stage, config: FrozenConfigDict) -> None:
    """Raise a ValueError when the config lacks something that the stage reads."""
    values = leaves(config)
    for entry in stage.fields:
        if entry.effect is Effect.ADDS:  # of whichever stages the run has
            continue
        for name in entry.names:
            present = any(leaf == name or leaf.startswith(f"{name}.") for leaf in values)
            if entry.apply(values) and not present:
                raise ValueError(f"config.{name} is missing: stage {stage.name} needs it")


def identity(stage: Stage, config: FrozenConfigDict, inputs: Mapping[str, Any]) -> str:
    """Names the output that `stage` makes of `inputs`: equal inputs, equal name."""
    effects = input_effects(stage, config)
    kept = {
        name: _as_floats(value)
        for name, value in inputs.items()
        if effects(name) is not Effect.ADDS
    }
    text = json.dumps(kept, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _as_floats(value: Any) -> Any:
    """The value with all of its numbers as floats: `compare` takes (1,) and (1.0,) for the same."""
    if isinstance(value, list | tuple):
        return [_as_floats(one) for one in value]
    if isinstance(value, dict):
        return {name: _as_floats(one) for name, one in value.items()}
    return float(value) if isinstance(value, int) else value


def compare(
    stage: Stage, config: FrozenConfigDict, then: Mapping[str, Any], now: Mapping[str, Any]
) -> Change:
    """What has to be done about output made from the inputs `then`.

    Inputs that are no longer read do not count: the field that decides so is an input itself.
    """
    effects = input_effects(stage, config)
    absent = "(none)"
    action, differing = Action.UNCHANGED, {}
    # What was known before comes first: it tells more than what a new mode reads in addition.
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
    """Of the fields set by hand, those that no stage reads under this config, each with the reason.

    Args:
      overrides: dotted names with "config.".
      stages: all stages of the run.
      config: with the overrides.
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
                f"config.{name} = {' or '.join(map(repr, wanted))}"
                for name, wanted in entry.when.items()
            )
            for stage in stages
            for entry in stage.fields
            if entry.when and entry.cover(leaf)
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
    """Input name -> what its change means."""
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
        return f"the output of {rest} is another one"
    if kind == "content":
        return f"what config.{rest} names has changed"
    if kind == "format":
        return f"the format of its files: {then} -> {now}"
    return f"{name}: {then} -> {now}"
