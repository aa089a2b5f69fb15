"""Stage `curate`: chooses diverse pictures of a folder, and makes masks for them (Section 4.2).

CLIP embeddings, K-means, some pictures of each cluster; then a task, a mask and a prompt for each.

embeddings/          of all pictures, kept between runs
metadata.jsonl, images/, masks/   a data folder: config.data.path = "stage:curate"
list.jsonl           every picture: its cluster, and whether it is kept or why not
contact_sheet.html, sheet/   what was chosen and left out, to look at
"""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from onereward_jax.chain.base_models import made_by
from onereward_jax.chain.fingerprints import photograph_digests
from onereward_jax.chain.stage import Results, StageContext
from onereward_jax.common.listing import first_of
from onereward_jax.common.rng import generator
from onereward_jax.data.picture_files import only_pictures
from onereward_jax.data.row_files import METADATA
from onereward_jax.data.splits import split_of
from onereward_jax.parallel.preemption import stop_points
from onereward_jax.parallel.progress import announce, progress_bar
from onereward_jax.stages.curate_inputs import (
    buckets,
    check_folder,
    clip_folder,
    mask_settings,
    named,
    pictures_folder,
    read_notes,
)
from onereward_jax.stages.prompt_checks import check_prompts
from onereward_jax.stages.settings import compute_dtype
from onereward_jax.tasks import TASKS

if TYPE_CHECKING:
    from onereward_jax.curation.data_folder import ChosenPicture, Row
    from onereward_jax.curation.known import Notes
    from onereward_jax.curation.selection import Decision

T, U = TypeVar("T"), TypeVar("U")

LIST = "list.jsonl"
THREADS = min(16, os.cpu_count() or 1)


def check(context: StageContext) -> None:
    """Checks the section `curate` and the files that it names; decodes no picture.

    Raises:
      ValueError: listing all errors; or packages are missing.
    """
    _check_extra()
    from onereward_jax.curation.clip_embedder import read_clip_folder

    config, problems = context.config, []
    names = named(problems, "config.curate.pictures", check_folder, config, context.workdir)
    folder = named(problems, "config.curate.clip", clip_folder, config)
    if folder is not None:
        named(problems, "config.curate.clip", read_clip_folder, folder)
    named(problems, "config.data", buckets, config)
    named(problems, "config.curate.tasks", mask_settings, config)
    if not config.curate.near + config.curate.far:
        problems.append("config.curate.near and config.curate.far are both 0: nothing is kept")
    if names is not None:
        named(problems, "config.curate", read_notes, config, names)
    if problems:
        raise ValueError("\n".join(problems))


def _check_extra() -> None:
    """Raises ValueError if a package of the extra `people` is not installed."""
    for name in ("selection", "segmentation"):
        try:
            importlib.import_module(f"onereward_jax.curation.{name}")
        except ModuleNotFoundError as error:
            raise ValueError(
                f"the stage curate needs the package {error.name}: pip install -e '.[people]'"
            ) from error


def run(context: StageContext) -> Results:
    """Embeds new pictures, chooses, writes the data folder and the contact sheet.

    Raises:
      ValueError: fewer pictures can be used than there are clusters, or none gets a task.
    """
    from onereward_jax.curation.data_folder import clear_data_folder, write_lines
    from onereward_jax.curation.selection import counted

    config = context.config
    digests = photograph_digests(config, context.workdir, "curate.pictures")
    names = only_pictures(digests)
    decisions = _select(context, names, [digests[name] for name in names])
    clear_data_folder(context.folder)
    rows = _write_rows(context, decisions, read_notes(config, names))
    write_lines(context.folder / LIST, (one.fields() for one in decisions))
    if not rows:
        raise ValueError("config.curate.tasks: no picture serves a task that has a weight")
    _write_sheet(context, decisions, rows)
    write_lines(context.folder / METADATA, (row.fields for row in rows))
    if made_by(config, "data.path") == "curate" and "reward" in config.stages:
        check_prompts(context, made=True)  # before anyone is asked about their edits
    kept = sum(not one.why for one in decisions)
    left_out = counted(decisions)
    announce(f"curate: {kept} of {len(names)} pictures are kept; left out: {left_out or 'none'}")
    return {
        "pictures": kept,
        "triplets": len(rows),
        "contact sheet": "curate/contact_sheet.html",
    }


def _select(context: StageContext, names: Sequence[str], digests: Sequence[str]) -> list[Decision]:
    """Embeds what is not embedded yet; then decides about each picture."""
    from onereward_jax.curation.embeddings import known_digests, read_embeddings
    from onereward_jax.curation.selection import select

    config, section = context.config, context.config.curate
    folder = context.folder / "embeddings"
    known, top = known_digests(folder), pictures_folder(config)
    total = len(set(digests))
    files = {digest: top / name for name, digest in zip(names, digests) if digest not in known}
    if files:
        _embed(context, files, folder, total)
    embedded = read_embeddings(folder, digests)
    if unreadable := [name for name, error in zip(names, embedded.errors) if error]:
        announce(f"curate: {len(unreadable)} unreadable: {', '.join(first_of(unreadable, 3))}")
    with progress_bar("curate: compare", len(names), unit="picture") as bar:
        return select(
            names,
            embedded,
            clusters=section.clusters,
            near=section.near,
            far=section.far,
            duplicates=section.duplicates,
            refused_below=buckets(config) if config.data.small_pictures == "refuse" else None,
            seed=config.seed,
            progress=bar.update,
        )


