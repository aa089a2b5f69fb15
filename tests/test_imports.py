"""The shape of the package: which layer may import which, and what no file may do."""

import ast
import importlib.metadata
import pathlib
import re
import subprocess
import sys

from runtime_only import normalized, requirements

import onereward_jax

PACKAGE = pathlib.Path(onereward_jax.__file__).parent
ROOT = PACKAGE.parent
MODULES = sorted(PACKAGE.rglob("*.py"))

LAYERS = (
    "mini",
    "rehearsal",
    "main",
    "train_compile",
    "serve_editor",
    "edit_server",
    "edit",
    "judge",
    "convert_weights",
    "people",
    "preferences",
    "stages",
    "chain",
    "exchange",
    "curation",
    "annotation",
    "evaluation",
    "training",
    "inference",
    "reward",
    "policy",
    "data",
    "convert",
    "models",
    "pictures",
    "storage",
    "parallel",
    "tasks",
    "task_file",
    "common",
)
"""From top to bottom: a layer imports itself and the layers below it."""

FOREIGN = ("torch", "diffusers", "tensorflow")
"""Needed by tests and benchmarks, never by the package."""

MINI_WORLD = "onereward_jax.mini"
"""What alone may use the extra `mini`, beside `OCR`."""

OCR = "onereward_jax.evaluation.word_reading"
"""May use its OCR, where it is installed."""

PEOPLE = (
    "onereward_jax.annotation.server",
    "onereward_jax.curation",
    "onereward_jax.data.parquet_rows",
    "onereward_jax.edit_server",
    "onereward_jax.exchange",
)
"""What may use the extra `people`; stages and commands import these inside functions."""

PRIVATE = "onereward_jax.parallel.jax_internals"
"""What alone may import what another package keeps private."""

EMPTY_NAMES = ("util", "utils", "helper", "helpers", "misc", "base", "common_utils")
LONGEST_FILE = 400


