"""Which functions are compiled, as jax itself reports it."""

import contextlib
from collections.abc import Iterator

import jax

EVENT = "/jax/core/compile/backend_compile_duration"


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """The functions compiled inside, by name as in `jit(step)`; also for another sharding."""
    names = []

    def listen(event: str, seconds: float, **about: str) -> None:
        if event == EVENT:
            names.append(about["fun_name"])

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
