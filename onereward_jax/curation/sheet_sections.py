"""What the contact sheet shows: rows of chosen pictures, of duplicates, of blank pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from onereward_jax.curation.contact_sheet import Section, Tile
from onereward_jax.curation.data_folder import Row
from onereward_jax.curation.selection import IDENTICAL, KEPT, NEAR_DUPLICATE, Decision, counted
from onereward_jax.tasks import TASKS, Task

SHOWN = 24
"""Left-out pictures that are shown, at most, of each reason."""

_LINKS = {NEAR_DUPLICATE: "Near-duplicates", IDENTICAL: "Identical files"}
_ALONE = {"blank": "Blank", "small": "Too small", "no task": "No task"}


def chosen_sections(
    folder: Path, decisions: Sequence[Decision], rows: Sequence[Row], shown: int
) -> list[Section]:
    """The first `shown` clusters, each with its triplets.

    Args:
      folder: the data folder, which has the images and masks of the rows.
      decisions: about all pictures.
      rows: triplets, in the order of the pictures.
      shown: number of clusters.
    """
    sizes = Counter(one.cluster for one in decisions if one.cluster is not None)
    distances = {one.name: one.distance or 0.0 for one in decisions}
    of_cluster: dict[int, list[Row]] = {}
    for row in rows:
        of_cluster.setdefault(row.chosen.cluster, []).append(row)
    sections = []
    for cluster in sorted(of_cluster)[:shown]:
        found = sorted(of_cluster[cluster], key=lambda row: distances[row.chosen.name])
        pictures = len({row.chosen.name for row in found})
        note = f"{pictures} of {sizes[cluster]} kept"
        sections.append(
            Section(
                f"cluster-{cluster:04}",
                f"Cluster {cluster}",
                note,
                [_tile(folder, row, distances[row.chosen.name]) for row in found],
            )
        )
    return sections


def left_out_sections(top: Path, decisions: Sequence[Decision]) -> list[Section]:
    """Duplicates beside the pictures that they resemble, most alike first; blank pictures.

    Args:
      top: the folder of pictures.
      decisions: about all pictures.
    """
    sections = []
    for why, heading in _LINKS.items():
        found = [one for one in decisions if one.why == why]
        # The least alike first: they show whether the threshold is right.
        found.sort(key=lambda one: (one.cosine or 1.0, one.name))
        tiles = []
        for one in found[: SHOWN // 2]:
            said = f"cosine {one.cosine:.3f}" if one.cosine is not None else "the same file"
            tiles.append(Tile(top / one.name, None, one.name, "left out", f"{one.name}, {said}"))
            tiles.append(Tile(top / one.of, None, one.of, "stays", one.of))
        sections += _section(why, heading, found, tiles, together=2)
    for why, heading in _ALONE.items():
        found = [one for one in decisions if one.why == why]
        tiles = [Tile(top / one.name, None, one.name, "", one.name) for one in found[:SHOWN]]
        sections += _section(why, heading, found, tiles)
    return sections


def unreadable_of(decisions: Sequence[Decision]) -> list[tuple[str, str]]:
    """Names of unreadable pictures, with the reason."""
    found = [(one.name, one.detail) for one in decisions if one.why == "unreadable"]
    return found[: 4 * SHOWN]


def facts_of(
    pictures: str, decisions: Sequence[Decision], rows: Sequence[Row], shown: int
) -> dict[str, str]:
    """The table at the top of the sheet."""
    kept = [one for one in decisions if one.why == KEPT]
    clusters = len({one.cluster for one in kept})
    tasks = Counter(row.fields["task"] for row in rows)
    kinds = Counter(row.kind.replace("_", " ") for row in rows)
    facts = {
        "folder": pictures,
        "pictures": f"{len(kept)} of {len(decisions)}",
        "left out": counted(decisions) or "none",
        "triplets": ", ".join(
            f"{task.title} {tasks[task.value]}" for task in TASKS if tasks[task.value]
        ),
        "masks": ", ".join(f"{kind} {count}" for kind, count in kinds.most_common()),
        "clusters": str(clusters),
    }
    if clusters > shown:
        facts["shown"] = f"the first {shown} clusters (config.curate.sheet)"
    return facts


def _tile(folder: Path, row: Row, distance: float) -> Tile:
    fields = row.fields
    return Tile(
        image=folder / fields["image"],
        mask=folder / fields["mask"],
        title=f"{row.chosen.name}, {distance:.2f} from the centre, {row.kind.replace('_', ' ')}",
        chip=Task(fields["task"]).title.removeprefix("image "),
        caption=fields.get("prompt", ""),
        link=quote(fields["image"]),
    )


def _section(
    why: str, heading: str, found: Sequence[Decision], tiles: Sequence[Tile], *, together: int = 1
) -> list[Section]:
    if not found:
        return []
    shown = len(tiles) // together
    note = str(len(found)) if shown == len(found) else f"{shown} of {len(found)}"
    note += ", the least alike first" if why == NEAR_DUPLICATE else ""
    return [Section(f"left-out-{why.replace(' ', '-')}", heading, note, tiles, together)]
