"""Ask a judge which of two edits is better, in one dimension; it answers in both orders.

    python -m onereward_jax.judge --model=mini/models/judge --a=first.png --b=second.png \\
      --task=fill --dimension=structure

A judge that sees no difference may still prefer the first place, so both orders are asked.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from onereward_jax.common.user_errors import CommandParser, run_command
from onereward_jax.inference import Judge
from onereward_jax.inference.picture_io import open_picture
from onereward_jax.parallel.compilation_cache import use_compilation_cache
from onereward_jax.parallel.cpu_threads import set_cpu_threads
from onereward_jax.tasks import COMMAND_TASKS, Dimension


def parser() -> CommandParser:
    """The options of this command."""
    options = CommandParser(prog="python -m onereward_jax.judge", description=__doc__)
    add = options.add_argument
    add("--model", required=True, help="folder of the judge (transformers layout)")
    add("--a", required=True, type=Path, help="a picture")
    add("--b", required=True, type=Path, help="another of the same size")
    add("--task", required=True, help=f"what was done: {', '.join(COMMAND_TASKS)}")
    add("--dimension", required=True, help=f"in which respect: {', '.join(Dimension)}")
    add("--prompt", default="", help="what was to be drawn; text_alignment needs it")
    return options


def run(options: argparse.Namespace) -> None:
    """Prints P("Yes") of both orders.

    Raises:
      FileNotFoundError, ValueError: as `Judge`.
    """
    a, b = open_picture(options.a), open_picture(options.b)
    judge = Judge.from_pretrained(options.model)
    a_first, b_first = judge.score(
        [a, b],
        [b, a],
        task=options.task,
        dimension=options.dimension,
        prompt=options.prompt,
    )
    print(f"P(Yes), a before b: {a_first:.4f}")
    print(f"P(Yes), b before a: {b_first:.4f}")


def main(argv: list[str] | None = None) -> None:
    """The command, on `argv` or the command line."""
    run_command(parser(), run, argv)


def cli() -> None:
    """The command `onereward-judge`."""
    use_compilation_cache()
    set_cpu_threads()
    main()


if __name__ == "__main__":
    cli()
