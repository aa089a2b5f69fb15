"""What is done again and again beside the main thread."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def call_periodically(call: Callable[[], None], seconds: float, name: str) -> Iterator[None]:
    """Calls `call` in a thread every so many seconds of the block, and once more at its end.

    What it raises in the thread is printed, since the next time may do better; what it raises at
    the end is raised, unless the block has raised something itself.

    Args:
      call: never called twice at the same time.
      seconds: between two calls.
      name: of the thread, and in messages.
    """
    ended = threading.Event()

    def again_and_again() -> None:
        while not ended.wait(seconds):
            try:
                call()
            except Exception as error:  # noqa: BLE001  # see above
                print(f"{name}: not done now, but later: {error}", file=sys.stderr, flush=True)

    thread = threading.Thread(target=again_and_again, name=name, daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        ended.set()
        thread.join()
        try:
            call()
        except Exception as error:  # noqa: BLE001  # what the block raised tells more
            print(f"{name}: not done at the end: {error}", file=sys.stderr, flush=True)
        raise
    ended.set()
    thread.join()
    call()
