"""Eight virtual CPU devices and run-time shape checks for every test; which tests are long."""

import collections
import importlib.metadata
import os
import pathlib
import tempfile
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
# XLA aborts when a device comes 40 s late to a collective, which on a busy machine is no mistake.
# Tests compile much and compute little: code that is not optimised is there in half the time.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    " --xla_cpu_collective_call_terminate_timeout_seconds=600"
    " --xla_backend_optimization_level=0"
)
# The older emitters of fusions compile in half of that, in half of the memory. XLA aborts for a
# flag that it does not know, and jax 0.12 has no such emitters.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

import jax
import pytest
from jaxtyping import install_import_hook

# Commands that tests start share what they compile, and leave nothing in the home of the user.
# JAX is imported: the test process itself compiles everything anew.
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers have the variable from where they started
    _compiled = tempfile.TemporaryDirectory()
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name

DEVICES = 8
_checked = install_import_hook("onereward_jax", "beartype.beartype")

from gcs_server import bucket, gcs  # noqa: F401
from postgresql_server import postgresql  # noqa: F401

LONG = (
    "test_real_run.py",
    "test_examples.py",
    "test_rl_step.py",
    "test_chain.py",
    "test_rl_lora.py",
    "test_offline_methods.py",
    "test_hosts.py",
    "test_pretrain_steps.py",
    "test_rewards.py",
    "test_stage_inputs.py",
    "test_sharding.py",
    "test_policy_editor.py",
    "test_inference_editor.py",
    "test_export.py",
    "test_flux.py",
    "test_training_sizes.py",
    "test_lora.py",
    "test_reward_step.py",
    "test_scorer.py",
    "test_docs.py",
    "test_generate.py",
    "test_attention.py",
    "test_vae.py",
    "test_training_loop.py",
    "test_curate.py",
    "test_candidates_stage.py",
    "test_bucket_run.py",
    "test_compilation_cache.py",
    "test_people_page.py",
    "test_question_page.py",
    "test_broken_folders.py",
    "test_int8.py",
    "test_rollout_int8.py",
    "test_train_compile.py",
    "test_stopping.py",
    "test_edit_server.py",
    "test_commands.py",
    "test_people_leases.py",
    "test_people_run.py",
    "test_people_kills.py",
    "test_people_bucket.py",
)
"""Files of more than ten seconds of processor time, the longest first.

They begin, so that no process is left alone with one of them at the end, and `--fast` leaves them
out. A test that it runs and that takes longer than `FAST` is named at the end.
"""
FAST = 5.0
"""Seconds that a test of the inner loop may take."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The inner loop."""
    parser.addoption("--fast", action="store_true", help="leave out LONG of tests/conftest.py")


def pytest_ignore_collect(collection_path: pathlib.Path, config: pytest.Config) -> bool | None:
    """What takes long is not even imported by `--fast`."""
    return True if config.option.fast and collection_path.name in LONG else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONG)))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Names what does not belong in the inner loop."""
    if not config.option.fast:
        return
    seconds = collections.Counter()
    for report in terminalreporter.stats.get("", []) + terminalreporter.stats.get("passed", []):
        seconds[report.nodeid] += report.duration
    for name, taken in seconds.most_common():
        if taken > FAST:
            terminalreporter.write_line(f"{taken:.0f} s: {name}, too long for --fast")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Fail, never skip, when the virtual devices are missing."""
    from onereward_jax.parallel.cpu_threads import set_cpu_threads

    set_cpu_threads()
    if jax.device_count() != DEVICES:
        found = jax.device_count()
        pytest.exit(f"tests need {DEVICES} virtual devices, found {found}", returncode=3)


@pytest.fixture
def cudnn_to_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """`jax.nn.dot_product_attention(implementation="cudnn")` can be traced without a GPU.

    It asks for cuDNN's version while it is traced; `jax.export` and a described topology trace the
    same way, and no public name says which version to compile for.
    """
    version = "jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version"
    monkeypatch.setattr(version, lambda: 91000)
