"""Triplets from a user's folder: what is read, and what is said about bad rows."""

import json

import numpy as np
import pytest
from PIL import Image

from onereward_jax.data.folder_source import LISTED, FolderSource
from onereward_jax.tasks import FIXED_PROMPTS, Task


def save_picture(path, size=(40, 30), colour=(200, 30, 30)):
    Image.new("RGB", size, colour).save(path)


def save_mask(path, size=(40, 30), box=(0, 0, 10, 30), value=255):
    mask = Image.new("L", size)
    mask.paste(value, box)
    mask.save(path)


def write_rows(folder, rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "metadata.jsonl").write_text("\n".join(lines))


@pytest.fixture
def folder(tmp_path):
    save_picture(tmp_path / "a.png")
    save_picture(tmp_path / "b.png", colour=(30, 200, 30))
    save_picture(tmp_path / "after.png", colour=(30, 30, 200))
    save_mask(tmp_path / "m.png")
    return tmp_path


FILL = {"image": "a.png", "mask": "m.png", "task": "fill", "prompt": "a red apple"}


def test_rows_become_examples_cropped_around_their_masks(folder):
    write_rows(
        folder,
        [
            FILL,
            {**FILL, "target": "after.png"},
            "",
            {"image": "b.png", "mask": "m.png", "task": "removal"},
        ],
    )
    source = FolderSource(folder, image_size=16)
    plain, with_target = source.examples("test")
    (removal,) = source.examples("train")
    assert (plain.prompt, plain.task) == ("a red apple", Task.FILL)
    assert removal.prompt == FIXED_PROMPTS[Task.REMOVAL]
    assert len({plain.id, with_target.id, removal.id}) == 3
    for example in (plain, with_target, removal):
        assert example.image.shape == (16, 16, 3)
        # 40 x 30 cropped to the left 30 x 30, of which 10 columns are masked.
        columns = (example.mask == 255).all(0)
        assert set(np.unique(example.mask)) == {0, 255}
        assert 5 <= columns.sum() <= 6 and columns[:5].all()
    assert not plain.has_target and not removal.has_target and with_target.has_target
    assert not plain.target.any() and not plain.background.any()
    edited = with_target.mask > 0
    assert (with_target.target[edited] == (30, 30, 200)).all()
    np.testing.assert_array_equal(with_target.target[~edited], with_target.image[~edited])


def test_rows_of_one_image_never_land_in_both_splits(folder):
    for number in range(20):
        save_picture(folder / f"{number}.png")
    images = [f"{number}.png" for number in range(20)] * 2
    write_rows(folder, [{**FILL, "image": image} for image in images])
    source = FolderSource(folder, 16)
    train, test = ({e.photo for e in source.examples(split)} for split in ("train", "test"))
    assert not train & test
    assert (len(train), len(test)) == (18, 2)


def test_all_bad_rows_are_reported_with_line_and_reason(folder):
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:40])
    save_mask(folder / "small.png", size=(20, 20))
    save_mask(folder / "empty.png", box=(0, 0, 0, 0))
    save_mask(folder / "full.png", box=(0, 0, 40, 30))
    save_mask(folder / "faint.png", value=127)
    bad = {
        "{not json": "not JSON",
        "[1]": "not a JSON object",
        json.dumps({**FILL, "image": "none.png"}): "there is no file none.png",
        json.dumps({**FILL, "image": "broken.png"}): "broken.png cannot be read",
        json.dumps({**FILL, "mask": "small.png"}): "mask is 20x20 pixels, image 40x30",
        json.dumps({**FILL, "mask": "empty.png"}): "the mask is empty",
        json.dumps({**FILL, "mask": "faint.png"}): "the mask is empty",
        json.dumps({**FILL, "mask": "full.png"}): "covers all of the picture",
        json.dumps({**FILL, "task": "erase"}): "task 'erase' is not one of",
        json.dumps({**FILL, "split": "val"}): "split must be",
        json.dumps({**FILL, "prompt": 3}): "prompt must be a text",
        json.dumps({**FILL, "promt": "x"}): "unknown field 'promt'",
        json.dumps({"image": "a.png", "mask": "m.png", "task": "fill"}): "prompt is missing",
        json.dumps({"mask": "m.png", "task": "removal"}): "image is missing",
    }
    write_rows(folder, [FILL, *bad, FILL])
    with pytest.raises(ValueError, match=f"{len(bad)} bad rows") as error:
        FolderSource(folder, 16)
    reports = str(error.value).splitlines()[1:]
    assert len(reports) == len(bad)
    for number, (reason, report) in enumerate(zip(bad.values(), reports), 2):
        assert report.startswith(f"  line {number}: ") and reason in report


def test_a_long_list_of_bad_rows_is_cut(folder):
    write_rows(folder, ["{"] * (LISTED + 5))
    with pytest.raises(ValueError, match=f"{LISTED + 5} bad rows") as error:
        FolderSource(folder, 16)
    lines = str(error.value).splitlines()
    assert len(lines) == LISTED + 2 and lines[-1].strip() == "and 5 more"


def test_sizes_splits_and_metadata_are_asked_for(folder):
    with pytest.raises(FileNotFoundError, match=r"metadata\.jsonl"):
        FolderSource(folder, 16)
    write_rows(folder, [FILL])
    with pytest.raises(ValueError, match="multiple of 16, found 24"):
        FolderSource(folder, 24)
    with pytest.raises(ValueError, match='no row for the split "train"'):
        FolderSource(folder, 16)


def test_metadata_that_is_not_utf_8_is_named_with_its_line(folder):
    text = json.dumps(FILL) + '\n{"image": "café.png"}\n'
    (folder / "metadata.jsonl").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"metadata\.jsonl, line 2: not UTF-8"):
        FolderSource(folder, 16)
    rows = "\n".join(json.dumps({**FILL, "split": split}) for split in ("train", "test"))
    (folder / "metadata.jsonl").write_bytes(b"\xef\xbb\xbf" + rows.encode())
    assert len(FolderSource(folder, 16).rows) == 2
