"""What a team says about its pictures: COCO of every kind, PNG masks, words, captions."""

import json
import unicodedata

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from onereward_jax.curation.known import Notes, known_of
from onereward_jax.curation.segmentation import read_segmentation
from onereward_jax.curation.words_and_captions import (
    Word,
    caption_beside,
    read_captions,
    read_words,
)
from onereward_jax.data.example import RowError

SIZE = (40, 60)
"""Height and width."""


def square(y0, x0, y1, x1):
    mask = np.zeros(SIZE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


MASKS = {
    "polygons": square(5, 10, 25, 30),
    "list": square(0, 0, 7, 9),
    "text": square(9, 9, 39, 50),
}


def run_lengths(mask):
    """Uncompressed, by columns, beginning with zeros."""
    flat, counts, current = mask.flatten(order="F"), [0], False
    for pixel in flat:
        if pixel == current:
            counts[-1] += 1
        else:
            counts.append(1)
            current = pixel
    return counts


def segmentations():
    text = coco_mask.encode(np.asfortranarray(MASKS["text"].astype(np.uint8)))["counts"].decode()
    halves = [[10, 5, 20, 5, 20, 25, 10, 25], [20, 5, 30, 5, 30, 25, 20, 25]]
    return {
        "polygons": halves,
        "list": {"size": list(SIZE), "counts": run_lengths(MASKS["list"])},
        "text": {"size": list(SIZE), "counts": text},
    }


def coco(**changes):
    """A COCO file's content; changes: of its first annotation."""
    images = [{"id": 7, "file_name": "a/b.jpg", "height": SIZE[0], "width": SIZE[1]}]
    images.append({"id": 8, "file_name": "other.jpg", "height": 9, "width": 9})
    annotations = [
        {"image_id": 7, "category_id": 3, "segmentation": one, "iscrowd": int(name == "list")}
        for name, one in segmentations().items()
    ]
    annotations[0] |= changes
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 3, "name": " cat "}],
    }


