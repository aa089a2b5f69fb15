"""Benchmark folders: every layout gives the same rows, bad rows are named with file and line."""

import json

import numpy as np
import pytest
from benchmark_pictures import (
    SIDE,
    box_mask,
    picture,
    run_lengths,
    write_brushbench,
    write_editbench,
    write_mapping,
    write_pictures,
)
from PIL import Image

from onereward_jax.data.benchmark_folders import read_benchmark, split_part
from onereward_jax.data.benchmark_rows import MaskRuns, within
from onereward_jax.data.example import RowError
from onereward_jax.tasks import Task


def brushnet_mask(runs, shape):
    """Independent restatement of the code in BrushNet's evaluation: starts count from 1."""
    flat = np.zeros(shape[0] * shape[1], bool)
    for start, length in np.asarray(runs, int).reshape(-1, 2):
        flat[np.arange(start - 1, start - 1 + length)] = True
    return flat.reshape(shape)


def test_run_lengths_are_row_by_row_from_one():
    assert run_lengths(np.array([[True, False, False], [False, True, True]])) == [1, 1, 5, 2]
    mask = np.random.default_rng(0).random((7, 11)) > 0.5
    runs = run_lengths(mask)
    np.testing.assert_array_equal(MaskRuns(tuple(runs)).read((11, 7)), mask)
    np.testing.assert_array_equal(brushnet_mask(runs, (7, 11)), mask)
    for runs, message in (((71, 8), "pixels are 1 to 77"), ((0, 3), "1 to 77"), ((), "empty")):
        with pytest.raises(RowError, match=message):
            MaskRuns(runs).read((11, 7))


def test_brushbench_has_the_object_and_its_surroundings(tmp_path):
    folder = write_brushbench(tmp_path, size=(40, SIDE))
    inside = read_benchmark("b", folder)
    around = read_benchmark("b", folder, "outpainting")
    assert inside.title == "BrushBench, inpainting" and around.title == "BrushBench, outpainting"
    for number, (one, other) in enumerate(zip(inside.rows, around.rows, strict=True)):
        assert one.name == f"images/{number:06}" and one.prompt == f"{number} red apples"
        assert one.task is Task.FILL and one.described and one.size == (40, SIDE)
        pixels, opposite = one.read(), other.read()
        expected = box_mask((40, SIDE), (10 + number, 14, 30 + number, 26))
        np.testing.assert_array_equal(pixels.mask, expected)
        np.testing.assert_array_equal(opposite.mask, ~expected)
        np.testing.assert_array_equal(pixels.truth, pixels.source)
        assert one.digest() != other.digest()
    assert str(inside.rows[1].place) == "line 3, entry 000001"
    assert len(read_benchmark("b", folder, count=2).rows) == 2


def test_editbench_has_three_prompts(tmp_path):
    folder = write_editbench(tmp_path)
    rows = read_benchmark("e", folder).rows
    assert [row.name for row in rows] == [
        "generated/generated_0", "generated/generated_1", "natural/natural_0", "natural/natural_1",
    ]  # fmt: skip
    assert rows[3].prompt == "full, 1 natural cats"
    assert read_benchmark("e", folder, "mask-rich").rows[0].prompt == "rich, 0 generated cats"
    pixels = rows[0].read()
    np.testing.assert_array_equal(pixels.mask, box_mask())
    np.testing.assert_array_equal(pixels.source, np.asarray(picture(0)))
    np.testing.assert_array_equal(pixels.truth, pixels.source)
    # The same in JSON.
    for kind in ("generated", "natural"):
        (folder / f"annotations_{kind}.csv").unlink()
        told = [{"aos": f"{kind}_{n}", "prompt_full": f"full, {n} {kind} cats"} for n in range(2)]
        (folder / f"annotations_{kind}.json").write_text(json.dumps(told))
    again = read_benchmark("e", folder).rows
    assert [(row.name, row.prompt, row.digest()) for row in again] == [
        (row.name, row.prompt, row.digest()) for row in rows
    ]


