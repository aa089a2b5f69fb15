"""Pictures, rows and options of imports that cannot be used, each with its reason."""

import io
import json
import zlib

import pytest
from PIL import Image, ImageOps
from public_sets import TABLE_FLAGS, refused, run_import, write_table

from onereward_jax.annotation import given_pictures
from onereward_jax.annotation.preferences_folder import read_comparisons


def png_bomb(width, height):
    """A small PNG that claims to be large."""

    def chunk(kind, content):
        crc = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + crc

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    rows = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def encoded(image, format):
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (png_bomb(60000, 60000), "exceeds limit of 178956970 pixels"),
        (png_bomb(9000, 9000), "is 9000x9000 pixels, more than 67108864"),
        (png_bomb(64, 64), "is not a picture that can be read (PNG, JPEG, WEBP)"),
        (b"\x80\x04\x95K\0\0\0", "is not a picture that can be read"),
        (b"", "is not a picture that can be read"),
        (encoded(Image.new("RGB", (8, 8)), "GIF"), "is not a picture that can be read"),
        (encoded(Image.new("RGB", (8, 8)), "PPM"), "is not a picture that can be read"),
    ],
    ids=("bomb", "large", "cut", "pickle", "empty", "gif", "ppm"),
)
def test_pictures_that_are_none_or_too_large_are_refused(content, reason, tmp_path, capsys):
    write_table(tmp_path, rows=2)
    (tmp_path / "left-1.jpg").write_bytes(content)
    message = refused(capsys, tmp_path / "pairs.csv", tmp_path / "to", *TABLE_FLAGS)
    head, line = message.split("\n  ")
    assert head.endswith("1 bad row") and line.startswith("line 5: candidates[0] left-1.jpg ")
    assert reason in line


def test_a_large_file_is_not_read(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(given_pictures, "MAX_BYTES", 100)
    write_table(tmp_path, rows=1)
    message = refused(capsys, tmp_path / "pairs.csv", tmp_path / "to", *TABLE_FLAGS)
    assert "left-0.jpg has more than 100 bytes" in message


def test_rotated_photographs_are_read_upright(tmp_path):
    write_table(tmp_path, rows=1)
    turned = Image.new("RGB", (30, 20), "red")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "left-0.jpg", exif=exif)
    run_import(tmp_path / "pairs.csv", tmp_path / "to", *TABLE_FLAGS)
    (one,) = read_comparisons(tmp_path / "to")
    sizes = {(each.picture.width, each.picture.height) for each in one.candidates}
    upright = ImageOps.exif_transpose(Image.open(tmp_path / "left-0.jpg"))
    assert upright.size == (20, 30) and (20, 30) in sizes


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"left": "../secret.jpg"}, "image_a '../secret.jpg' leads out of the folder"),
        ({"left": None}, "left is missing; --columns image_a=NAME names another column"),
        ({"choice": "maybe"}, "label 'maybe' is none of 'leftvote', 'rightvote', 'same'"),
        ({"choice": 1.5}, "label 1.5 is none of"),
        ({"choice": True}, "label True is none of"),
        ({"caption": None}, "prompt is missing; the task fill needs one"),
        ({"left": "none.jpg"}, "image_a: there is no file none.jpg"),
        ({"task": "paint"}, "unknown task 'paint'"),
        ({"dimension": "removal_quality"}, "is not a dimension of image fill"),
        ({"split": "dev"}, 'split must be "train" or "test", found \'dev\''),
        ({"seconds": -1}, "seconds must be a finite number, at least 0, found -1"),
        ({"image": "left-0.jpg", "mask": "right-0.jpg"}, None),
    ],
)
def test_tables_say_what_is_wrong_with_a_row(change, reason, tmp_path, capsys):
    write_table(tmp_path, rows=1)
    row = {"left": "left-0.jpg", "right": "right-0.jpg", "caption": "x", "choice": "same"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row | change))
    if reason is None:
        run_import(tmp_path / "a.jsonl", tmp_path / "to", *TABLE_FLAGS)
        (one,) = read_comparisons(tmp_path / "to")
        assert one.source == one.image.pixels and one.mask.pixels != one.image.pixels
        return
    message = refused(capsys, tmp_path / "a.jsonl", tmp_path / "to", *TABLE_FLAGS)
    assert message.startswith(f"{tmp_path / 'a.jsonl'}: 1 bad row\n  line 1: ")
    assert reason in message


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--format=csv",), "--format: 'csv' is none of folder, parquet, huggingface"),
        (("--format=table", "--task=extend"), "--task: say extend_with_prompt or"),
        (("--format=table", "--task=paint"), "--task: unknown task 'paint'"),
        (("--format=table", "--columns=imagea=left"), "--columns: 'imagea' is not one of image_a"),
        (("--format=table", "--columns=left"), "--columns: 'left' is not NAME=NAME"),
        (("--format=table", "--labels=c=left"), "--labels: 'c' is not one of a, b, tie"),
        (("--format=table", "--dimensions=x=beauty"), "--dimensions: 'beauty' is none of"),
        (("--format=edit_reward",), "--dimensions is missing: map the dimensions"),
        (("--format=edit_reward", "--dimensions=dim1=structure"), "'dim1' is not one of"),
        (("--format=folder",), "is not a preferences folder: there is no about.json"),
        (("--format=parquet",), "is not a Parquet file"),
        (("--format=label_studio",), "--pictures must name the folder that was exported"),
        (("--format=table", "--pictures=nowhere"), "--pictures: there is no folder nowhere"),
        (("--format=table",), "task is missing: name the task of all rows with --task"),
        (("--format=table", "--task=fill"), "name the dimension of all rows with --dimensions"),
    ],
)
def test_options_are_explained_in_one_message(flags, reason, tmp_path, capsys):
    write_table(tmp_path, rows=1)
    columns = () if any("--columns" in flag for flag in flags) else TABLE_FLAGS[1:3]
    columns = () if any("--labels" in flag for flag in flags) else columns
    source = tmp_path / "pairs.csv"
    assert reason in refused(capsys, source, tmp_path / "to", *columns, *flags)


def test_pairs_without_a_source_join_that_of_their_pictures_and_a_source_may_be_0(tmp_path):
    write_table(tmp_path, rows=24)
    rows = []
    for number in range(24):
        row = {"image_a": f"left-{number}.jpg", "prompt": "x", "label": 1, "source": number // 2}
        rows.append(row | {"image_b": f"right-{number}.jpg"})
        if number % 6 == 0:
            rows.append(row | {"image_b": f"left-{number + 3}.jpg", "source": None})
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ("--format=table", "--task=fill", "--dimensions=aesthetics")
    run_import(tmp_path / "a.jsonl", tmp_path / "to", *flags)
    found = read_comparisons(tmp_path / "to")
    assert {one.source for one in found} == {"", *map(str, range(12))}
    splits = {}
    for one in found:
        for each in one.candidates:
            splits.setdefault(each.picture.digest, set()).add(one.split)
    assert {split for one in splits.values() for split in one} == {"train", "test"}
    assert all(len(one) == 1 for one in splits.values())
