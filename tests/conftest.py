"""Eight virtual CPU devices and run-time shape checks for every test."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax
import pytest
from jaxtyping import install_import_hook

DEVICES = 8
_checked = install_import_hook("onereward_jax", "beartype.beartype")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Fail, never skip, when the virtual devices are missing."""
    if jax.device_count() != DEVICES:
        found = jax.device_count()
        pytest.exit(f"tests need {DEVICES} virtual devices, found {found}", returncode=3)
