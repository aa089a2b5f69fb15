"""A function called periodically in a background thread."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def call_periodically(call: Callable[[], None], seconds: float, name: str) -> Iterator[None]:
    """Calls `call` in a background thread every `seconds`, and once more when the block ends.

    Errors in the thread are printed, because the next call may succeed. An error of the last call
    is raised, unless the block itself raised.

    Args:
      call: calls never overlap.
      seconds: between two calls.
      name: name of the thread, also used in messages.
    """
    ended = threading.Event()

    def call_until_ended() -> None:
        while not ended.wait(seconds):
            try:
                call()
            except Exception as error:  # noqa: BLE001  # see above
                print(f"{name}: failed, will retry: {error}", file=sys.stderr, flush=True)

    thread = threading.Thread(target=call_until_ended, name=name, daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        ended.set()
        thread.join()
        try:
            call()
        except Exception as error:  # noqa: BLE001  # the block's own error matters more
            print(f"{name}: failed at the end: {error}", file=sys.stderr, flush=True)
        raise
    ended.set()
    thread.join()
    call()