def _embed(context: StageContext, files: dict[str, Path], folder: Path, total: int) -> None:
    """Embeds pictures, with a stop point after each batch."""
    from onereward_jax.curation.clip_embedder import ClipEmbedder
    from onereward_jax.curation.embeddings import embed_pictures

    config = context.config
    embedder = ClipEmbedder(
        clip_folder(config), batch_size=config.curate.batch_size, dtype=compute_dtype(config)
    )
    with (
        progress_bar(
            "curate: embed",
            total,
            initial=total - len(files),
            unit="picture",
            program=f"curate, {config.curate.clip}",
        ) as bar,
        stop_points("curate", alone=True) as stop,
    ):
        for count in embed_pictures(files, folder, embedder, threads=THREADS):
            bar.update(count)
            stop.if_asked(f"at {bar.n} of {total} pictures")


def _write_rows(context: StageContext, decisions: Sequence[Decision], notes: Notes) -> list[Row]:
    """Draws and writes the triplets of the kept pictures; those without one are left out."""
    from onereward_jax.curation.data_folder import is_usable, write_triplets
    from onereward_jax.curation.draw_triplets import draw_triplets
    from onereward_jax.curation.known import known_of
    from onereward_jax.curation.selection import NO_TASK

    config = context.config
    settings, sizes = mask_settings(config), buckets(config)
    kept = [one for one in decisions if not one.why]
    chosen = dict(zip((one.name for one in kept), _chosen(context, decisions)))
    rows, remarks, others = [], [], Counter()

    def make(one: Decision) -> tuple[list[Row], list[str], list[tuple[str, str]]]:
        known, said = known_of(chosen[one.name].file, one.name, one.size, notes)
        rngs = [generator(config.seed, "triplet", one.digest, n) for n in range(config.curate.rows)]
        drawn = draw_triplets(
            rngs, known, settings, lambda mask: is_usable(mask, sizes), said.append
        )
        changed = [(row.wanted.value, row.task.value) for row in drawn if row.wanted != row.task]
        made = write_triplets(context.folder, chosen[one.name], drawn) if drawn else []
        return made, said, changed

    with progress_bar("curate: masks", len(kept), unit="picture") as bar:
        for one, (made, said, changed) in zip(kept, _in_threads(make, kept)):
            rows += made
            remarks += dict.fromkeys(said)
            others.update(changed)
            if not made:
                one.why = NO_TASK
            bar.update()
    for (wanted, task), count in sorted(others.items()):
        announce(
            f"curate: of the triplets drawn for {wanted}, {count} become {task}: their pictures "
            "lack what it needs"
        )
    if remarks:
        announce(f"curate: {len(remarks)} notes are not used: {'; '.join(first_of(remarks, 3))}")
    counts = Counter(row.fields["task"] for row in rows)
    said = ", ".join(f"{task.value} {counts[task.value]}" for task in TASKS if counts[task.value])
    announce(f"curate: triplets: {said or 'none'}")
    return rows


def _chosen(context: StageContext, decisions: Sequence[Decision]) -> Iterator[ChosenPicture]:
    """The kept pictures; near-duplicates of a common left-out picture state the same split."""
    from onereward_jax.curation.data_folder import ChosenPicture
    from onereward_jax.curation.selection import straddlers

    top = pictures_folder(context.config)
    shared, digest_of = straddlers(decisions), {one.name: one.digest for one in decisions}
    for one in decisions:
        if not one.why:
            split = split_of(digest_of[one.group]) if one.group in shared else None
            yield ChosenPicture(one.name, top / one.name, one.digest, one.cluster, split)


def _write_sheet(context: StageContext, decisions: Sequence[Decision], rows: Sequence[Row]) -> None:
    """Writes the contact sheet of the first clusters."""
    from onereward_jax.curation.contact_sheet import write_contact_sheet
    from onereward_jax.curation.sheet_sections import (
        chosen_sections,
        facts_of,
        left_out_sections,
        unreadable_of,
    )

    top, shown = pictures_folder(context.config), context.config.curate.sheet
    chosen = chosen_sections(context.folder, decisions, rows, shown)
    left_out = left_out_sections(top, decisions)
    with progress_bar("curate: sheet", len(chosen) + len(left_out), unit="row") as bar:
        write_contact_sheet(
            context.folder,
            title="Chosen pictures",
            facts=facts_of(context.config.curate.pictures, decisions, rows, shown),
            chosen=chosen,
            left_out=left_out,
            unreadable=unreadable_of(decisions),
            threads=THREADS,
            progress=bar.update,
        )


def _in_threads(function: Callable[[T], U], items: Sequence[T]) -> Iterator[U]:
    """`function` of each item in order, some of them at a time."""
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(items), 4 * THREADS):
            yield from pool.map(function, items[start : start + 4 * THREADS])
