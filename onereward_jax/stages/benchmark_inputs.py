"""What the stage `benchmark` compares: the folders and editors of `config.benchmark`."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

from ml_collections import FrozenConfigDict

from onereward_jax.chain import fingerprints
from onereward_jax.chain.allowed_values import EDITOR
from onereward_jax.chain.stage import StageContext
from onereward_jax.chain.staleness import Effect
from onereward_jax.convert import is_adapter, resolve_weights
from onereward_jax.data.picture_files import SUFFIXES, files_below
from onereward_jax.stages.compared_editors import PIPELINE_INDEX, named_editors

FOLDERS, EDITORS, JUDGE = (f"config.benchmark.{name}" for name in ("folders", "editors", "judge"))

BASE, POLICY = "base", "policy"
OWN = "own"
"""`config.benchmark.judge`: the judge of the stage reward."""


@dataclasses.dataclass(frozen=True)
class ComparedEditor:
    """An editor of a benchmark.

    Attributes:
      name: its name in tables.
      transformer: folder or file of a transformer; None: that of the base.
      adapter: file or folder of an adapter of the base; None: none.
      pipeline: folder of a whole editor; None: that of the base.
      pictures: folder of finished pictures from elsewhere; None: they are made here.
    """

    name: str
    transformer: Path | None = None
    adapter: Path | None = None
    pipeline: Path | None = None
    pictures: Path | None = None

    @functools.cached_property
    def finished(self) -> FinishedPictures:
        """The pictures from elsewhere."""
        return FinishedPictures(self.pictures, tuple(files_below(self.pictures, SUFFIXES)))


@dataclasses.dataclass(frozen=True)
class FinishedPictures:
    """Pictures from elsewhere: <benchmark>/<row>.png, <row>.png, or a row's name without folders.

    Attributes:
      folder: the folder.
      names: paths below it.
    """

    folder: Path
    names: tuple[str, ...]

    def find(self, benchmark: str, row: str) -> Path | None:
        """The picture of a row; None if there is none.

        Raises:
          ValueError: there are several.
        """
        for stem in (f"{benchmark}/{row}", row):
            if len(found := self._by_stem.get(stem, [])) > 1:
                raise ValueError(f"{self.folder} has {' and '.join(found)}: keep one of them")
            if found:
                return self.folder / found[0]
        found = self._by_last.get(row.rpartition("/")[2], [])
        return self.folder / found[0] if len(found) == 1 else None

    @functools.cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return _grouped((name.rpartition(".")[0], name) for name in self.names)

    @functools.cached_property
    def _by_last(self) -> dict[str, list[str]]:
        return _grouped((Path(name).stem, name) for name in self.names)


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, name in pairs:
        found.setdefault(key, []).append(name)
    return found


def named_folders(config: FrozenConfigDict) -> dict[str, str]:
    """Name -> folder, with the part behind a colon if there is one.

    Raises:
      ValueError: a name occurs twice, or there is none.
    """
    found: dict[str, str] = {}
    for entry in config.benchmark.folders:
        name, path = EDITOR.fullmatch(entry).groups()
        if name in found:
            raise ValueError(f"{FOLDERS}: there are two benchmarks named {name!r}")
        found[name] = path
    if not found:
        raise ValueError(f"{FOLDERS} is empty: name the benchmarks, as in ('photos=/data/photos',)")
    return found


def compared_editors(config: FrozenConfigDict) -> list[ComparedEditor | str]:
    """The editors in order; "base" and "policy" as these words.

    Raises:
      ValueError: there is none, a name occurs twice, or a folder has neither weights nor pictures.
      FileNotFoundError: there is no such folder.
    """
    entries = config.benchmark.editors
    if not entries:
        raise ValueError(f"{EDITORS} is empty: name at least one editor")
    others = [entry for entry in entries if entry not in (BASE, POLICY)]
    named = {}
    for one in named_editors(others, EDITORS, pipelines=True):
        if one.finished:
            named[one.name] = ComparedEditor(one.name, pictures=one.folder)
        elif (one.folder / PIPELINE_INDEX).is_file():
            named[one.name] = ComparedEditor(one.name, pipeline=one.folder)
        else:
            named[one.name] = trained_editor(one.name, one.folder)
    if len(set(entries)) < len(entries):
        raise ValueError(f"{EDITORS}: an editor is named twice")
    return [
        entry if entry in (BASE, POLICY) else named[EDITOR.fullmatch(entry)[1]] for entry in entries
    ]


def trained_editor(name: str, folder: Path) -> ComparedEditor:
    """An editor of the base with another transformer or an adapter."""
    kind = "adapter" if is_adapter(folder) else "transformer"
    return ComparedEditor(name, **{kind: folder})


def opened_editors(context: StageContext) -> list[ComparedEditor]:
    """The editors in order, with the run's policy.

    Raises:
      FileNotFoundError, ValueError: as `compared_editors`.
    """
    policy = context.output("rl") / context.config.evaluate.weights
    own = {BASE: ComparedEditor(BASE), POLICY: trained_editor(POLICY, policy)}
    return [own[one] if isinstance(one, str) else one for one in compared_editors(context.config)]


def read_stages(config: FrozenConfigDict) -> dict[str, Effect]:
    """The stages whose output is compared or asked; see `Stage.reads_also`."""
    if "benchmark" not in config:
        return {}
    found = {}
    if POLICY in config.benchmark.editors:
        found["rl"] = Effect.UPDATES
    if config.benchmark.judge == OWN and "reward" in config.stages:
        found["reward"] = Effect.UPDATES
    return found


def digest_of_folders(config: FrozenConfigDict, workdir: Path) -> str:
    """Fingerprint of the rows of the benchmarks, with all pictures that they name."""
    # Late: it takes Pillow along, which no other stage's entry needs.
    from onereward_jax.stages.benchmark.read_benchmarks import read_benchmarks

    told = [
        f"{one.name} {row.name} {row.digest()}"
        for one in read_benchmarks(config)
        for row in one.rows
    ]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def digest_of_compared(config: FrozenConfigDict, workdir: Path) -> str:
    """Fingerprint of the editors beside the run's, by content."""
    told = []
    for one in compared_editors(config):
        if isinstance(one, str):
            told.append(one)
        elif one.pictures is not None:
            told.append(f"{one.name}={fingerprints.of_folder(one.pictures)}")
        else:
            weights = one.transformer or one.adapter or one.pipeline
            told.append(f"{one.name}={fingerprints.of_model(weights)}")
    return " ".join(told)


def digest_of_judge(config: FrozenConfigDict, workdir: Path) -> str:
    """Fingerprint of the judge, if it is not the run's."""
    name = config.benchmark.judge
    if name in ("", OWN):
        return name or fingerprints.NONE
    return fingerprints.of_model(resolve_weights(name, JUDGE))
