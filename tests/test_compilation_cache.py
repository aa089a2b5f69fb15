"""Compiled programs are kept between processes, and nothing depends on whether they are."""

import os
import pathlib
import subprocess
import sys

import pytest

import onereward_jax

ROOT = pathlib.Path(onereward_jax.__file__).parents[1]

PROGRAM = """
import sys
import jax, jax.numpy as jnp
from jax import monitoring
from onereward_jax.parallel import batch_sharding, make_mesh, mesh_jit
from onereward_jax.parallel.compilation_cache import use_compilation_cache

hits = []
monitoring.register_event_listener(
    lambda event, **_: hits.append(event) if event.endswith("/cache_hits") else None
)
complaint = use_compilation_cache(*sys.argv[1:])
mesh = make_mesh(2, 4, 1)
@jax.jit
def start():
    return jax.random.normal(jax.random.key(0), (8, 64))
step = mesh_jit(lambda x: jnp.tanh(x @ (x.T @ x)), mesh, donate_argnums=0,
    in_shardings=batch_sharding(mesh), out_shardings=batch_sharding(mesh))
x = jax.device_put(start(), batch_sharding(mesh))
for _ in range(3):
    x = step(x)
print(jax.device_get(x).tobytes().hex()[:400], len(hits), complaint)
"""


def run(*arguments, **environment):
    """(digits of the result, programs from the cache, complaint) of a process of 8 devices."""
    own = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    inherited = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    outcome = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        cwd=ROOT,
        env=inherited | own | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    digits, hits, complaint = outcome.stdout.split(maxsplit=2)
    return digits, int(hits), complaint.strip()


@pytest.fixture(scope="module")
def reference():
    return run("")


def test_a_second_process_compiles_nothing_and_computes_the_same(reference, tmp_path):
    assert reference[1:] == (0, "None")
    first, second = run(tmp_path / "c"), run(tmp_path / "c")
    assert first == reference
    assert second[0] == reference[0] and second[1] > 0


def test_a_torn_entry_is_compiled_anew(reference, tmp_path):
    """As a process leaves it that was killed while it wrote."""
    run(tmp_path)
    for entry in tmp_path.rglob("*-cache"):
        entry.write_bytes(entry.read_bytes()[:50])
    assert run(tmp_path)[0] == reference[0]


def test_settings_of_jax_come_first_and_a_bad_folder_is_no_reason_to_stop(reference, tmp_path):
    run(tmp_path / "ours", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "theirs"))
    assert list((tmp_path / "theirs").iterdir()) and not (tmp_path / "ours").exists()
    run(tmp_path / "none", JAX_ENABLE_COMPILATION_CACHE="false")
    assert not list(tmp_path.glob("none/*/*"))
    (tmp_path / "file").write_text("")
    digits, _, complaint = run(tmp_path / "file")
    assert digits == reference[0] and complaint.startswith("compiled programs are not kept: ")
