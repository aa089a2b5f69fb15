"""What a process does in test_stopping.py: stop_program.py <scenario>."""

import hashlib
import signal
import sys
import time

from onereward_jax.common.user_errors import TRY_AGAIN, Stopped
from onereward_jax.parallel.preemption import before_leaving, hearing_signals, now_at, stop_points


def one_long_piece() -> None:
    """A minute and more outside of Python, as in XLA: no handler runs in the main thread."""
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)


def main(scenario: str) -> None:
    """Ends as `main.py` does."""
    now_at("export")
    before_leaving(lambda: print("lock released", flush=True))
    if scenario == "one long piece":
        print("at work", flush=True)
        one_long_piece()
        return
    with stop_points("embed") as stop:
        for unit in range(600):
            if scenario == "long units" and unit:
                print("at work", flush=True)
                one_long_piece()
            time.sleep(0.02)
            if unit == 2:
                print("at work", flush=True)
            print("kept", unit, flush=True)
            stop.if_asked(f"at {unit + 1} of 600 prompts")


if __name__ == "__main__":
    # A shell has what it runs in the background ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with hearing_signals():
            main(sys.argv[1])
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(TRY_AGAIN)
