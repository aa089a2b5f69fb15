"""A data set of photographs on disk: what a kill leaves, what is stored, what opening it reads."""

import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import grain
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import onereward_jax
from onereward_jax.data import shard_writer
from onereward_jax.data.example import SPLITS
from onereward_jax.data.folder_source import FolderSource
from onereward_jax.data.index import index_path, write_index
from onereward_jax.data.shard_writer import write_triplets
from onereward_jax.data.tfds_record import RecordReader
from onereward_jax.data.triplets import Triplets

ROOT = pathlib.Path(onereward_jax.__file__).parents[1]
SIDE, ROWS, REPEATED = 64, 24, 9
BOX = (30, 20, 60, 50)
KILLED = f"""
import os, pathlib, signal, sys
from onereward_jax.data import shard_writer
from onereward_jax.data.folder_source import FolderSource
shard_writer.SHARD_ROWS = 4
photographs, written = map(pathlib.Path, sys.argv[1:])
watch = lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if done == 10 else None
shard_writer.write_triplets(written, FolderSource(photographs, {SIDE}), progress=watch)
"""


@pytest.fixture(scope="module", autouse=True)
def small_shards():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_writer, "SHARD_ROWS", 4)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs as JPEG and PNG files; every third row has a target, row 9 repeats row 2."""
    folder, rng, rows = tmp_path_factory.mktemp("photos"), np.random.default_rng(0), []
    mask = Image.new("L", (96, 72))
    mask.paste(255, BOX)
    mask.save(folder / "mask.png")
    for number in range(ROWS):
        name = f"{number}.{'png' if number % 5 == 4 else 'jpg'}"
        photograph(rng).save(folder / name)
        row = {"image": name, "mask": "mask.png", "task": "fill", "prompt": f"a pear, {number}"}
        if number % 3 == 0:
            photograph(rng).save(folder / f"after-{name}")
            row["target"] = f"after-{name}"
        rows.append(row | {"split": "test" if number % 4 == 1 else "train"})
    rows[REPEATED] = rows[2]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def photograph(rng, size=(96, 72)):
    """Smooth colours and some noise."""
    smooth = Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8))
    pixels = np.asarray(smooth.resize(size, Image.BICUBIC), np.int16)
    return Image.fromarray(np.uint8(np.clip(pixels + rng.integers(-6, 6, pixels.shape), 0, 255)))


@pytest.fixture(scope="module")
def written(folder, tmp_path_factory):
    written = tmp_path_factory.mktemp("written")
    assert write_triplets(written, FolderSource(folder, SIDE)).repeated == {REPEATED: 2}
    return written


def files_of(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_killed_and_resumed_equals_uninterrupted(folder, written, tmp_path, monkeypatch):
    read, example = [], FolderSource.example
    monkeypatch.setattr(
        FolderSource, "example", lambda self, row: read.append(row) or example(self, row)
    )
    copied_at = (1, 7, 13, ROWS)

    def copy(done, total):
        assert total == ROWS
        if done in copied_at:  # what is there when the process is killed now
            shutil.copytree(tmp_path / "whole", tmp_path / f"killed-{done}")

    write_triplets(tmp_path / "whole", FolderSource(folder, SIDE), progress=copy)
    assert sorted(read) == list(range(ROWS))
    assert any(".draft" in path.name for path in files_of(tmp_path / "killed-13"))
    command = [sys.executable, "-c", KILLED, str(folder), str(tmp_path / "killed-10")]
    killed = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert killed.returncode == -signal.SIGKILL
    seen, killed_at = [], (1, 7, 10, 13, ROWS)
    for done in killed_at:
        read.clear()
        write_triplets(tmp_path / f"killed-{done}", FolderSource(folder, SIDE))
        assert files_of(tmp_path / f"killed-{done}") == files_of(written)
        seen.append(len(read))
    # of the rows that came before, at most an unfinished shard of each split is read again
    assert len(set(read)) == len(read) and seen[-1] == 0
    assert all(again <= ROWS - done + 6 for again, done in zip(seen, killed_at))


def test_opening_reads_no_record(folder, written, tmp_path):
    shutil.copytree(written, tmp_path / "data")
    shard_files = sorted((tmp_path / "data").rglob("*.array_record-*"))
    for path in shard_files:
        path.write_bytes(bytes(path.stat().st_size))
    rows = [row for place, row in enumerate(FolderSource(folder, SIDE).rows) if place != REPEATED]
    for split in SPLITS:
        opened, known = Triplets(tmp_path / "data", split), Triplets(written, split)
        expected = [row for row in rows if row.split == split]
        assert opened.column("prompt") == [row.prompt for row in expected]
        assert opened.column("photo") == [row.image for row in expected]
        assert opened.column("id") == [known[row]["id"] for row in range(len(known))]
        assert opened.has_target.tolist() == [row.target is not None for row in expected]
        assert opened.sizes.tolist() == [[SIDE, SIDE]] * len(expected)
        assert len(opened) == len(opened.with_task(expected[0].task)) == len(expected)
    shard_files[-1].write_bytes(b"cut")
    with pytest.raises(ValueError, match="the index does not match the records .* has 3 bytes"):
        Triplets(tmp_path / "data", "train")
    shard_files[-1].unlink()
    with pytest.raises(ValueError, match="the index does not match the records .there is no"):
        Triplets(tmp_path / "data", "train")


def test_an_index_of_other_records_of_equal_length_is_noticed_on_reading(written, tmp_path):
    shutil.copytree(written, tmp_path / "data")
    (path,) = (tmp_path / "data").rglob("index-test.json")
    content = json.loads(path.read_text())
    content["rows"]["id"][1] = "0123456789abcdef"
    path.write_text(json.dumps(content))
    opened = Triplets(tmp_path / "data", "test")
    assert opened[0]["id"] == opened.column("id")[0]
    with pytest.raises(ValueError, match="record 1 is the triplet .* has 0123456789abcdef"):
        opened.read(1, ("image",))
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ValueError, match="index-test.json is damaged .*: remove the output of"):
        Triplets(tmp_path / "data", "test")


def test_each_picture_is_stored_once_and_as_its_file_is(folder, written):
    source = FolderSource(folder, SIDE)
    (path,) = written.rglob("dataset_info.json")
    builder = tfds.builder_from_directory(str(path.parent))
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    for split in SPLITS:
        opened = Triplets(written, split)
        examples = {example.id: example for example in source.examples(split)}
        records = builder.as_data_source(split, deserialize_method=raw)
        for row, record in enumerate(records):
            found, files = opened[row], RecordReader(builder.info.features).files(record)
            example, has_target = examples[found["id"]], found["has_target"]
            is_png = example.photo.endswith("png")
            assert not files["background"] and bool(files["target"]) == has_target
            for name in ("image", "target")[: 1 + has_target]:
                with Image.open(io.BytesIO(files[name])) as picture:
                    assert picture.format == ("PNG" if is_png else "JPEG")
                off = np.abs(found[name].astype(np.float32) - getattr(example, name))
                assert off.max() == 0 if is_png else 0 < off.mean() < 3
            np.testing.assert_array_equal(found["mask"][..., 0], example.mask)
            np.testing.assert_array_equal(found["background"], found["target"])
            # outside the mask an edit changes nothing, whatever compression does
            outside = example.mask == 0
            wanted = found["image"] if has_target else np.zeros_like(found["image"])
            np.testing.assert_array_equal(found["target"][outside], wanted[outside])
            pictures = sum(len(files[name]) for name in ("image", "mask", "target"))
            assert len(record) < pictures + 500


def test_a_photograph_of_the_right_size_keeps_its_own_bytes_but_not_its_metadata(folder, tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "the photographer's garden"
    picture = photograph(np.random.default_rng(1), (SIDE, SIDE))
    for name in ("a.jpg", "b.jpg"):
        picture.save(tmp_path / name, quality=60, exif=exif, comment="secret")
    Image.open(folder / "mask.png").crop((0, 0, SIDE, SIDE)).save(tmp_path / "mask.png")
    row = {"mask": "mask.png", "task": "remove"}
    rows = [row | {"image": "a.jpg", "split": "train"}, row | {"image": "b.jpg", "split": "test"}]
    rows[1]["target"] = "a.jpg"
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    write_triplets(tmp_path / "data", FolderSource(tmp_path, SIDE))
    with Image.open(tmp_path / "a.jpg") as stored:
        np.testing.assert_array_equal(Triplets(tmp_path / "data", "train")[0]["image"], stored)
    for content in files_of(tmp_path / "data").values():
        assert b"garden" not in content and b"secret" not in content


def test_small_pictures_are_enlarged_or_refused(folder, tmp_path):
    source = FolderSource(folder, 96)
    (note,) = source.notes({})
    assert f"{ROWS} of {ROWS} images are upscaled, the first in line 1: image 0.jpg is" in note
    assert not FolderSource(folder, 64, small_pictures="refuse").notes({})
    with pytest.raises(ValueError, match=f"{ROWS} bad rows\n  line 1: .* smaller than 96x96"):
        write_triplets(tmp_path, FolderSource(folder, 96, small_pictures="refuse"))


def test_tfds_and_grain_read_the_records(written):
    (path,) = written.rglob("dataset_info.json")
    plain = tfds.builder_from_directory(str(path.parent)).as_data_source("train")
    ours = Triplets(written, "train")
    records = grain.MapDataset.source(plain).seed(0).shuffle()
    assert len(records) == len(ours)
    for row in range(3):
        np.testing.assert_array_equal(plain[row]["image"], ours[row]["image"])
        assert len(plain[row]["target"]) == ours.has_target[row]


def test_a_data_set_without_index_is_read_once(written, tmp_path):
    shutil.copytree(written, tmp_path / "data")
    (folder,) = (path.parent for path in (tmp_path / "data").rglob("features.json"))
    index_path(folder, "train").unlink()
    scanned, known = Triplets(folder, "train"), Triplets(written, "train")
    assert scanned.scanned and not known.scanned
    assert dict(scanned.index.rows) == dict(known.index.rows)
    write_index(tmp_path, "train", scanned.index)
    assert not Triplets(folder, "train", index=tmp_path).scanned
