"""Runs a module as if only the runtime dependencies of setup.py were installed.

    python tests/runtime_only.py onereward_jax.main --config=... --workdir=...

Every other distribution of the environment (extras, test tools) can neither be imported nor be
found by `importlib.metadata`, as on a host that `pip install onereward_jax` has set up.
"""

import ast
import importlib.machinery
import importlib.metadata
import pathlib
import re
import runpy
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]


def normalized(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(name: str = "RUNTIME") -> list[str]:
    """One of the lists of setup.py, read from there: what is installed may be older."""
    for statement in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(statement, ast.Assign) and statement.targets[0].id == name:
            return ast.literal_eval(statement.value)
    raise LookupError(f"setup.py has no {name}")


def runtime_closure() -> set[str]:
    """Normalized names of what pip would install for `RUNTIME`, its dependencies included."""
    from packaging.requirements import Requirement

    waiting, seen = [(Requirement(line), "") for line in requirements()], set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        for wanted in ("", *requirement.extras):
            one = normalized(requirement.name), wanted
            if one in seen:
                continue
            seen.add(one)
            try:
                needs = importlib.metadata.requires(requirement.name) or []
            except importlib.metadata.PackageNotFoundError:
                continue  # needed elsewhere only, or missing: the import will say so
            waiting += [(Requirement(line), wanted) for line in needs]
    return {name for name, _ in seen}


def modules_of(distribution: importlib.metadata.Distribution) -> set[str]:
    """Its modules as dotted names of one or two parts: several may share `google` or `nvidia`."""
    found = set()
    for file in distribution.files or ():
        parts = file.parts
        if parts[0] == ".." or parts[0].endswith((".dist-info", ".egg-info", ".pth")):
            continue
        names = [part.split(".")[0] for part in parts[:2]]
        if all(name.isidentifier() for name in names):
            found |= {names[0], ".".join(names)}
    return found


class _Finder:
    """A finder of `sys.meta_path` that does not see what is blocked."""

    def __init__(self, finder: object, allowed: set[str], blocked: set[str]) -> None:
        self._finder, self._allowed, self._blocked = finder, allowed, blocked

    def __getattr__(self, name: str) -> object:
        return getattr(self._finder, name)

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        """None for a module of a blocked distribution."""
        if ".".join(name.split(".")[:2]) in self._blocked or name.split(".")[0] in self._blocked:
            return None
        return self._finder.find_spec(name, path, target)

    def find_distributions(self, context: object = None) -> list:
        """The runtime's alone."""
        find = getattr(self._finder, "find_distributions", lambda *_: ())
        found = find(context or importlib.metadata.DistributionFinder.Context())
        return [one for one in found if normalized(one.metadata["Name"]) in self._allowed]


def block_everything_else() -> None:
    """From now on only the standard library, RUNTIME with what it needs, and this project."""
    allowed = runtime_closure() | {"onereward-jax"}
    kept, others = set(), set()
    for distribution in importlib.metadata.distributions():
        inside = normalized(distribution.metadata["Name"]) in allowed
        (kept if inside else others).update(modules_of(distribution))
    blocked = others - kept
    for name in [name for name in sys.modules if name.split(".")[0] in blocked]:
        del sys.modules[name]
    sys.meta_path[:] = [
        finder
        if finder in (importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter)
        else _Finder(finder, allowed, blocked)
        for finder in sys.meta_path
    ]


if __name__ == "__main__":
    block_everything_else()
    sys.argv = sys.argv[1:]
    sys.path[0] = ""
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
