"""Makes docs/gallery.md with its pictures, and README's picture, from a compared mini run.

    python benchmarks/other_scenes.py runs/mini     # edits new scenes, asks oracle and judge
    python benchmarks/gallery.py runs/mini          # or runs/evidence/runs/quickstart-0

The run has been compared with its base by `other_scenes.py` or by `evidence.py`. Per task a sheet
shows scenes that are drawn at random, whatever their scores, and those that the oracle finds best
and worst. It takes about a minute, most of it for the oracle if it has not scored these pictures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jinja2
import numpy as np
from evidence_compare import comparison_folder, kept_scores
from evidence_figures import POINTS
from evidence_oracle import Mapped, Scores, in_processes
from evidence_plots import plot
from evidence_rows import ORACLE, Row, good_minus_bad, steps_of
from evidence_text import percent
from gallery_sheet import Scene, beside, sheet
from PIL import Image

from onereward_jax.chain.saved_command import FILE as COMMAND
from onereward_jax.chain.stage_record import read_record
from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.common.rng import generator
from onereward_jax.data.triplets import Triplets
from onereward_jax.stages.evaluate.compared_edits import PICTURES, Pictures
from onereward_jax.tasks import PAPER_TASKS, TASKS, Task

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("gallery_page.md.jinja")

DRAWN, EXTREMES, IN_README = 5, 2, 4
"""Scenes per task: drawn at random; best, and worst; of the drawn ones, those in README."""

SEED = 0
"""Of the draw."""

ENLARGED, ENLARGED_IN_README = 3, 2
README_TASKS = (Task.FILL, Task.REMOVAL)

MOST_BYTES = 400_000
"""Of a picture in the repository."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What a comparison has left in a work folder.

    Attributes:
      triplets: its scenes.
      base, policy: the results of both editors.
      oracle: scores of policy and base, by row.
      row: its points, as a row of benchmarks/evidence.py.
    """

    triplets: Triplets
    base: Pictures
    policy: Pictures
    oracle: Mapping[int, tuple[Scores, Scores]]
    row: Row

    def rows(self, task: Task) -> list[int]:
        """The scenes of a task."""
        return [row for row in self.oracle if TASKS[self.triplets.tasks[row]] is task]

    def leads(self, task: Task) -> dict[int, float]:
        """By row: the mean score of the policy over the dimensions, minus that of the base."""
        pairs = ((row, self.oracle[row]) for row in self.rows(task))
        return {row: _mean(policy) - _mean(base) for row, (policy, base) in pairs}


def main() -> None:
    """Writes the page and all pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workdir", type=Path, help="of a run that has been compared with its base")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of gallery.md")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="of the oracle")
    given = parser.parse_args()
    with in_processes(given.processes) as mapped:
        found = read_comparison(given.workdir, mapped)
    write_gallery(found, given.workdir, given.docs)


def read_comparison(workdir: Path, mapped: Mapped) -> Comparison:
    """Reads what `other_scenes.py` or `evidence.py` has left.

    Raises:
      FileNotFoundError: there is no run, or it has not been compared.
    """
    if read_record(workdir / "rl") is None:
        raise FileNotFoundError(f"{workdir}: there is no stage rl in this folder")
    folder = comparison_folder(workdir)
    if not (folder / POINTS).is_file():
        raise FileNotFoundError(
            f"{workdir}: this run has not been compared with its base: first run"
            f" python benchmarks/other_scenes.py {workdir}"
        )
    triplets = Triplets(folder / "data", "test")
    ids = triplets.column("id")
    base, policy = (folder / "evaluate" / PICTURES / name for name in ("base", "policy"))
    names = {row: ids[row] for row in range(len(ids)) if (policy / f"{ids[row]}.png").is_file()}
    made, trained = Pictures(base, names), Pictures(policy, names)
    scores = [kept_scores(triplets, one, mapped) for one in (trained, made)]
    points = json.loads((folder / POINTS).read_text(encoding="utf-8"))
    return Comparison(
        triplets,
        made,
        trained,
        {row: (scores[0][row], scores[1][row]) for row in names},
        {"points": points},
    )


def chosen(leads: Mapping[int, float], task: Task) -> dict[str, list[int]]:
    """The rows of a sheet by heading; the draw does not know the scores.

    A scene may be in two groups.
    """
    rows = sorted(leads)
    draw = generator(SEED, "gallery", task.value)
    drawn = draw.choice(rows, min(DRAWN, len(rows)), replace=False)
    by_lead = sorted(rows, key=lambda row: (-leads[row], row))
    count = min(EXTREMES, len(rows))
    return {
        f"{len(drawn)} drawn at random": [int(row) for row in drawn],
        f"the {count} best by the oracle": by_lead[:count],
        f"the {count} worst by the oracle": by_lead[::-1][:count],
    }


