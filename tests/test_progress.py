"""Progress bars: what they say while the first step is compiled, and how they know how long."""

import jax
import pytest

from onereward_jax.parallel.compilation_cache import add_first_seconds, usual_first_seconds
from onereward_jax.parallel.progress import progress_bar


@pytest.fixture
def cache(tmp_path):
    former = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", former)


def said(capsys):
    return capsys.readouterr().err.split("\r")


def test_a_bar_says_that_it_compiles_until_the_first_update(cache, capsys):
    for usual in ("under five minutes", "0 s"):
        with progress_bar("rl", 30, program="rl, an editor") as bar:
            assert f"compiling, usually {usual}" in said(capsys)[-1]
            bar.update()
            bar.refresh()
            assert "compiling" not in said(capsys)[-1]


def test_what_compiles_nothing_does_not_say_so(cache, capsys):
    with progress_bar("data", 30):
        pass
    with progress_bar("rl", 30, initial=30, program="rl"):
        pass
    assert "compiling" not in capsys.readouterr().err
    assert not list(cache.iterdir())


def test_the_usual_time_is_that_of_the_last_times_here(cache):
    for seconds in (500.0, 500.0, 500.0, 90.0, 94.0, 96.0, 8.0, 95.0):
        add_first_seconds("rl", seconds)
    assert usual_first_seconds("rl") == 94.0
    assert usual_first_seconds("reward") is None
    (cache / "first_seconds.json").write_text("torn {")
    assert usual_first_seconds("rl") is None


def test_without_a_cache_nothing_is_remembered(cache):
    jax.config.update("jax_compilation_cache_dir", None)
    add_first_seconds("rl", 8.0)
    assert usual_first_seconds("rl") is None