def dotted_name(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(path: pathlib.Path, in_functions: bool = False) -> set[str]:
    """Every module a file imports, also inside functions or only there."""
    names, tree = set(), ast.parse(path.read_text())
    nodes = list(ast.walk(tree))
    if in_functions:
        functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
        nodes = [node for function in functions for node in ast.walk(function)]
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            # `from onereward_jax import tasks` imports the module onereward_jax.tasks.
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def layer(name: str) -> str | None:
    """The layer of a dotted module name; None for the package itself and for other packages."""
    parts = name.split(".")
    return parts[1] if parts[0] == "onereward_jax" and len(parts) > 1 else None


def public_definitions(tree: ast.Module) -> list[ast.AST]:
    """The module, its public functions and classes, and the public methods of the latter."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    found, classes = [tree], [tree]
    while classes:
        for node in classes.pop().body:
            if isinstance(node, kinds) and not node.name.startswith("_"):
                found.append(node)
                if isinstance(node, ast.ClassDef):
                    classes.append(node)
    return found


def test_imports_point_down_the_layers():
    upward = []
    for path in MODULES:
        own = layer(dotted_name(path))
        if own is None:
            continue
        assert own in LAYERS, f"{path}: {own} is not a layer of the package"
        for name in imported_names(path):
            other = layer(name)
            if other in LAYERS and LAYERS.index(other) < LAYERS.index(own):
                upward.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not upward, "\n".join(upward)


def test_nothing_outside_the_mini_world_imports_it():
    """Configs name its plug-ins, as they would name yours."""
    importers = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in MODULES
        for name in imported_names(path)
        if name.startswith(MINI_WORLD) and not dotted_name(path).startswith(MINI_WORLD)
    ]
    assert not importers, "\n".join(importers)


def test_no_file_of_the_package_names_torch_or_tensorflow():
    foreign = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (*MODULES, *(ROOT / "configs").glob("*.py"))
        for name in imported_names(path)
        if name.split(".")[0] in FOREIGN
    ]
    assert not foreign, "\n".join(foreign)


def test_private_modules_of_other_packages_are_imported_in_one_file():
    private = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in MODULES
        for name in imported_names(path)
        if "_src" in name.split(".") and dotted_name(path) != PRIVATE
    ]
    assert not private, "\n".join(private)


def test_every_package_imported_is_declared_in_setup_py():
    """RUNTIME outside functions, WANDB, GCS, GGUF inside too; MINI and PEOPLE where they belong."""
    distributions = importlib.metadata.packages_distributions()
    runtime, mini, people, wandb, gcs, gguf = (
        {normalized(re.split(r"[\[<>=]", line)[0]) for line in requirements(name)}
        for name in ("RUNTIME", "MINI", "PEOPLE", "WANDB", "GCS", "GGUF")
    )
    undeclared = []
    for path in MODULES:
        outside = runtime | (people if dotted_name(path).startswith(PEOPLE) else set())
        inside = outside | wandb | gcs | gguf
        inside |= mini if dotted_name(path).startswith((MINI_WORLD, OCR)) else set()
        everywhere = imported_names(path)
        for name, declared in (
            *((name, inside) for name in everywhere),
            *((name, outside) for name in everywhere - imported_names(path, in_functions=True)),
        ):
            package = name.split(".")[0]
            if package == "onereward_jax" or package in sys.stdlib_module_names:
                continue
            if not {normalized(one) for one in distributions.get(package, [package])} & declared:
                undeclared.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not undeclared, "\n".join(undeclared)


def test_importing_everything_loads_neither_torch_nor_tensorflow():
    # A `__main__` defines the flags of its command, some of which `main` has too.
    names = [dotted_name(path) for path in MODULES if path.stem != "__main__"]
    script = (
        "import importlib, sys\n"
        f"for name in {names}: importlib.import_module(name)\n"
        f"print(*sorted(set({FOREIGN}) & set(sys.modules)))"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.split() == []


def test_files_are_short_and_their_names_say_something():
    paths = [*MODULES, *(p for f in ("tests", "configs") for p in (ROOT / f).glob("*.py"))]
    long = [path for path in paths if len(path.read_text().splitlines()) > LONGEST_FILE]
    assert not long, f"more than {LONGEST_FILE} lines: {long}"
    empty = [
        path for path in MODULES if path.stem in EMPTY_NAMES or path.parent.name in EMPTY_NAMES
    ]
    assert not empty, f"names that say nothing: {empty}"


def test_public_definitions_have_docstrings():
    silent = [
        f"{path.relative_to(ROOT)}: {getattr(node, 'name', 'the module itself')}"
        for path in MODULES
        for node in public_definitions(ast.parse(path.read_text()))
        # What Linen's `setup` does is known.
        if ast.get_docstring(node) is None and getattr(node, "name", "") != "setup"
    ]
    assert not silent, "\n".join(silent)


def test_folders_export_names_and_define_nothing():
    for path in PACKAGE.rglob("__init__.py"):
        for node in ast.parse(path.read_text()).body:
            allowed = isinstance(node, ast.Import | ast.ImportFrom | ast.Expr) or (
                isinstance(node, ast.Assign) and node.targets[0].id in ("__all__", "__version__")
            )
            # The package itself may import its exports late: they bring along every model.
            late = path.parent == PACKAGE and getattr(node, "name", "") == "__getattr__"
            assert allowed or late, f"{path}:{node.lineno} defines something"


def test_the_package_exports_editor_and_judge_without_importing_them_before_they_are_used():
    script = (
        "import sys, onereward_jax\n"
        "assert 'jax' not in sys.modules\n"
        "from onereward_jax import Editor, Judge\n"
        "print(Editor.__module__, Judge.__module__)\n"
        "onereward_jax.Edtior"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert outcome.stdout.split() == [
        f"onereward_jax.inference.{m}" for m in ("editor", "pairwise_judge")
    ]
    assert "AttributeError: module 'onereward_jax' has no attribute 'Edtior'" in outcome.stderr


def test_no_path_of_one_machine():
    text = "\n".join(path.read_text() for path in MODULES)
    assert not re.findall(r"[\"'](?:/home|/root|/tmp|/work|/mnt)/", text)
