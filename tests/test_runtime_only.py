"""The stages need nothing but the runtime dependencies, unless the data is the mini world."""

import os
import pathlib
import subprocess
import sys

import runtime_only

from onereward_jax.stages import STAGES

TESTS = pathlib.Path(__file__).parent


def under_runtime_only(script):
    """What a script prints in an environment without extras."""
    prologue = "import runtime_only; runtime_only.block_everything_else()\n"
    done = subprocess.run(
        [sys.executable, "-c", prologue + script],
        cwd=TESTS.parent,
        env=os.environ | {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_extras_and_test_tools_are_neither_importable_nor_listed():
    """Without this the next test would prove nothing."""
    script = """
import importlib.metadata, importlib.util
names = ("skimage", "sklearn", "rapidocr", "onnxruntime", "torch", "pytest", "matplotlib", "scipy")
print(*[name for name in names if importlib.util.find_spec(name)])
print("torch" in {one.metadata["Name"] for one in importlib.metadata.distributions()})
"""
    assert under_runtime_only(script) == ["matplotlib", "scipy", "False"]
    assert {"jaxlib", "numpy", "etils"} < runtime_only.runtime_closure()
    assert not {"torch", "scikit-image"} & runtime_only.runtime_closure()


def test_every_stage_is_imported_without_extras_and_without_the_oracle():
    modules = ["onereward_jax.main", *(f"onereward_jax.stages.{stage.name}" for stage in STAGES)]
    script = f"""
import importlib, sys
for name in {modules}:
    importlib.import_module(name)
print(*[name for name in sys.modules if name.startswith("onereward_jax.mini")])
"""
    assert under_runtime_only(script) == []
