"""What a trained model started from: the base model that its card may name.

A card claims a base on the hub only if the run started from it: a repository is known from the
folder in the hub's cache, with its commit. Of a local folder the config may say what it holds.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from huggingface_hub import ModelCardData

from onereward_jax.chain.base_models import made_by
from onereward_jax.chain.stage import StageContext
from onereward_jax.convert import hub_commit
from onereward_jax.convert.hub import PACKAGE, hub_repository


@dataclasses.dataclass(frozen=True)
class Origin:
    """Base model and licence.

    Attributes:
      base_model: hub id of the base model; "": none that is known.
      commit: its commit, or "".
      from_nothing: it is of this package, trained from nothing.
      license: the hub's licence id; "other" needs a name.
      license_name, license_link: for the licence "other"; "" otherwise.
    """

    base_model: str
    commit: str
    from_nothing: bool
    license: str
    license_name: str
    license_link: str

    @property
    def start(self) -> str:
        """The end of the sentence "trained from ..."."""
        if self.from_nothing:
            return "a base that was itself trained from nothing"
        if not self.base_model:
            return "a model in a local folder"
        at = f" (commit {self.commit[:12]})" if self.commit else ""
        return f"[{self.base_model}](https://huggingface.co/{self.base_model}){at}"

    def card_data(self, **fields: Any) -> ModelCardData:
        """The card's header, without empty fields.

        Raises:
          ValueError: the licence is "other", but has no name.
        """
        if self.license == "other" and not self.license_name:
            raise ValueError('a model card with the license "other" needs a license_name')
        named = ("base_model", "license", "license_name", "license_link")
        known = {name: getattr(self, name) for name in named if getattr(self, name)}
        return ModelCardData(**known, **fields)


def origin_of(context: StageContext, model: str) -> Origin:
    """What the run's "editor" or "judge" started from, with the licence of its card.

    Raises:
      FileNotFoundError: the base does not exist.
      ValueError: `config.export.<model>_card.base_model` names another base.
    """
    config = context.config
    card = config.export[f"{model}_card"]
    licence = {name: card[name] for name in ("license", "license_name", "license_link")}
    repository, commit, from_nothing = "", "", True
    if model == "editor" and config.models.transformer:  # the part that is trained
        field, source = "models.transformer", context.base_transformer()
    else:
        field, source = f"models.{model}", context.base_model(model)
    if not made_by(config, field):
        folder = source.parent if source.is_file() else source
        repository, commit = hub_repository(folder), hub_commit(folder) or ""
        from_nothing = folder.resolve().is_relative_to(PACKAGE)
    stated = card.base_model
    if stated and (from_nothing or repository) and stated != repository:
        found = repository or "a model of this package or run, which was trained from nothing"
        raise ValueError(
            f"config.export.{model}_card.base_model is {stated}, but config.{field} is {found}: "
            "leave it empty"
        )
    return Origin(repository or stated, commit, from_nothing, **licence)
