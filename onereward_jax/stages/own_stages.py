"""The stages that `config.stages` names: those of the table, and those of one's own."""

from __future__ import annotations

import copy

from ml_collections import ConfigDict

from onereward_jax.chain import plugins
from onereward_jax.chain.stage import Stage
from onereward_jax.stages.later_rounds import with_rounds
from onereward_jax.stages.registry import STAGES


def stages_of(config: ConfigDict) -> tuple[ConfigDict, tuple[Stage, ...]]:
    """The config with stage names only, and all known stages in order, those of later rounds too.

    `config.stages` may name your own stage: a module or .py file with `STAGE`. It runs after the
    stage that is listed before it. With `config.rl.references = "bank"`, `references` runs before
    `rl` and needs no entry.

    Raises:
      ValueError, FileNotFoundError: an entry is neither a stage nor such a module, or
        `config.rounds` needs stages that are not listed.
    """
    stages, names, position = list(STAGES), [], 0
    for entry in config.stages:
        known = [stage.name for stage in stages]
        if entry not in known:
            if "." not in entry:
                raise ValueError(f"config.stages: no stage {entry!r}; there are {', '.join(known)}")
            stage = getattr(plugins.load(entry, "stages"), "STAGE", None)
            if not isinstance(stage, Stage):
                raise ValueError(f"config.stages: {entry!r} has no STAGE")
            stages.insert(position, stage)
            known.insert(position, stage.name)
            entry = stage.name
        position = max(position, known.index(entry) + 1)
        names.append(entry)
    if "rl" in names and "references" not in names and config.rl.references == "bank":
        names.insert(names.index("rl"), "references")
    config = copy.deepcopy(config)
    config.stages = tuple(names)
    return with_rounds(config, tuple(stages))