def test_folders_of_pictures_and_rows(tmp_path):
    folder = write_pictures(tmp_path / "pictures")
    rows = read_benchmark("p", folder).rows
    assert [row.task for row in rows] == [Task.REMOVAL, Task.FILL, Task.FILL]
    assert not rows[0].described and rows[0].words == "" and rows[0].read().truth is None
    assert rows[2].words == "SALE 2" and rows[2].read().truth.shape == (SIDE, SIDE, 3)

    lines = [
        {"image": "source/p0.jpg", "mask": "mask/p0.png", "task": "remove"},
        {"image": "source/p1.jpg", "mask": "mask/p1.png", "prompt": 'the word "SALE 1"',
         "target": "target/p1.png"},
        {"image": "source/p1.jpg", "mask": "mask/p0.png", "prompt": "a cat"},
        {"image": f"../{folder.name}/source/p1.jpg", "mask": "mask/p0.png", "prompt": "a cat"},
    ]  # fmt: skip
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = read_benchmark("r", folder / "metadata.jsonl").rows
    names = ["source/p0", "source/p1", "source/p1-3", "pictures/source/p1"]
    assert [row.name for row in found] == names
    assert [row.digest() for row in found[:2]] == [row.digest() for row in rows[:2]]


def test_large_pictures_are_scaled_down_with_mask_and_target(tmp_path):
    folder = write_pictures(tmp_path)
    row = read_benchmark("p", folder, longest_side=24).rows[1]
    assert row.stored == (SIDE, SIDE) and row.size == (24, 24)
    pixels = row.read()
    assert [part.shape for part in pixels] == [(24, 24, 3), (24, 24), (24, 24, 3)]
    np.testing.assert_array_equal(pixels.mask, box_mask((24, 24), (5, 7, 15, 13)))
    assert within((3000, 2000), 1024) == (1024, 683) and within((30, 20), 0) == (30, 20)


def test_bad_rows_are_named_with_file_and_line(tmp_path):
    folder = write_brushbench(tmp_path / "brush")
    entries = json.loads((folder / "mapping_file.json").read_text())
    entries["000000"]["inpainting_mask"] = [SIDE * SIDE, 2]
    entries["000001"]["inpainting_mask"] = [1, 2, 3]
    del entries["000002"]["caption"]
    entries["gone"] = entries["000002"] | {"image": "images/gone.jpg"}
    entries["out"] = entries["000002"] | {"image": "../out.jpg"}
    entries["list"] = []
    write_mapping(folder, entries)
    with pytest.raises(ValueError) as refused:
        read_benchmark("b", folder)
    assert str(refused.value).splitlines() == [
        f"{folder}/mapping_file.json: 6 bad rows",
        "  line 2, entry 000000: the run of 2 pixels from pixel 2304 is not in a picture of 48x48: "
        "its pixels are 1 to 2304",
        "  line 3, entry 000001: inpainting_mask: a list of first pixel and length of each run "
        "expected, found [1, 2, 3]",
        "  line 4, entry 000002: caption: a text expected, found None",
        "  line 5, entry gone: there is no file images/gone.jpg",
        "  line 6, entry out: image '../out.jpg' leads out of the folder",
        "  line 7, entry list: an object expected, found []",
    ]

    folder = write_editbench(tmp_path / "edit")
    (folder / "masks_natural" / "natural_0.png").unlink()
    Image.new("L", (SIDE, 20), 255).save(folder / "masks_natural" / "natural_1.png")
    with pytest.raises(ValueError) as refused:
        read_benchmark("e", folder)
    assert str(refused.value).splitlines() == [
        f"{folder}: 2 bad rows",
        "  annotations_natural.csv, line 2: there is no file natural_0.png",
        "  annotations_natural.csv, line 3: mask is 48x20 pixels, image 48x48",
    ]

    folder = write_pictures(tmp_path / "pictures")
    (folder / "mask" / "p1.png").unlink()
    (folder / "source" / "p2.jpg").write_text("no picture")
    with pytest.raises(ValueError, match="2 bad rows") as refused:
        read_benchmark("p", folder)
    assert "source/p1.jpg: there is no mask/p1.png" in str(refused.value)
    assert "source/p2.jpg: p2.jpg is not a readable image" in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is not a JSON object"),
        ('{"a": {},\n "a": {}}', "line 2: 'a' is given twice"),
        ('{"a": {},\n "b" {}}', "line 2: not JSON: ':' expected"),
        ('{"a": {},\n', "line 2: not JSON"),
        ("{}", "has no rows"),
    ],
)
def test_a_damaged_mapping_is_one_sentence(tmp_path, content, message):
    (tmp_path / "mapping_file.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_benchmark("b", tmp_path)


def test_parts_belong_to_their_layout(tmp_path):
    assert split_part("/data/b:outpainting") == ("/data/b", "outpainting")
    assert split_part("gs://data/b") == ("gs://data/b", "")
    folder = write_pictures(tmp_path)
    with pytest.raises(ValueError, match="'mask-rich' is not a part of pictures; there are: none"):
        read_benchmark("p", folder, "mask-rich")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        read_benchmark("p", tmp_path / "gone")