def write_gallery(found: Comparison, workdir: Path, docs: Path) -> None:
    """Writes <docs>/gallery.md, <docs>/images/gallery-*.png and <docs>/images/result.png."""
    images = docs / "images"
    images.mkdir(parents=True, exist_ok=True)
    for old in images.glob("gallery-*.png"):
        old.unlink()
    sections, in_readme = [], []
    for task in PAPER_TASKS:
        if not (leads := found.leads(task)):
            continue
        groups = chosen(leads, task)
        path = images / f"gallery-{task.value}.png"
        _save(sheet(_scenes(found, groups, task), ENLARGED), path)
        sections.append(_counts(found.row, task) | {"groups": list(groups), "image": path.name})
        if task in README_TASKS:
            drawn = next(iter(groups.values()))[:IN_README]
            short = _scenes(found, {task.title: drawn}, task, scores=False)
            in_readme.append(sheet(short, ENLARGED_IN_README))
    if in_readme:
        _save(beside(in_readme), images / "result.png")
    curves, steps = "", steps_of([found.row])
    if len(steps) > 1:
        curves = "gallery-curves.png"
        tasks = [task for task in PAPER_TASKS if found.rows(task)]
        plot([found.row], steps, tasks, images / curves)
    height, width = found.triplets.sizes[0]
    name = workdir.resolve().name
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(PAGE.read_text(encoding="utf-8")).render(
        name=name,
        steps=steps[-1],
        scenes=_scenes_per_task(_last(found.row)),
        height=height,
        width=width,
        drawn=DRAWN,
        seed=SEED,
        extremes=EXTREMES,
        sections=sections,
        curves=curves,
        commands=_commands(workdir, name, found.row),
    )
    with atomic_file(docs / "gallery.md") as draft:
        draft.write_text(page + "\n", encoding="utf-8")
    print(f"wrote {docs / 'gallery.md'} and its pictures; README's is {images / 'result.png'}")


def _scenes(
    found: Comparison, groups: Mapping[str, Sequence[int]], task: Task, scores: bool = True
) -> dict[str, list[Scene]]:
    def scene(row: int) -> Scene:
        example = found.triplets[row]
        told = f"remove: {example['label']}" if task is Task.REMOVAL else example["prompt"]
        return Scene(
            example["image"],
            example["mask"][..., 0],
            found.base[row],
            found.policy[row],
            example["target"],
            (told, told_scores(*found.oracle[row])) if scores else (told,),
        )

    return {heading: [scene(row) for row in rows] for heading, rows in groups.items()}


def told_scores(policy: Scores, base: Scores) -> str:
    """ "structure 0.71 → 0.74 · aesthetics 0.80 → 0.80 · mean +0.015"."""
    each = [
        f"{dimension.title} {base.scores[dimension]:.2f} → {score:.2f}"
        for dimension, score in policy.scores.items()
    ]
    lead = f"{_mean(policy) - _mean(base):+.3f}".replace("-", "−")
    return " · ".join([*each, *([f"mean {lead}"] if len(each) > 1 else [lead])])


def _counts(row: Row, task: Task) -> dict[str, Any]:
    """What the page says of a task."""
    cell = _last(row)["good_same_bad"][ORACLE][task.value]
    return {
        "title": task.title.capitalize(),
        "total": _total(cell),
        "difference": percent(good_minus_bad([row], ORACLE, task.value)),
        **{name: cell[name] for name in ("good", "same", "bad")},
    }


def _commands(workdir: Path, name: str, row: Row) -> list[str]:
    """The commands of run, comparison and page, for an indented block."""
    told = json.loads((workdir / COMMAND).read_text(encoding="utf-8"))
    config = f"--config=configs/{Path(told['config']).name}"
    counts = f"--scenes={_scenes_per_task(_last(row))}"
    if len(row["points"]) > 1:
        counts += f" --curve={_scenes_per_task(row['points'][0])}"
    run = [f"python -m onereward_jax.main {config} --workdir=runs/{name}"]
    return [
        " \\\n      ".join(run + [_quoted(flag) for flag in told["overrides"]]),
        f"python benchmarks/other_scenes.py runs/{name} \\\n      {counts}",
        f"python benchmarks/gallery.py runs/{name}",
    ]


def _quoted(flag: str) -> str:
    """A flag for a shell; with double quotes if it has single ones."""
    quoted = shlex.quote(flag)
    return quoted if "'" not in flag or set(flag) & set('"$`\\!') else f'"{flag}"'


def _scenes_per_task(point: Mapping[str, Any]) -> int:
    return max(_total(cell) for cell in point["good_same_bad"][ORACLE].values())


def _total(cell: Mapping[str, int]) -> int:
    return cell["good"] + cell["same"] + cell["bad"]


def _last(row: Row) -> Mapping[str, Any]:
    return max(row["points"], key=lambda point: point["step"])


def _mean(scores: Scores) -> float:
    return float(np.mean(list(scores.scores.values())))


def _save(picture: Image.Image, path: Path) -> None:
    """Writes a PNG.

    Raises:
      ValueError: it is too large for a repository.
    """
    with atomic_file(path) as draft:
        picture.save(draft, "PNG", optimize=True)
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"{path} has {size:,} bytes, more than {MOST_BYTES:,}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
