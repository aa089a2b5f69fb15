"""Triplets from a user's folder: what is read, and what is said about bad rows."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from onereward_jax.common.listing import LISTED
from onereward_jax.data.example import SPLITS
from onereward_jax.data.folder_source import FolderSource
from onereward_jax.data.metadata import read_rows
from onereward_jax.data.shard_writer import write_triplets
from onereward_jax.data.splits import check_splits, split_rows
from onereward_jax.data.triplets import Triplets
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
            {**FILL, "split": "train"},
            {**FILL, "target": "after.png", "split": "train"},
            "",
            {"image": "b.png", "mask": "m.png", "task": "removal", "split": "test"},
        ],
    )
    source = FolderSource(folder, image_size=16)
    plain, with_target = source.examples("train")
    (removal,) = source.examples("test")
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


def splits_of(folder, rows):
    """The split of each prompt, which no two rows share."""
    write_rows(folder, rows)
    return {row.prompt: row.split for row in split_rows(folder, read_rows(folder))}


def test_a_photograph_decides_its_split_whatever_else_is_in_the_folder(folder):
    rows = []
    for number in range(400):
        name = f"{number}.png"
        save_picture(folder / name, colour=(number % 256, number // 256, 0))
        rows.append({**FILL, "image": name, "prompt": name})
    splits = splits_of(folder, rows)
    assert 20 < sum(split == "test" for split in splits.values()) < 60
    # a copy under another name, other rows in front, another order
    for number in range(40):
        shutil.copy(folder / f"{number}.png", folder / f"copy-{number}.png")
        copy = {**FILL, "image": f"copy-{number}.png", "prompt": f"a copy of {number}"}
        rows.insert(0, copy)
    rows.append({**FILL, "image": "b.png", "prompt": "b"})
    others = splits_of(folder, rows[::-1])
    assert splits.items() <= others.items()
    for number in range(40):
        assert others[f"a copy of {number}"] == splits[f"{number}.png"]


def test_a_photograph_and_what_it_is_edited_to_share_a_split(folder):
    rows, pairs = [], 200
    for number in range(pairs):
        for name, blue in (("object", 0), ("clean", 1)):
            save_picture(folder / f"{name}-{number}.png", colour=(number, blue, 7))
        clean = {**FILL, "image": f"clean-{number}.png", "prompt": f"clean {number}"}
        removal = {**FILL, "image": f"object-{number}.png", "prompt": f"object {number}"}
        rows += [clean, removal | {"target": f"clean-{number}.png"}]
    splits = splits_of(folder, rows)
    for number in range(pairs):
        assert splits[f"clean {number}"] == splits[f"object {number}"]
    assert 10 < sum(split == "test" for split in splits.values()) / 2 < 32
    # a named split holds for both of them
    rows[0] |= {"split": "test"}
    rows[2] |= {"split": "train"}
    named = splits_of(folder, rows)
    assert (named["object 0"], named["object 1"]) == ("test", "train")


def test_splits_that_rows_name_count_and_none_is_left_empty(folder):
    a, b = ({**FILL, "image": f"{name}.png", "prompt": name} for name in "ab")
    assert set(splits_of(folder, [a, b]).values()) == {"train", "test"}
    assert splits_of(folder, [{**a, "split": "test"}, b]) == {"a": "test", "b": "train"}
    assert splits_of(folder, [{**a, "split": "train"}, b]) == {"a": "train", "b": "test"}
    again = {**a, "prompt": "a too"}
    found = splits_of(folder, [again, {**a, "split": "train"}, b])
    assert found == {"a too": "train", "a": "train", "b": "test"}
    for rows in ([a, again], [{**a, "split": "test"}, again], [{**a, "split": "test"}]):
        with pytest.raises(ValueError, match="no row for the split .*: add rows of another photo"):
            splits_of(folder, rows)
        with pytest.raises(ValueError, match="no row for the split "):
            check_splits(folder, read_rows(folder))


def test_a_name_tells_what_a_triplet_is_and_the_same_one_twice_is_left_out(folder):
    other = {**FILL, "image": "b.png", "split": "test"}
    write_rows(folder, [FILL | {"split": "train"}, other])
    source = FolderSource(folder, 16)
    names = {split: example.id for split in SPLITS for example in source.examples(split)}
    shutil.copy(folder / "a.png", folder / "copy.png")
    variants = [
        {"prompt": "a green apple"},
        {"task": "extend_with_prompt"},
        {"target": "after.png"},
        {"mask": "other.png"},
        {"image": "after.png"},
    ]
    save_mask(folder / "other.png", box=(0, 0, 10, 20))
    repeated = FILL | {"image": "copy.png", "split": "test"}
    rows = [*({**FILL, **variant, "split": "train"} for variant in variants)]
    write_rows(folder, [*rows, other, FILL | {"split": "train"}, repeated, rows[0]])
    source = FolderSource(folder, 16)
    repeated = write_triplets(folder / "data", source).repeated
    assert repeated == {7: 6, 8: 0}
    (note,) = source.notes(repeated)
    assert note.endswith("duplicate triplets skipped: line 8 (as 7), 9 (as 1)")
    written = {split: Triplets(folder / "data", split) for split in SPLITS}
    *others, same = written["train"].column("id")
    assert same == names["train"] and len({same, *others}) == len(variants) + 1
    assert written["test"].column("id") == [names["test"]]


def test_rows_are_written_as_people_and_programs_write_them(folder):
    rows = [
        {**FILL, "prompt": "a red\u2028apple", "target": None, "split": None},
        {"image": "b.png", "mask": "m.png", "task": "remove", "prompt": None},
        {"image": "b.png", "mask": "m.png", "task": "extend"},
        {"image": "b.png", "mask": "m.png", "task": "extend", "prompt": "a lake"},
    ]
    text = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\r\n"
    (folder / "metadata.jsonl").write_bytes(text.encode())
    found = read_rows(folder)
    assert [row.line for row in found] == [1, 2, 3, 4]
    assert [row.task for row in found] == [
        Task.FILL, Task.REMOVAL, Task.EXTEND_WITHOUT_PROMPT, Task.EXTEND_WITH_PROMPT
    ]  # fmt: skip
    assert found[0].prompt == "a red\u2028apple" and found[0].target is found[0].split is None
    assert found[1].prompt == FIXED_PROMPTS[Task.REMOVAL]


def test_rows_can_be_read_before_the_pictures_are_there(folder):
    write_rows(folder, [FILL, {**FILL, "image": "none.png", "target": "none too.png"}])
    assert [row.target for row in read_rows(folder, files=False)] == [None, "none too.png"]
    with pytest.raises(ValueError, match="line 2: there is no file none.png"):
        read_rows(folder)


def test_all_bad_rows_are_reported_with_line_and_reason(folder):
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:40])
    save_mask(folder / "small.png", size=(20, 20))
    save_picture(folder / "tall.png", size=(30, 40))
    save_mask(folder / "empty.png", box=(0, 0, 0, 0))
    save_mask(folder / "full.png", box=(0, 0, 40, 30))
    save_mask(folder / "faint.png", value=127)
    bad = {
        "{not json": "not JSON",
        "[1]": "not a JSON object",
        json.dumps({**FILL, "image": "none.png"}): "there is no file none.png",
        json.dumps({**FILL, "image": "broken.png"}): "broken.png is not a readable image",
        json.dumps({**FILL, "mask": "small.png"}): "mask is 20x20 pixels, image 40x30",
        json.dumps({**FILL, "mask": "empty.png"}): "the mask is empty",
        json.dumps({**FILL, "mask": "faint.png"}): "its greatest value is 127",
        json.dumps({**FILL, "mask": "full.png"}): "covers all of the image",
        json.dumps({**FILL, "task": "erase"}): "unknown task 'erase'; there are fill, extend,",
        json.dumps({**FILL, "image": str(folder / "a.png")}): "a.png' leads out of the folder",
        json.dumps({**FILL, "target": "b/../../a.png"}): "target 'b/../../a.png' leads out",
        json.dumps({**FILL, "target": "tall.png"}): "target is 30x40 pixels, image 40x30",
        json.dumps({**FILL, "split": "val"}): "split must be",
        json.dumps({**FILL, "prompt": 3}): "prompt must be a non-empty string",
        json.dumps({**FILL, "promt": "x"}): "unknown field 'promt'",
        json.dumps({**FILL, "prompt": "a \ud800"}): "prompt has a lone surrogate",
        json.dumps({"image": "a.png", "mask": "m.png", "task": "fill"}): "prompt is missing",
        json.dumps({"mask": "m.png", "task": "removal"}): "image is missing",
    }
    write_rows(folder, [FILL, *bad, FILL])
    with pytest.raises(ValueError, match=f"{len(bad)} bad rows") as error:
        write_triplets(folder / "data", FolderSource(folder, 16))
    reports = str(error.value).splitlines()[1:]
    assert len(reports) == len(bad)
    for number, (reason, report) in enumerate(zip(bad.values(), reports), 2):
        assert report.startswith(f"  line {number}: ") and reason in report


def test_a_long_list_of_bad_rows_is_cut(folder):
    write_rows(folder, ["{"] * (LISTED + 5))
    with pytest.raises(ValueError, match=f"{LISTED + 5} bad rows") as error:
        FolderSource(folder, 16).refuse({})
    lines = str(error.value).splitlines()
    assert len(lines) == LISTED + 2 and lines[-1].strip() == "and 5 more"


def test_sizes_splits_and_metadata_are_asked_for(folder):
    with pytest.raises(FileNotFoundError, match=r"is a folder without metadata\.jsonl"):
        FolderSource(folder, 16)
    write_rows(folder, [FILL])
    with pytest.raises(ValueError, match="multiple of 16, found 24"):
        FolderSource(folder, 24)
    with pytest.raises(ValueError, match='no row for the split "test"'):
        FolderSource(folder, 16)
    write_rows(folder, ["", ""])
    with pytest.raises(ValueError, match=r"metadata\.jsonl has no rows"):
        FolderSource(folder, 16)


def test_metadata_that_is_not_utf_8_is_named_with_its_line(folder):
    text = json.dumps(FILL) + '\n{"image": "café.png"}\n'
    (folder / "metadata.jsonl").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"metadata\.jsonl, line 2: not UTF-8"):
        FolderSource(folder, 16)
    rows = "\n".join(json.dumps({**FILL, "image": image}) for image in ("a.png", "b.png"))
    (folder / "metadata.jsonl").write_bytes(b"\xef\xbb\xbf" + rows.encode())
    assert len(FolderSource(folder, 16).rows) == 2


def test_masks_that_may_be_inverted_are_told_while_examples_are_read(tmp_path, caplog):
    shape = np.zeros((64, 64), bool)
    shape[20:44, 20:44] = True
    for name, pixels in (("right", shape), ("inverted", ~shape)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    for number, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{number}.png")
    masks = (("right", "fill"), ("inverted", "fill"), ("inverted", "extend"))
    rows = [
        {"image": f"{number}.png", "mask": f"{name}.png", "prompt": "x", "task": task}
        | {"split": "test" if number == 2 else "train"}
        for number, (name, task) in enumerate(masks)
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = FolderSource(tmp_path, 64)
    told = []
    for place in range(3):
        caplog.clear()
        source.example(place)
        told.append([one.getMessage() for one in caplog.records])
    assert told[0] == told[2] == [] and len(told[1]) == 1
    assert told[1][0].startswith("inverted.png: 86% of the mask is white")
