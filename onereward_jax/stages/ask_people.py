"""Publishes questions to people and locates their answers.

People edit these folders. The stages only add to them; in a bucket, where people may upload at any
time, concurrent uploads are never overwritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onereward_jax.annotation.question_page import PAGE, write_question_page
from onereward_jax.annotation.questions import FILE, Question, add_questions, with_questions
from onereward_jax.chain.stage import StageContext
from onereward_jax.storage import local_path


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

    Also writes a web page to answer them.
    """
    write_question_page(context.workdir / folder / PAGE, questions)
    copy = context.folders.copy
    if copy is None:
        add_questions(context.workdir / folder / FILE, questions)
        return
    copy.publish(folder, remove=False)
    copy.edit(f"{folder}/{FILE}", lambda before: with_questions(before, questions))
