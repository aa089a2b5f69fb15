"""Serves the questions of a run while the stage `annotate` waits for answers (`annotate.by="web"`).

The server runs in a thread of this process. A signal ends it between two requests; every answer
that was acknowledged is in the database.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from onereward_jax.chain.stage import StageContext
from onereward_jax.parallel.preemption import stop_points
from onereward_jax.parallel.progress import announce, progress_bar
from onereward_jax.stages.people_answers import require_database, web_settings

POLL_SECONDS = 1.0
"""How often answers are counted, at most; a tenth of the time at most is spent on it."""

FAREWELL_SECONDS = 3.0
"""How long the pages are served after the last answer, so that they can say that all is done."""


def check_web(context: StageContext) -> None:
    """Checks `config.annotate.web` before the chain starts.

    Raises:
      ValueError: the database cannot be used, or the guidelines have a file of no dimension.
      FileNotFoundError: the gold answers or the guidelines do not exist.
      ModuleNotFoundError: the extra `people` is not installed.
    """
    from onereward_jax.annotation.server import check_server

    folders = context.folders
    if folders.keeps_lines:
        require_database(context.config, folders.place(context.workdir))
    check_server(web_settings(context.config, context.workdir, run_name(context)))


def run_name(context: StageContext) -> str:
    """The work folder as the database knows it."""
    if context.folders.copy is not None:
        return context.folders.place(context.workdir)
    return str(context.workdir.resolve())


def serve_until(context: StageContext, total: int, count: Callable[[], tuple[int, bool]]) -> None:
    """Serves the questions until there are enough answers.

    Args:
      context: context of the stage, in a run of a single process.
      total: number of questions.
      count: reads the answers; returns how many questions are answered, and whether that is enough.

    Raises:
      ValueError: the port or the database cannot be used.
      Stopped: after a signal.
    """
    from onereward_jax.annotation.server import first_link, serving, traffic_warning

    settings = web_settings(context.config, context.workdir, run_name(context))
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stop_points("annotate", alone=True))
        stop.if_asked("before its questions are served")  # from here on signals wait
        server = stack.enter_context(serving(settings))
        if warning := traffic_warning(settings):
            announce(warning)
        changes = server.changes()
        answered, enough = count()
        announce(f"annotate: {answered} of {total} questions are answered; the rest is asked at")
        announce(f"  {first_link(server) or server.address}")
        announce(
            "links for others: onereward people token "
            f"--workdir={context.folders.place(context.workdir)} --name=..."
        )
        with progress_bar("annotate", total, initial=answered, unit="question") as bar:
            pause = POLL_SECONDS
            while not enough:
                time.sleep(pause)
                stop.if_asked(f"at {bar.n} of {total} questions")
                now = server.changes()
                if now == changes:
                    continue
                started, changes = time.monotonic(), now
                answered, enough = count()
                bar.update(answered - bar.n)
                pause = max(POLL_SECONDS, 9.0 * (time.monotonic() - started))
        time.sleep(FAREWELL_SECONDS)
