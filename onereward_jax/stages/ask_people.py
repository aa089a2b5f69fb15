"""Publishes questions to people and locates their answers.

People edit these folders. The stages only add to them; in a bucket, where people may upload at any
time, concurrent uploads are never overwritten.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_collections import FrozenConfigDict

from onereward_jax.annotation.guidelines import Guideline, read_guidelines
from onereward_jax.annotation.question_page import PAGE, write_question_page
from onereward_jax.annotation.questions import FILE, Question, add_questions, with_questions
from onereward_jax.chain.stage import StageContext
from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.storage import local_path

EXAMPLES = "guidelines"
"""Folder with example pictures, beside the questions."""


def team_guidelines(config: FrozenConfigDict) -> dict[str, Guideline]:
    """The guidelines of `config.annotate.web.guidelines`, or those of the package.

    Raises:
      FileNotFoundError, ValueError: the folder is missing, or has files that cannot be used.
    """
    # The config of a stage's own may have no such section.
    named = config.annotate.get("web", {}).get("guidelines", "")
    return read_guidelines(local_path(named) if named else "")


def answers_path(context: StageContext, named: str, folder: str) -> Path:
    """The path of people's answers: a file, or a folder with one *.jsonl per annotator.

    Args:
      context: context of the stage.
      named: path set in the config; "": the file of the questions.
      folder: folder of the questions in the work folder.
    """
    return local_path(named) if named else context.workdir / folder / FILE


def ask(context: StageContext, folder: str, questions: Sequence[Question]) -> None:
    """Adds missing questions to the file in `folder`, which has their images.

    Also writes a web page to answer them. Example pictures of guidelines are copied, so that the
    folder has everything that the page shows.
    """
    guidelines = _copied(team_guidelines(context.config), context.workdir / folder / EXAMPLES)
    write_question_page(context.workdir / folder / PAGE, questions, guidelines)
    copy = context.folders.copy
    if copy is None:
        add_questions(context.workdir / folder / FILE, questions)
        return
    copy.publish(folder, remove=False)
    copy.edit(f"{folder}/{FILE}", lambda before: with_questions(before, questions))


def _copied(guidelines: Mapping[str, Guideline], folder: Path) -> dict[str, Guideline]:
    """The same guidelines, with their example pictures in `folder`."""

    def copied(path: Path) -> Path:
        with atomic_file(folder / path.name) as draft:
            shutil.copyfile(path, draft)
        return folder / path.name

    return {
        name: dataclasses.replace(
            one, good=tuple(map(copied, one.good)), bad=tuple(map(copied, one.bad))
        )
        for name, one in guidelines.items()
    }
