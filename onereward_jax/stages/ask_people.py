"""Where people are asked and where they answer: folders of the work folder, or files they name.

These folders belong to people. The stages add to them, and in a bucket, where people may upload at
any moment, nothing is written over what they have uploaded meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onereward_jax.annotation.question_page import PAGE, write_question_page
from onereward_jax.annotation.questions import FILE, Question, add_questions, with_questions
from onereward_jax.chain.stage import StageContext
from onereward_jax.storage import local_path


def answers_path(context: StageContext, named: str, folder: str) -> Path:
    """Where people's answers are: a file, or a folder with a *.jsonl for each annotator.

    Args:
      context: of the stage.
      named: by the config; "" for the file of the questions.
      folder: of the work folder, with the questions.
    """
    return local_path(named) if named else context.workdir / folder / FILE


def ask(context: StageContext, folder: str, questions: Sequence[Question]) -> None:
    """Adds the questions that are missing to the file in `folder`; their pictures are there.

    Beside them lies a page to answer them on.
    """
    write_question_page(context.workdir / folder / PAGE, questions)
    copy = context.folders.copy
    if copy is None:
        add_questions(context.workdir / folder / FILE, questions)
        return
    copy.publish(folder, remove=False)
    copy.edit(f"{folder}/{FILE}", lambda before: with_questions(before, questions))
