"""Checks before the first stage: all config fields, then the check of each stage."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from ml_collections import FrozenConfigDict

from onereward_jax.chain.allowed_values import RULES
from onereward_jax.chain.plugins import fields_of
from onereward_jax.chain.saved_command import overridden
from onereward_jax.chain.stage import Stage, StageContext
from onereward_jax.chain.staleness import leaves, readers, unread


def check_config(
    config: FrozenConfigDict, stages: Collection[Stage], overrides: Sequence[str]
) -> None:
    """Checks every field of a config.

    Args:
      config: the experiment.
      stages: the stages of the run.
      overrides: flags that set fields on the command line.

    Raises:
      ValueError: listing all fields that are out of range, missing from a section in use, or set
        without effect.
    """
    own = {
        name: rule
        for stage in stages
        for rules in (stage.rules, *(fields_of(config, field) for field in stage.plugins))
        for name, rule in rules.items()
    }
    rules = RULES | own
    read = {leaf for stage in stages for leaf in readers(stage, config)}
    values = leaves(config)
    sections = {leaf.partition(".")[0] for leaf in (*read, *own)}
    complaints = [
        f"config.{leaf} is missing: {rule.expected}"
        for leaf, rule in rules.items()
        if leaf not in values and leaf.partition(".")[0] in sections
    ]
    parents = {leaf.rpartition(".")[0] for leaf in values}
    complaints += [
        f"config.{leaf} is a section: {rules[leaf].expected}"
        for leaf in sorted(parents & rules.keys())
    ]
    for leaf, value in values.items():
        rule = rules.get(leaf)
        if rule is not None and not rule.holds(value):
            complaints.append(f"config.{leaf} is {value!r}: {rule.expected}")
        elif rule is None and leaf in read:
            complaints.append(f"config.{leaf} is not a field of the stages")
    if not complaints:
        named = unread(overridden(overrides), stages, config)
        complaints = [f"{field} is set, but {reason}" for field, reason in named.items()]
    if complaints:
        raise ValueError("\n".join(complaints))


def check_stages(contexts: Iterable[tuple[Stage, StageContext]]) -> None:
    """Runs the check of each stage.

    Raises:
      ValueError, FileNotFoundError, ModuleNotFoundError: the first failed check.
    """
    for stage, context in contexts:
        stage.check(context)
