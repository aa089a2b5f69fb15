"""What the command `edit` reads from a folder of rows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onereward_jax.inference.edit_requests import read_edit_rows
from onereward_jax.tasks import FIXED_PROMPTS, Task

WIDTH, HEIGHT = 40, 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    mask = Image.new("L", (WIDTH, HEIGHT))
    mask.paste(255, (10, 10, 20, 20))
    mask.save(tmp_path / "mask.png")
    mask.resize((WIDTH * 2, HEIGHT * 2)).save(tmp_path / "larger.png")
    mask.resize((HEIGHT, HEIGHT)).save(tmp_path / "square.png")
    Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / "black.png")
    (tmp_path / "text.png").write_text("text")
    return tmp_path


def write_rows(folder: Path, *rows: dict | str) -> None:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def test_rows_become_requests_with_the_fixed_prompts_where_none_is_given(folder: Path) -> None:
    marked = {"image": "a.png", "mask": "mask.png"}
    padded = {"image": "a.png", "pad": "0,0,8,0"}
    write_rows(
        folder,
        marked | {"prompt": "a hat", "split": "test"},
        marked | {"task": "removal", "target": "none.png", "mask": "larger.png"},
        "",
        padded | {"task": "extend", "mask": None, "prompt": None},
        padded | {"task": "Extend", "prompt": "a lake"},
    )
    rows, errors = read_edit_rows(folder)
    assert not errors and [row.place.number for row in rows] == [1, 2, 4, 5]
    fixed = FIXED_PROMPTS[Task.REMOVAL], FIXED_PROMPTS[Task.EXTEND_WITHOUT_PROMPT]
    assert [row.prompt for row in rows] == ["a hat", *fixed, "a lake"]
    assert [row.size[0] - WIDTH for row in rows] == [0, 0, 8, 8]
    requests = [row.open() for row in rows]
    assert [one.image.size for one in requests] == [row.size for row in rows]
    assert {one.name for one in requests} == {row.name for row in rows} == {"a"}


BAD = {
    "{": "not JSON",
    json.dumps({"mask": "mask.png"}): "image is missing",
    json.dumps({"image": None, "task": "remove"}): "image is missing",
    **{
        json.dumps({"image": "a.png", **row}): reason
        for reason, row in {
            "unknown field 'promt'": {"mask": "mask.png", "promt": "x"},
            "prompt must be a non-empty string, found 3": {"mask": "mask.png", "prompt": 3},
            "prompt is missing; the task fill": {"mask": "mask.png"},
            "unknown task 'erase'": {"mask": "mask.png", "task": "erase"},
            "the task removal needs a mask": {"task": "remove"},
            "the task extend_without_prompt needs a mask or pad": {"task": "extend"},
            "pad is for the task extend": {"task": "remove", "pad": "1,1,1,1"},
            "four integers expected": {"task": "extend", "pad": "1,1"},
            "above Pillow's limit": {"task": "extend", "pad": "99999,99999,0,0"},
            "pad creates the mask": {"task": "extend", "pad": "1,1,1,1", "mask": "mask.png"},
            "the mask .*is empty|the mask black.png": {"task": "remove", "mask": "black.png"},
            "text.png is not a readable image": {"task": "remove", "mask": "text.png"},
            "mask is 30x30 pixels, image 40x30": {"task": "remove", "mask": "square.png"},
            "mask '/mask.png' leads out of the folder": {"task": "remove", "mask": "/mask.png"},
            "there is no file none.png": {"task": "remove", "mask": "none.png"},
        }.items()
    },
}


def test_all_bad_rows_are_named_and_the_others_are_given(folder: Path) -> None:
    good = json.dumps({"image": "a.png", "mask": "mask.png", "task": "remove"})
    write_rows(folder, good, *BAD, good)
    rows, errors = read_edit_rows(folder)
    assert [str(row.place) for row in rows] == ["line 1", f"line {len(BAD) + 2}"]
    assert [place.number for place in errors] == list(range(2, len(BAD) + 2))
    for reason, error in zip(BAD.values(), errors.values(), strict=True):
        assert re.search(reason, str(error)), (reason, str(error))


def test_a_folder_without_rows_is_named(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is a folder without metadata\.jsonl"):
        read_edit_rows(folder)
    write_rows(folder)
    with pytest.raises(ValueError, match=r"metadata\.jsonl has no rows"):
        read_edit_rows(folder)
