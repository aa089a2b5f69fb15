"""A run's comparisons, to be exported: triplets, candidates with their settings, and answers."""

from __future__ import annotations

import io
import itertools
import pathlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from onereward_jax.annotation import Candidate, Preference, PreferenceStore
from onereward_jax.annotation.comparisons import Judgement
from onereward_jax.annotation.given_comparisons import Given, Row
from onereward_jax.annotation.given_pictures import GivenPicture, picture_in
from onereward_jax.annotation.picture_digests import source_digest
from onereward_jax.chain.saved_command import read_command
from onereward_jax.common.config_files import load_config
from onereward_jax.data.example import SPLITS, RowError
from onereward_jax.data.triplets import Triplets
from onereward_jax.parallel.progress import announce
from onereward_jax.stages.preference_stores import LINES, STORE
from onereward_jax.storage import local_path
from onereward_jax.tasks import TASKS

if TYPE_CHECKING:
    from onereward_jax.exchange.options import Source

PLACES = ("triplet_id", "picture", "digest")
"""Fields of a candidate that a comparison has elsewhere; the others are its settings."""


def open_run(workdir: str) -> Source:
    """The comparisons of the run in `workdir`, a folder or gs://bucket/path.

    Answers are those of the stage `annotate`; before it is complete there are none.

    Raises:
      FileNotFoundError: there is no run, or it has no candidates yet.
    """
    from onereward_jax.exchange.options import Source

    top = local_path(workdir)
    candidates = _records(top / "candidates").candidates() if top.is_dir() else []
    if not candidates:
        raise FileNotFoundError(f"--workdir: {workdir} has no output of the stage candidates")
    store = _records(top / "annotate")
    preferences = store.preferences()
    if not preferences:
        announce(f"{workdir} has no answers yet (stage annotate): only comparisons are exported")
    triplets = {split: _triplets(workdir, top, split) for split in SPLITS}
    groups = [list(group) for _, group in itertools.groupby(candidates, lambda c: c.triplet_id)]
    rows = _rows(top / "candidates", groups, preferences, triplets)
    return Source(rows, len(groups), origin={"format": "run", "from": top.name})


def _records(folder: pathlib.Path) -> PreferenceStore:
    """A copy in memory of the store of a stage, empty if there is none; the run is not touched."""
    store = PreferenceStore(":memory:")
    if (folder / STORE).is_file():
        with PreferenceStore(folder / STORE) as found:
            store.add_candidates(found.candidates())
            store.add_preferences(found.preferences())
    elif (folder / LINES).is_file():  # in a bucket
        store.import_jsonl(folder / LINES)
    return store


def _triplets(workdir: str, top: pathlib.Path, split: str) -> Triplets:
    if any((top / "data").rglob("features.json")):
        return Triplets(top / "data", split)
    # config.data.source = "tfds": the data set stays where it is.
    command = read_command(workdir)
    path = load_config(command.config).data.path
    for flag in command.overrides:
        if flag.lstrip("-").startswith("config.data.path="):
            path = flag.partition("=")[2]
    return Triplets(local_path(path, again=False), split, index=top / "data")


def _rows(
    folder: pathlib.Path,
    groups: list[list[Candidate]],
    preferences: list[Preference],
    triplets: Mapping[str, Triplets],
) -> Iterator[Row]:
    answers: dict[str, list[Preference]] = {}
    for one in preferences:
        answers.setdefault(one.triplet_id, []).append(one)
    places = {
        f"{split}/{name}": (split, row)
        for split, found in triplets.items()
        for row, name in enumerate(found.column("id"))
    }
    prompts = {split: found.column("prompt") for split, found in triplets.items()}
    photos = {split: found.column("photo") for split, found in triplets.items()}
    # A photograph is named by the first of its triplets, whose names are digests: file names such
    # as 0.png are those of other photographs in another run.
    sources: dict[str, str] = {}
    for split, found in triplets.items():
        for name, photo in zip(found.column("id"), photos[split]):
            sources[photo] = min(name, sources.get(photo, name))
    for group in groups:
        name = group[0].triplet_id
        if name not in places:  # left over from earlier data
            continue
        split, row = places[name]
        task = TASKS[triplets[split].tasks[row]]
        pixels = triplets[split].read(row, ("image", "mask"))
        try:
            if source_digest(pixels["image"], pixels["mask"]) != group[0].source_digest:
                raise RowError("its candidates were made from another image or mask")
            given = Given(
                task=task,
                prompt=prompts[split][row],
                split=split,
                id=name,
                source=sources[photos[split][row]],
                image=_encoded("image.png", pixels["image"]),
                mask=_encoded("mask.png", pixels["mask"][..., 0]),
                candidates=tuple(picture_in(folder, "picture", one.picture) for one in group),
                settings=tuple(_settings(one) for one in group),
                answers=tuple(_judgement(one, group) for one in answers.get(name, ())),
            )
        except RowError as error:
            yield Row(name, error)
        else:
            yield Row(name, given)


def _encoded(name: str, pixels: np.ndarray) -> GivenPicture:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=3)
    return GivenPicture(name, file.getvalue)


def _settings(one: Candidate) -> dict[str, object]:
    return {name: value for name, value in vars(one).items() if name not in PLACES}


def _judgement(one: Preference, group: list[Candidate]) -> Judgement:
    place = {candidate.index: number for number, candidate in enumerate(group)}
    decided = one.winner is not None
    return Judgement(
        dimension=one.dimension,
        best=place[one.winner] if decided else None,
        worst=place[one.loser] if decided else None,
        annotator=one.annotator,
        answered_at=one.answered_at,
        seconds=one.seconds,
    )