def test_coco_of_every_kind_becomes_the_same_outlines(tmp_path):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(coco()))
    (name, given), *others = read_segmentation(path, ["a/b.jpg", "c.jpg"]).items()
    assert name == "a/b.jpg" and not others and given.size == SIZE
    for one, expected in zip(given.objects, MASKS.values(), strict=True):
        np.testing.assert_array_equal(one.mask(SIZE), expected)
    assert [one.is_crowd for one in given.objects] == [False, True, False]
    assert {one.label for one in given.objects} == {"cat"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 9}, r"annotations\[0\]: image_id is 9: there is none"),
        ({"category_id": None}, r"annotations\[0\]: category_id is None"),
        ({"segmentation": [[1, 2, 3]]}, "neither polygons nor run lengths"),
        ({"segmentation": []}, "neither polygons nor run lengths"),
        ({"segmentation": {"size": [40, 60], "counts": [3]}}, "neither polygons nor run lengths"),
        ({"segmentation": {"size": [4, 6], "counts": "x"}}, "neither polygons nor run lengths"),
        ({"segmentation": [[1e9, 0, 9, 9, 0, 1e9]]}, "neither polygons nor run lengths"),
        ({"segmentation": [[float("nan"), 0, 9, 9, 0, 9]]}, "neither polygons nor run lengths"),
        ({"image_id": [7]}, r"annotations\[0\]: "),
        ({"segmentation": "x"}, "neither polygons nor run lengths"),
    ],
)
def test_what_is_not_cocos_is_named(tmp_path, change, message):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(coco(**change)))
    with pytest.raises(
        ValueError, match=f"instances.json: 1 annotations are not COCO's\n  .*{message}"
    ):
        read_segmentation(path, ["a/b.jpg"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "is not JSON"),
        ("[]", "is not a COCO file: not a JSON object"),
        ('{"images": []}', "annotations is not a list"),
        (
            '{"images": [{"id": 1, "file_name": 3}], "annotations": [], "categories": []}',
            "needs the fields id, file_name, height, width",
        ),
        ('{"images": [], "annotations": [], "categories": []}', "has an object of none of the pic"),
    ],
)
def test_files_that_are_not_cocos_are_refused(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_segmentation(path, ["a/b.jpg"])
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        read_segmentation(tmp_path / "none", ["a/b.jpg"])


def test_damaged_run_lengths_are_an_error_of_the_picture(tmp_path):
    path = tmp_path / "instances.json"
    damaged = {"size": list(SIZE), "counts": segmentations()["text"]["counts"][:2]}
    path.write_text(json.dumps(coco(segmentation=damaged)))
    given = read_segmentation(path, ["a/b.jpg"])["a/b.jpg"]
    with pytest.raises(RowError):
        given.objects[0].mask(SIZE)


def test_png_masks_belong_to_the_picture_of_the_same_name(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(MASKS["list"]).save(tmp_path / "a" / "b.png")
    found = read_segmentation(tmp_path, ["a/b.jpg", "b.jpg"])
    assert list(found) == ["a/b.jpg"] and found["a/b.jpg"].size is None
    (only,) = found["a/b.jpg"].objects
    assert only.label == "" and not only.is_crowd
    np.testing.assert_array_equal(only.mask(SIZE), MASKS["list"])
    with pytest.raises(RowError, match="b.png is 60x40 pixels, the picture 40x60"):
        only.mask(SIZE[::-1])
    (tmp_path / "a" / "b.png").write_bytes(b"no picture")
    with pytest.raises(RowError, match="b.png cannot be read"):
        only.mask(SIZE)
    Image.new("L", SIZE[::-1]).save(tmp_path / "a" / "b.png")
    with pytest.raises(RowError, match="an outline is empty"):
        only.mask(SIZE)


def write_lines(path, *lines):
    path.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    )
    return path


def test_words_and_captions_are_read_by_picture(tmp_path):
    words = write_lines(
        tmp_path / "words.jsonl",
        {"picture": "a.jpg", "box": [10.5, 4, 20, 6.2], "text": " BIG   SALE "},
        "",
        {"picture": "a.jpg", "box": [0, 0, 5, 5], "text": "b", "score": 0.9},
        {"picture": "elsewhere.jpg", "box": [0, 0, 5, 5], "text": "c"},
    )
    found = read_words(words, ["a.jpg"])
    assert found == {"a.jpg": [Word((4, 10, 11, 31), "BIG SALE"), Word((0, 0, 5, 5), "b")]}
    captions = write_lines(tmp_path / "c.jsonl", {"picture": "a.jpg", "caption": "a\ncat"})
    assert read_captions(captions, ["a.jpg"]) == {"a.jpg": "a cat"}
    with pytest.raises(ValueError, match="names none of the pictures"):
        read_captions(captions, ["b.jpg"])


def test_bad_lines_are_all_named(tmp_path):
    path = write_lines(
        tmp_path / "words.jsonl",
        "{",
        {"box": [0, 0, 5, 5], "text": "x"},
        {"picture": "a.jpg", "box": [0, 0, 5]},
        {"picture": "a.jpg", "box": [0, 0, 0, 5], "text": "x"},
        {"picture": "a.jpg", "box": [0, 0, 3, float("nan")], "text": "x"},
        {"picture": "a.jpg", "box": [0, 0, 5, 5], "text": "  "},
        {"picture": "a.jpg", "box": [0, 0, 5, 5], "text": "x" * 2001},
    )
    with pytest.raises(ValueError) as said:
        read_words(path, ["a.jpg"])
    head, *lines = str(said.value).split("\n  ")
    assert head.endswith("words.jsonl: 7 bad lines")
    parts = ("Expecting", "picture", "text is missing", "above 0", "box", "non-empty", "2001 char")
    assert all(part in line for part, line in zip(parts, lines, strict=True))
    assert [line.split(":")[0] for line in lines] == [f"line {n}" for n in range(1, 8)]


def test_what_does_not_fit_a_picture_is_left_out_and_said(tmp_path):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(coco()))
    segmentation = read_segmentation(path, ["a/b.jpg"])
    inside, outside = Word((0, 0, 5, 5), "in"), Word((0, 0, 5, 90), "out")
    notes = Notes(segmentation, {"a/b.jpg": [inside, outside]}, {})
    picture = tmp_path / "b.jpg"
    picture.with_suffix(".txt").write_text("a cat\n on a mat \n")
    known, remarks = known_of(picture, "a/b.jpg", SIZE, notes)
    assert known.words == [inside] and len(known.objects) == 3
    assert known.caption == "a cat on a mat" and len(remarks) == 1 and "'out'" in remarks[0]
    known, remarks = known_of(picture, "a/b.jpg", (60, 40), notes)
    assert not known.objects and "is for 60x40 pixels, it has 40x60" in remarks[-1]
    picture.with_suffix(".txt").write_bytes(b"\xff\xfe\xfa")
    known, remarks = known_of(picture, "other", SIZE, notes)
    assert known.caption == "" and "b.txt is not UTF-8" in remarks[0]
    notes = Notes({}, {}, {"other": "from the file"})
    assert known_of(picture, "other", SIZE, notes)[0].caption == "from the file"
    assert caption_beside(tmp_path / "none.jpg") == ""


def test_names_are_found_in_another_unicode_form(tmp_path):
    """As a Mac's disk has them, and as editors write them."""
    disk = unicodedata.normalize("NFD", "café/ü.jpg")
    rows = {"picture": "café/ü.jpg", "caption": "a cup", "text": "CUP", "box": [0, 0, 5, 5]}
    (tmp_path / "notes.jsonl").write_text(json.dumps(rows))
    assert read_captions(tmp_path / "notes.jsonl", [disk]) == {disk: "a cup"}
    assert [*read_words(tmp_path / "notes.jsonl", [disk])] == [disk]
    content = coco()
    for image in content["images"]:
        image["file_name"] = "café/ü.jpg"
    (tmp_path / "coco.json").write_text(json.dumps(content))
    assert [*read_segmentation(tmp_path / "coco.json", [disk])] == [disk]
    (tmp_path / "masks" / "café").mkdir(parents=True)
    Image.new("L", SIZE[::-1], 255).save(tmp_path / "masks" / "café" / "ü.png")
    assert [*read_segmentation(tmp_path / "masks", [disk])] == [disk]
