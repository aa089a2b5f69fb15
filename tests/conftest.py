"""Eight virtual CPU devices and run-time shape checks for every test."""

import os
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
# XLA aborts when a device comes 40 s late to a collective, which on a busy machine is no mistake.
# Tests compile much and compute little: code that is not optimised is there in half the time.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    " --xla_cpu_collective_call_terminate_timeout_seconds=600"
    " --xla_backend_optimization_level=0"
)

import jax
import pytest
from jaxtyping import install_import_hook

# Commands that tests start share what they compile, and leave nothing in the home of the user.
# JAX is imported: the test process itself compiles everything anew.
_compiled = tempfile.TemporaryDirectory()
os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name

DEVICES = 8
_checked = install_import_hook("onereward_jax", "beartype.beartype")

from gcs_server import bucket, gcs  # noqa: F401


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
