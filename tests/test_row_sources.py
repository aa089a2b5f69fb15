"""One set of triplets in every kind of file that rows are read from gives the same triplets."""

import csv
import io
import json
import shutil
import tarfile
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ml_collections import FrozenConfigDict
from PIL import Image

from onereward_jax.chain import fingerprints
from onereward_jax.data import parquet_rows
from onereward_jax.data.folder_source import FolderSource
from onereward_jax.data.metadata import read_rows
from onereward_jax.data.row_files import row_files
from onereward_jax.inference.edit_requests import read_edit_rows
from onereward_jax.tasks import FIXED_PROMPTS, Task

COUNT = 40
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def row(number):
    """A triplet: every fourth is a removal with a target, the others are fills."""
    fields = {"image": f"{number:02d}.png", "mask": "m.png", "prompt": f'a "red", {number}'}
    if number % 4 == 3:
        fields |= {"prompt": None, "task": "Removal", "target": "t.png"}
    return fields


ROWS = [row(number) for number in range(COUNT)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(COUNT):
        Image.new("RGB", (24, 16), (5 * number, 99, 20)).save(folder / f"{number:02d}.png")
    mask = Image.new("L", (24, 16))
    mask.paste(255, (2, 2, 12, 12))
    mask.save(folder / "m.png")
    Image.new("RGB", (24, 16), (1, 2, 3)).save(folder / "t.png")
    return folder


@pytest.fixture
def folder(pictures, tmp_path):
    shutil.copytree(pictures, tmp_path, dirs_exist_ok=True)
    return tmp_path


def as_json_lines(folder, rows):
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def as_hugging_face(folder, rows):
    names = {"image": "file_name", "mask": "mask_file_name", "target": "target_file_name"}
    names |= {"prompt": "text"}
    renamed = [{names.get(name, name): value for name, value in row.items()} for row in rows]
    return as_json_lines(folder, [row | {"width": 24} for row in renamed])


def as_csv(folder, rows, delimiter=",", bom=""):
    columns = ("", "image", "mask", "prompt", "task", "target")
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(columns)
    for number, one in enumerate(rows):
        writer.writerow([number, *(one.get(column) for column in columns[1:])])
    (folder / "metadata.csv").write_text(bom + text.getvalue(), encoding="utf-8", newline="")
    return folder


def as_semicolons(folder, rows):
    return as_csv(folder, rows, ";", "\ufeff")


def as_parquet_of_paths(folder, rows):
    columns = {name: [one.get(name) for one in rows] for name in ("image", "mask", "target")}
    columns |= {name: [one.get(name) for one in rows] for name in ("prompt", "task")}
    pq.write_table(pa.table(columns | {"score": [float("nan")] * COUNT}), folder / "rows.parquet")
    return folder / "rows.parquet"


def as_parquet_of_pictures(folder, rows):
    """As `datasets` writes it to the hub: two files, structs, small row groups."""

    def stored(name):
        return name and {"bytes": (folder / name).read_bytes(), "path": name}

    (folder / "hub" / "data").mkdir(parents=True)
    half = COUNT // 2
    for place, part in enumerate((rows[:half], rows[half:])):
        columns = {
            field: pa.array([stored(one.get(field)) for one in part], STRUCT)
            for field in ("image", "mask", "target")
        }
        columns |= {name: [one.get(name) for one in part] for name in ("prompt", "task")}
        name = f"train-{place:05}-of-00002.parquet"
        pq.write_table(pa.table(columns), folder / "hub" / "data" / name, row_group_size=7)
    return folder / "hub"


def as_tars(folder, rows):
    for shard in range(2):
        with tarfile.open(folder / f"s-{shard:06}.tar", "w") as tar:
            for number in range(shard * COUNT // 2, (shard + 1) * COUNT // 2):
                fields = rows[number]
                tar.add(folder / fields["image"], f"sub/{number}.png")
                tar.add(folder / fields["mask"], f"sub/{number}.mask.png")
                if fields.get("target"):
                    tar.add(folder / fields["target"], f"sub/{number}.target.PNG")
                texts = {"json": json.dumps({"task": fields.get("task"), "key": "x"})}
                texts |= {"txt": f"{fields['prompt']}\n"} if fields["prompt"] else {}
                for suffix, text in texts.items():
                    member = tarfile.TarInfo(f"sub/{number}.{suffix}")
                    member.size = len(text.encode())
                    tar.addfile(member, io.BytesIO(text.encode()))
    return folder / "s-{000000..000001}.tar"


def as_folders_of_splits(folder, rows):
    for split, part in (("train", rows[: COUNT - 8]), ("test", rows[COUNT - 8 :])):
        (folder / split).mkdir()
        for path in list(folder.glob("*.png")):
            shutil.copy(path, folder / split)
        as_csv(folder / split, part)
    return folder


KINDS = (
    *(as_json_lines, as_hugging_face, as_csv, as_semicolons, as_parquet_of_paths),
    *(as_parquet_of_pictures, as_tars, as_folders_of_splits),
)


@pytest.mark.parametrize("write", KINDS, ids=lambda write: write.__name__)
def test_every_kind_of_file_gives_the_same_triplets_to_training_and_to_edit(folder, write):
    path = write(folder, ROWS)
    source = FolderSource(path, 16)
    source.refuse({})
    if write is as_folders_of_splits:
        assert source.splits == ("test",) * 8 + ("train",) * (COUNT - 8)
        return
    assert [one.prompt for one in source.rows] == [
        one["prompt"] or FIXED_PROMPTS[Task.REMOVAL] for one in ROWS
    ]
    for number in (0, 3, 17, 18, COUNT - 1, 1):  # embedded pictures are not only read in order
        example = source.example(number)
        assert tuple(example.image[0, 0]) == (5 * number, 99, 20)
        assert example.task == (Task.REMOVAL if number % 4 == 3 else Task.FILL)
        assert example.has_target == (number % 4 == 3)
        assert example.mask.any() and not example.mask.all()
    rows, errors = read_edit_rows(path)
    assert not errors and len(rows) == COUNT
    assert [one.size for one in rows] == [(24, 16)] * COUNT
    names = {as_tars: "sub/39", as_parquet_of_pictures: "train-00001-of-00002-20"}
    assert rows[-1].name == names.get(write, "39")
    request = rows[17].open()
    assert request.image.getpixel((0, 0)) == (85, 99, 20) and request.prompt == 'a "red", 17'
    assert np.asarray(request.mask).sum() == 100 * 255


def test_the_splits_of_tars_and_files_follow_the_photograph(folder):
    splits = [FolderSource(write(folder, ROWS), 16).splits for write in (as_json_lines, as_tars)]
    assert splits[0] == splits[1]


def test_a_picture_that_changes_inside_a_tar_or_under_another_unicode_form_is_noticed(folder):
    digest = fingerprints.pictures("data.path")
    work = folder / "work"
    work.mkdir()

    def asked(path):
        return digest(FrozenConfigDict({"data": {"path": str(path)}}), work)

    pattern = as_tars(folder, ROWS)
    before = asked(pattern)
    assert asked(pattern) == before
    tar = folder / "s-000001.tar"
    content = bytearray(tar.read_bytes())
    content[content.rfind(b"IDAT") + 9] ^= 1
    tar.write_bytes(content)
    assert asked(pattern) != before
    nfd = folder / (unicodedata.normalize("NFD", "café") + ".png")
    shutil.copy(folder / "00.png", nfd)
    rows = as_json_lines(folder, [ROWS[0] | {"image": "café.png"}])
    before = asked(rows)
    shutil.copy(folder / "01.png", nfd)
    assert asked(rows) != before


def test_the_library_datasets_reads_our_folder_and_we_read_its_files(folder, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    rows = [one for one in ROWS if "target" not in one]
    for one in ROWS:  # it wants a row for every picture
        if "target" in one:
            (folder / one["image"]).unlink()
    (folder / "t.png").unlink()
    as_hugging_face(folder, rows)
    cache = str(folder / "cache")
    found = datasets.load_dataset(
        "imagefolder", data_dir=str(folder), split="train", cache_dir=cache
    )
    assert found[5]["text"] == rows[5]["prompt"] and found[5]["mask"].size == (24, 16)
    found = found.with_format("arrow").map(datasets.table.embed_table_storage, batched=True)
    (folder / "hub").mkdir()
    found.with_format(None).to_parquet(str(folder / "hub" / "train-00000-of-00001.parquet"))
    source = FolderSource(folder / "hub", 16)
    source.refuse({})
    assert [row.prompt for row in source.rows] == [row["prompt"] for row in rows]
    assert tuple(source.example(5).image[0, 0]) == (5 * int(rows[5]["image"][:2]), 99, 20)


def test_shards_and_tables_in_a_bucket_are_copied_and_read(folder, bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("ONEREWARD_COPIES", str(tmp_path / "copies"))
    as_tars(folder, ROWS)
    as_csv(folder, ROWS)
    for path in sorted(folder.iterdir()):
        if path.is_file():
            bucket.write(f"rows/{path.name}", path.read_bytes())
    for name in ("s-{000000..000001}.tar", "s-*.tar", "metadata.csv", ""):
        found = read_rows(f"{bucket}/rows/{name}")
        assert len(found) == COUNT and found[5].size == (24, 16), name


def test_pictures_in_parquet_are_read_in_windows(folder):
    """A file of one row group, as pandas writes it, is not held in memory."""
    columns = {"image": pa.array([{"bytes": bytes([n]) * 9, "path": None} for n in range(200)])}
    pq.write_table(pa.table(columns), folder / "one.parquet", row_group_size=1000)
    found = parquet_rows.parquet_rows(folder / "one.parquet", lambda column: True)
    cells = [fields["image"] for _, fields in found]
    for number in (*range(200), 3, 150, 149):
        assert cells[number].read() == bytes([number]) * 9
    assert len(parquet_rows._READER._windows) <= parquet_rows.WINDOWS


def test_bad_rows_of_every_kind_are_named_where_they_are(folder):
    path = as_csv(folder, ROWS)
    text = (path / "metadata.csv").read_text().replace('"a ""red"", 5"', '"a\nlong\nprompt"')
    text = text.replace("07.png", "none.png").replace("9,09.png,m.png,", "9,09.png,,")
    (path / "metadata.csv").write_text(text + '40,00.png,m.png,"not closed\n')
    with pytest.raises(ValueError) as error:
        FolderSource(path, 16).refuse({})
    told = str(error.value).split("\n  ")
    assert told[0] == f"{path / 'metadata.csv'}: 3 bad rows"
    assert told[1] == "line 11: there is no file none.png"  # a row above it has three lines
    assert told[2].startswith("line 13: mask is missing")
    assert told[3] == "line 44: not CSV: a quote that begins in this row is not closed"


def test_unicode_forms_case_and_backslashes_of_names(folder):
    (folder / "Ordner").mkdir()
    nfd = unicodedata.normalize("NFD", "café")
    shutil.copy(folder / "00.png", folder / "Ordner" / f"{nfd}.png")
    (folder / nfd).mkdir()
    shutil.copy(folder / "01.png", folder / nfd / "b.png")
    names = {
        "Ordner/café.png": None,
        "café/b.png": None,
        "ordner/café.png": "there is Ordner: upper and lower case differ",
        "Ordner\\cafe.png": "separate folders with /, as in Ordner/cafe.png",
        "https://example.org/a.png": "is a URL: save the picture",
        "s3://bucket/a.png": "is a URL",
        "data:image/png;base64,AAAA": "is a URL",
        "C:\\pictures\\a.png": "leads out of the folder",
        "Ordner": "Ordner is a folder, not a picture",
        "a\0.png": "there is no file 'a\\x00.png'",
        "a\n.png": "there is no file 'a\\n.png'",
        "a" * 300 + ".png": "cannot be read: File name too long",
    }
    as_json_lines(folder, [ROWS[0] | {"image": name} for name in names])
    with pytest.raises(ValueError) as error:
        read_rows(folder)
    told = str(error.value).split("\n  ")[1:]
    assert len(told) == len(names) - 2
    for line, reason in zip(told, filter(None, names.values())):
        assert reason in line, line


def test_paths_lead_out_only_where_that_is_allowed(folder):
    shutil.move(folder / "00.png", folder.parent / "outside.png")
    inside = folder / "inside"
    inside.mkdir()
    shutil.copy(folder / "01.png", inside)
    for name in (str(folder.parent / "outside.png"), "../../outside.png"):
        fields = ROWS[0] | {"image": name, "mask": "../m.png"}
        as_json_lines(inside, [fields | {"split": "test"}, fields | {"image": "01.png"}])
        with pytest.raises(ValueError, match="2 bad rows\n  line 1: image .* leads out of the fol"):
            read_rows(inside)
        source = FolderSource(inside, 16, paths="anywhere")
        assert tuple(source.example(0).image[0, 0]) == (0, 99, 20)


def test_columns_of_other_programs_are_left_out_and_misspelt_ones_are_not(folder):
    rows = [one | {"label": 3, "note": "b"} for one in ROWS[:4]]
    (note, tasks, *_) = FolderSource(as_hugging_face(folder, rows), 16).notes({})
    assert note.endswith("metadata.jsonl: columns that are not read: label, note, width")
    assert tasks.endswith("3 of 4 rows name no task: they are fill")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ('{"image": "00.png", "image": "01.png"}', "the field 'image' is given twice"),
        ({"file_name": "00.png", "mask_file_nam": "m.png"}, "unknown field 'mask_file_nam'"),
        ({"file_name": "00.png", "Mask": "m.png"}, r"'Mask' \(is it mask\?\)"),
        ({"file_name": "00.png", "mask": "m.png", "text": "a", "caption": "b"}, "both give the p"),
        ({"file_name": "00.png", "image": "00.png", "mask": "m.png"}, "both give the image"),
        ({"image": "00.png", "mask": "m.png", "prompt": True}, "must be a non-empty string, found"),
        ({"image": "00.png", "mask": ["m.png"], "prompt": "a"}, "mask must be a non-empty string"),
        ({"image": "00.png", "mask": "m.png", "prompt": ""}, "fill, which a row without a task"),
        ({"image": "00.png", "mask": "m.png", "pad": "1,1,1,1"}, "pad is for the command edit"),
        ('{"image": ' + "1" * 5000 + "}", "not JSON|integer string"),
        ("[" * 100000, "not JSON"),
    ],
)
def test_rows_that_could_be_meant_in_two_ways_are_refused(folder, fields, reason):
    line = fields if isinstance(fields, str) else json.dumps(fields)
    (folder / "metadata.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=f"1 bad rows\n  line 1: .*({reason})"):
        read_rows(folder)


def test_files_that_are_no_rows_are_told_in_a_sentence(folder):
    with pytest.raises(FileNotFoundError, match="without metadata.jsonl"):
        row_files(folder)
    (folder / "x.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(FileNotFoundError, match=r"x\.tar\.gz is compressed: unpack it to a \.tar"):
        row_files(folder)
    with tarfile.open(folder / "y.tar", "w:gz") as tar:
        tar.add(folder / "00.png", "0.png")
    (folder / "z.parquet").write_bytes(b"PAR1" * 10)
    (folder / "t.tar").write_bytes(b"no tar" * 500)
    as_tars(folder, ROWS)
    whole = (folder / "s-000000.tar").read_bytes()
    (folder / "cut.tar").write_bytes(whole[: len(whole) // 2 - 300])
    for name, reason in {
        "y.tar": "is compressed, so its pictures",
        "z.parquet": "is not a Parquet file, or damaged",
        "t.tar": "is not a tar, or damaged",
        "cut.tar": "is not a tar, or damaged",
        "s-{000000..000003}.tar": "there is no file .*s-000002.tar, .*s-000003.tar",
        "q-*.tar": "there is no file that matches",
        "00.png": "a file of rows ends in .jsonl",
        "none": "there is no folder or file",
    }.items():
        with pytest.raises((ValueError, FileNotFoundError), match=reason):
            read_rows(folder / name)
    as_csv(folder, ROWS)
    as_json_lines(folder, ROWS)
    with pytest.raises(ValueError, match=r"has both metadata\.jsonl and metadata\.csv"):
        row_files(folder)
