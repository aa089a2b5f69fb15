"""Ask a judge which of two edits is better in one dimension, in both orders.

    python -m onereward_jax.judge --model=mini/models/judge --a=first.png --b=second.png \\
      --task=fill --dimension=structure

A judge may prefer the first position even if it sees no difference, so both orders are asked.
"""

from __future__ import annotations

import argparse

from onereward_jax.common.user_errors import CommandParser, run_command
from onereward_jax.common.user_path import user_path
from onereward_jax.inference import Judge
from onereward_jax.parallel.compilation_cache import use_compilation_cache
from onereward_jax.parallel.cpu_threads import set_cpu_threads
from onereward_jax.pictures import read_picture
from onereward_jax.tasks import COMMAND_TASKS, Dimension


def parser() -> CommandParser:
    """The options of this command."""
    options = CommandParser(prog="python -m onereward_jax.judge", description=__doc__)
    add = options.add_argument
    add("--model", required=True, help="folder of the judge (transformers layout)")
    add("--a", required=True, type=user_path, help="first image")
    add("--b", required=True, type=user_path, help="second image, of the same size")
    add("--task", required=True, help=f"task of the edit: {', '.join(COMMAND_TASKS)}")
    add("--dimension", required=True, help=f"dimension to judge: {', '.join(Dimension)}")
    add("--mask", type=user_path, help="mask of the edit, white where edited; if the judge asks")
    add("--source", type=user_path, help="the picture before the edit; if the judge asks for it")
    add("--prompt", default="", help="prompt of the edit; required for text_alignment")
    return options


def run(options: argparse.Namespace) -> None:
    """Prints P("Yes") of both orders, and what they say together.

    Raises:
      FileNotFoundError, ValueError: as `Judge`.
    """
    a, b = read_picture(options.a), read_picture(options.b)
    judge = Judge.from_pretrained(options.model)
    a_first, b_first = judge.score(
        [a, b],
        [b, a],
        task=options.task,
        dimension=options.dimension,
        prompt=options.prompt,
        masks=options.mask,
        sources=options.source,
    )
    print(f"P(Yes), a before b: {a_first:.4f}")
    print(f"P(Yes), b before a: {b_first:.4f}")
    print(verdict(float(a_first), float(b_first)))


def verdict(a_first: float, b_first: float) -> str:
    """Which picture is better, by the mean of both orders; P("Yes") of a and of b as the first."""
    preferred = preference(a_first, b_first)
    better, probability = ("a", preferred) if preferred >= 0.5 else ("b", 1.0 - preferred)
    sure = "" if (a_first > 0.5) != (b_first > 0.5) else "; the two orders contradict each other"
    return f"{better} is better: {probability:.4f}, the mean of both orders{sure}"


def preference(a_first: float, b_first: float) -> float:
    """The probability that a is better: the mean of both orders."""
    return (a_first + 1.0 - b_first) / 2.0


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
