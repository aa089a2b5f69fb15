"""Label Studio: tasks and labelling interfaces out, results back in.

    preferences.jsonl, pictures/, about.json     a preferences folder
    tasks/fill-4.json, tasks/fill-4.xml          tasks and interface of one project

There is a project per task and number of candidates, because their dimensions differ. (Comparisons
without a source or a mask have projects of their own.) Create it
with the interface (`.xml`), serve the folder, and import the tasks (`.json`). `--url` is what the
paths of pictures start with: "/data/local-files/?d=<folder>/" for Label Studio's own storage of
local files (the default), or the address of a web server. Answers that are there become
annotations; each result keeps who gave it in its `meta`, which counts until the answer is changed.

Results are an export of the project as JSON or JSON-MIN; `--pictures` names this folder.

https://labelstud.io/guide/task_format
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from onereward_jax.annotation.comparisons import (
    LINES,
    Comparison,
    Judgement,
    number,
    parse_line,
    text,
)
from onereward_jax.annotation.given_comparisons import Given, Loaded, Row, Rows
from onereward_jax.annotation.preferences_folder import comparison_lines, read_about
from onereward_jax.common.json_lines import json_object
from onereward_jax.data.example import RowError
from onereward_jax.exchange import folder as preferences_folder
from onereward_jax.exchange.label_studio_interface import (
    LETTERS,
    NO_DIFFERENCE,
    answered_picture,
    interface,
)
from onereward_jax.exchange.options import Options, Source
from onereward_jax.exchange.record_files import json_list
from onereward_jax.tasks import DIMENSIONS

TASKS_FOLDER = "tasks"
LOCAL_FILES = "/data/local-files/?d="


def write(
    rows: Iterator[tuple[str, Loaded]], folder: pathlib.Path, source: Source, options: Options
) -> None:
    """Writes the preferences folder, and tasks and interface per project."""
    url = options.url or f"{LOCAL_FILES}{options.name}/"
    preferences_folder.write(rows, folder, source, options)
    (folder / TASKS_FOLDER).mkdir()
    files: dict[str, TextIO] = {}
    try:
        for _, one in comparison_lines(folder):
            assert isinstance(one, Comparison), "just written"
            count = len(one.candidates)
            if count > len(LETTERS):
                raise ValueError(f"{one.id}: Label Studio tasks have up to {len(LETTERS)} pictures")
            has_image, has_mask = one.image is not None, one.mask is not None
            name = f"{one.task.value}-{count}"
            name += ("" if has_image else "-no-source") + ("" if has_mask else "-no-mask")
            first = name not in files
            if first:
                path = folder / TASKS_FOLDER / f"{name}.xml"
                path.write_text(interface(one.task, count, has_image, has_mask), encoding="utf-8")
                files[name] = path.with_suffix(".json").open("w", encoding="utf-8")
            files[name].write("[\n" if first else ",\n")
            files[name].write(json.dumps(_task(one, url), ensure_ascii=False))
    finally:
        for file in files.values():
            file.write("\n]\n")
            file.close()


def _task(one: Comparison, url: str) -> dict[str, Any]:
    # Not "id": JSON-MIN has that of Label Studio's task there.
    data = {"comparison": one.id, "task": one.task.title, "prompt": one.prompt}
    for name, picture in (("image", one.image), ("mask", one.mask)):
        if picture is not None:
            data[name] = url + picture.path
    for letter, candidate in zip(LETTERS, one.candidates):
        data[f"candidate_{letter}"] = url + candidate.picture.path
    by_annotator: dict[str, list[Judgement]] = {}
    for answer in one.answers:
        by_annotator.setdefault(answer.annotator, []).append(answer)
    to_name = answered_picture(one.image is not None)
    annotations = [
        {
            "result": [
                result for answer in given for result in _results(answer, to_name, one.candidates)
            ],
            "lead_time": sum(answer.seconds for answer in given),
        }
        for given in by_annotator.values()
    ]
    return {"data": data, "annotations": annotations}


def _results(answer: Judgement, to_name: str, candidates: tuple) -> Iterator[dict[str, Any]]:
    meta = {
        "annotator": answer.annotator,
        "probability": answer.probability,
        "answered_at": answer.answered_at,
        "seconds": answer.seconds,
    }
    # Label Studio keeps `meta` when somebody changes the answer: `choice` tells.
    for kind, place in (("best", answer.best), ("worst", answer.worst)):
        if kind == "worst" and (place is None or len(candidates) == 2):
            continue
        choice = NO_DIFFERENCE if place is None else LETTERS[place]
        yield {
            "id": f"{kind}_{answer.dimension}",
            "from_name": f"{kind}_{answer.dimension}",
            "to_name": to_name,
            "type": "choices",
            "value": {"choices": [choice]},
            "meta": meta | {"choice": choice},
        }


def read(path: pathlib.Path, options: Options) -> Source:
    """The results of a project, JSON or JSON-MIN, for the comparisons of the exported folder.

    Raises:
      FileNotFoundError: `--pictures` is not a folder that was exported for Label Studio.
      ValueError: the file is not a list.
    """
    folder = options.pictures or path.parent
    try:
        about = read_about(folder)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"--pictures must name the folder that was exported for Label Studio: {error}"
        ) from None
    entries = json_list(path)
    offsets: dict[str, int] = {}
    with (folder / LINES).open("rb") as file:
        while line := file.readline():
            if line.strip():
                try:
                    offsets[json_object(line)["id"]] = file.tell() - len(line)
                except (ValueError, TypeError, KeyError) as error:
                    raise ValueError(f"{folder / LINES} is damaged: {error}") from error
    origin = about.get("origin") or {}
    rows = _rows(entries, folder, offsets, options)
    return Source(rows, len(entries), str(about.get("license", "")), origin)


def _rows(
    entries: list[Any], folder: pathlib.Path, offsets: Mapping[str, int], options: Options
) -> Rows:
    with (folder / LINES).open("rb") as lines:
        for number_, entry in enumerate(entries, 1):
            place = f"entry {number_}"
            try:
                if not isinstance(entry, dict):
                    raise RowError("not a JSON object")
                data = entry["data"] if isinstance(entry.get("data"), dict) else entry
                name = data.get("comparison")
                if name not in offsets:
                    raise RowError(
                        f"comparison {name!r} is not one of the exported folder (--pictures)"
                    )
                lines.seek(offsets[name])
                comparison = parse_line(lines.readline().decode())
                yield Row(place, _given(entry, comparison, folder, options))
            except RowError as error:
                yield Row(place, error)


def _given(
    entry: dict[str, Any], comparison: Comparison, folder: pathlib.Path, options: Options
) -> Given:
    answers: list[Judgement] = []
    if "annotations" in entry:
        annotations = entry["annotations"]
        if not isinstance(annotations, list):
            raise RowError("annotations must be a list")
        for place, one in enumerate(annotations):
            if not isinstance(one, dict) or not isinstance(one.get("result"), list):
                raise RowError(f"annotations[{place}] has no result")
            if one.get("was_cancelled"):
                continue
            try:
                chosen, meta = _chosen(one["result"])
                answers += _answers(chosen, meta, one, comparison, options)
            except RowError as error:
                raise RowError(f"annotations[{place}]: {error}") from None
    else:
        names = _controls(comparison)
        chosen = {name: _choice(name, entry[name]) for name in names if entry.get(name)}
        answers += _answers(chosen, {}, entry, comparison, options)
    given = preferences_folder.given_in(folder, comparison)
    return dataclasses.replace(given, answers=tuple(answers))


def _controls(comparison: Comparison) -> list[str]:
    dimensions = DIMENSIONS[comparison.task]
    return [f"{kind}_{one}" for one in dimensions for kind in ("best", "worst")]


def _chosen(results: list[Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """Control tag -> choice, and control tag -> what `meta` says."""
    chosen, meta = {}, {}
    for place, one in enumerate(results):
        if not isinstance(one, dict) or not isinstance(one.get("value"), dict):
            raise RowError(f"result[{place}] has no value")
        name = text(f"result[{place}].from_name", one.get("from_name"))
        chosen[name] = _choice(name, one["value"])
        if isinstance(one.get("meta"), dict):
            meta[name] = one["meta"]
    return chosen, meta


def _choice(name: str, value: Any) -> str:
    """A choice: a text, a list with one, or an object with `choices`."""
    if isinstance(value, dict):
        value = value.get("choices")
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return text(name, value)


def _answers(
    chosen: Mapping[str, str],
    meta: Mapping[str, Mapping[str, Any]],
    annotation: Mapping[str, Any],
    comparison: Comparison,
    options: Options,
) -> Iterator[Judgement]:
    controls, count = _controls(comparison), len(comparison.candidates)
    if unknown := sorted(chosen.keys() - set(controls)):
        raise RowError(f"{unknown[0]!r} is no question about {comparison.task.title}")
    answered = [one for one in DIMENSIONS[comparison.task] if f"best_{one}" in chosen]
    for one in DIMENSIONS[comparison.task]:
        if f"worst_{one}" in chosen and one not in answered:
            raise RowError(f"worst_{one} is given without best_{one}")
    for one in answered:
        best = _place(f"best_{one}", chosen[f"best_{one}"], count)
        asked = [f"best_{one}"]
        worst = None
        if best is not None and count == 2:
            worst = 1 - best
        elif best is not None:
            if f"worst_{one}" not in chosen:
                raise RowError(f"best_{one} is given without worst_{one}")
            worst = _place(f"worst_{one}", chosen[f"worst_{one}"], count)
            asked.append(f"worst_{one}")
        kept = all(meta.get(name, {}).get("choice") == chosen[name] for name in asked)
        said = meta[f"best_{one}"] if kept else {}
        seconds = annotation.get("lead_time") or 0.0
        yield Judgement(
            one,
            best,
            worst,
            text("annotator", said.get("annotator") or _annotator(annotation, options)),
            number("probability", said.get("probability", 1.0)),
            number("answered_at", said.get("answered_at", _time(annotation))),
            number("seconds", said.get("seconds", seconds / len(answered))),
        )


def _place(name: str, choice: str, count: int) -> int | None:
    if choice == NO_DIFFERENCE:
        return None
    letters = LETTERS[:count]
    if choice not in tuple(letters):
        raise RowError(f"{name} must be {', '.join(letters)} or {NO_DIFFERENCE!r}: {choice!r}")
    return letters.index(choice)


def _annotator(annotation: Mapping[str, Any], options: Options) -> str:
    by = annotation.get("completed_by", annotation.get("annotator"))
    if isinstance(by, dict):
        by = by.get("email") or by.get("id")
    return str(by) if by not in (None, "") else options.annotator or "label_studio"


def _time(annotation: Mapping[str, Any]) -> float:
    stated = annotation.get("updated_at") or annotation.get("created_at")
    if not isinstance(stated, str):
        return 0.0
    try:
        return datetime.datetime.fromisoformat(stated).timestamp()
    except ValueError:
        raise RowError(f"created_at {stated!r} is not a time") from None
