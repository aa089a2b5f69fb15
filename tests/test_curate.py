"""The stage `curate`: what is kept and left out, the data folder, resume, new pictures."""

import json
import pathlib
import shutil
import sys
from collections import Counter

import jax
import numpy as np
import pytest
from curate_pictures import (
    CAPTION,
    COLOURS,
    LEFT_OUT,
    ROTATED,
    coco_square,
    make_clip,
    make_pictures,
    picture,
    write_coco,
)
from ml_collections import FrozenConfigDict
from PIL import ExifTags, Image

import onereward_jax
from onereward_jax.chain import run_chain
from onereward_jax.chain.stage import StageContext
from onereward_jax.common.config_files import load_config
from onereward_jax.curation import data_folder
from onereward_jax.curation.clip_embedder import ClipEmbedder
from onereward_jax.data.metadata import read_rows
from onereward_jax.data.triplets import Triplets
from onereward_jax.parallel import make_mesh
from onereward_jax.stages import STAGES, curate
from onereward_jax.stages.curate import LIST
from onereward_jax.tasks import Task

ROOT = pathlib.Path(onereward_jax.__file__).parents[1]
CLUSTERS, NEAR, FAR, DUPLICATES = 4, 3, 1, 0.9992


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The folder of pictures with everything a team may say about them, and a CLIP."""
    top = tmp_path_factory.mktemp("curate")
    good = make_pictures(top / "pictures")
    make_clip(top / "clip", top / "pictures")
    sizes = {name: upright_size(top / "pictures" / name) for name in good}
    entries = [
        coco_square(number, name, sizes[name], (20, 20, 30, 24), crowd=name.endswith("-5.jpg"))
        for number, name in enumerate(good)
    ]
    write_coco(top / "coco.json", entries)
    lines = [{"picture": name, "box": [10, 12, 40, 14], "text": "SALE"} for name in good]
    write_lines(top / "words.jsonl", lines)
    captions = [{"picture": name, "caption": f"{CAPTION} ({name})"} for name in good[1:]]
    write_lines(top / "captions.jsonl", captions)
    return top


def upright_size(path):
    with Image.open(path) as stored:
        turned = stored.getexif().get(ExifTags.Base.Orientation, 1) in range(5, 9)
        return stored.size[::-1] if turned else stored.size


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def config_of(world, **fields):
    config = load_config(f"{ROOT}/configs/mini.py:folder")
    config.stages = ("curate", "data")
    config.data.path = "stage:curate"
    config.curate.update(
        pictures=str(world / "pictures"),
        clip=str(world / "clip"),
        segmentation=str(world / "coco.json"),
        words=str(world / "words.jsonl"),
        captions=str(world / "captions.jsonl"),
        clusters=CLUSTERS,
        near=NEAR,
        far=FAR,
        batch_size=8,
        duplicates=DUPLICATES,
        rows=3,
    )
    config.update_from_flattened_dict(fields)
    return config


def run(world, workdir, **fields):
    mesh = make_mesh(data=jax.device_count(), fsdp=1)
    return run_chain(config_of(world, **fields), workdir, mesh, STAGES)


@pytest.fixture(scope="module")
def done(world, tmp_path_factory):
    """The work folder of an uninterrupted run."""
    workdir = tmp_path_factory.mktemp("done")
    run(world, workdir)
    return workdir


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "stage.json"
    }


def test_every_picture_is_listed_with_the_reason_why_it_is_left_out(world, done):
    rows = {row["picture"]: row for row in read_lines(done / "curate" / LIST)}
    left_out = {name: row.get("why") for name, row in rows.items() if name in LEFT_OUT}
    assert left_out == LEFT_OUT
    assert rows["copy.jpg"]["of"] == "1-1.jpg"
    assert rows["smaller.jpg"]["of"] == "2-2.jpg" and rows["smaller.jpg"]["cosine"] >= DUPLICATES
    assert rows["text.jpg"]["detail"] == "not a picture"
    assert "truncated" in rows["cut.jpg"]["detail"]
    others = {name: row for name, row in rows.items() if name not in LEFT_OUT}
    assert len(others) == 4 * 6 + 1
    assert {row.get("why", "") for row in others.values()} <= {"", "not chosen"}
    kept = Counter(row["cluster"] for row in others.values() if row["kept"])
    sizes = Counter(row["cluster"] for row in others.values())
    assert kept == {one: min(count, NEAR + FAR) for one, count in sizes.items()}
    for cluster in kept:
        members = sorted(
            (row for row in others.values() if row["cluster"] == cluster),
            key=lambda row: row["distance"],
        )
        assert all(row["kept"] for row in members[:NEAR])


def test_the_output_is_a_data_folder_of_original_files_and_upright_masks(world, done):
    folder = done / "curate"
    kept = {row["picture"] for row in read_lines(folder / LIST) if row["kept"]}
    rows = read_rows(folder)
    counts = Counter(row.image for row in rows)
    assert len(counts) == len(kept) and set(counts.values()) == {3}
    originals = {(world / "pictures" / name).stat().st_ino for name in kept}
    assert {(folder / row.image).stat().st_ino for row in rows} == originals
    for row in rows:
        with Image.open(folder / row.mask) as mask:
            assert mask.size == upright_size(folder / row.image) == row.size
            area = (np.asarray(mask.convert("L")) > 0).mean()
            assert 0.002 <= area <= 0.95
        extends = row.task in (Task.EXTEND_WITH_PROMPT, Task.EXTEND_WITHOUT_PROMPT)
        assert row.target == (row.image if extends else None)
        if row.task is Task.FILL:
            assert row.prompt in ("ball", 'the word "SALE"') or row.prompt.startswith(CAPTION)
        if row.task is Task.EXTEND_WITH_PROMPT:
            assert row.prompt.startswith(CAPTION)
    assert {row.task for row in rows} == set(Task)
    rotated = [row for row in rows if "rotated" in row.image]
    assert all(row.size == (64, 120) for row in rotated)


def test_the_next_stage_reads_it(done):
    rows = read_rows(done / "curate")
    triplets = [Triplets(done / "data", split) for split in ("train", "test")]
    assert sum(map(len, triplets)) == len(rows)
    photos = [set(one.column("photo")) for one in triplets]
    assert not photos[0] & photos[1] and photos[0] | photos[1] == {row.image for row in rows}
    for one in triplets:
        extends = [task.startswith("extend") for task in one.column("task")]
        assert one.has_target.tolist() == extends


def test_the_sheet_shows_every_kept_picture_and_what_was_left_out(done):
    folder = done / "curate"
    page = (folder / "contact_sheet.html").read_text()
    for row in read_rows(folder):
        assert f'href="{row.image}"' in page
    assert "Near-duplicates" in page and "no picture" not in page
    for name in LEFT_OUT:
        assert name in page
    strips = sorted(path.name for path in (folder / "sheet").iterdir())
    assert [name for name in strips if name.startswith("cluster")] == [
        f"cluster-{number:04}.jpg" for number in range(CLUSTERS)
    ]
    assert all(f"sheet/{name}" in page for name in strips)


def test_a_killed_run_resumes_to_the_same_files(world, done, tmp_path, monkeypatch):
    embed, calls = ClipEmbedder.__call__, []

    def killed(self, pixels):
        calls.append(len(pixels))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return embed(self, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(ClipEmbedder, "__call__", killed)
        with pytest.raises(KeyboardInterrupt):
            run(world, tmp_path)
    # What a process killed while it was writing leaves behind.
    (tmp_path / "curate" / "embeddings" / ".00002.draft.npz").write_bytes(b"half")
    (tmp_path / "curate" / "masks").mkdir()
    (tmp_path / "curate" / "masks" / "other.png").write_bytes(b"half")
    calls.clear()
    with monkeypatch.context() as patch:
        patch.setattr(
            ClipEmbedder, "__call__", lambda self, x: calls.append(len(x)) or embed(self, x)
        )
        run(world, tmp_path)
    assert sum(calls) == 29 - 2 * 8  # the other batches were kept
    (tmp_path / "curate" / "embeddings" / ".00002.draft.npz").unlink(missing_ok=True)
    found, wanted = files_of(tmp_path / "curate"), files_of(done / "curate")
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []


def test_only_new_pictures_are_embedded_and_data_follows(world, done, tmp_path, monkeypatch):
    pictures, workdir = tmp_path / "pictures", tmp_path / "run"
    shutil.copytree(world / "pictures", pictures)
    shutil.copytree(done, workdir)
    fields = {"curate.pictures": str(pictures)}
    assert not any(outcome.ran for outcome in run(world, workdir, **fields))  # content counts

    picture((130, 40, 160), 5).save(pictures / "new.jpg")
    embed, calls = ClipEmbedder.__call__, []
    monkeypatch.setattr(
        ClipEmbedder, "__call__", lambda self, x: calls.append(len(x)) or embed(self, x)
    )
    outcomes = run(world, workdir, **fields)
    assert [outcome.ran for outcome in outcomes] == [True, True] and calls == [1]
    assert "new.jpg" in {row["picture"] for row in read_lines(workdir / "curate" / LIST)}

    calls.clear()
    (pictures / "0-1.txt").write_text("another caption")
    assert [one.ran for one in run(world, workdir, **fields)] == [True, True] and not calls


def test_pictures_get_only_tasks_that_they_can_serve(world, tmp_path, capsys):
    """Without notes: one picture has a caption beside it, the others can only be extended."""
    fields = {"curate.segmentation": "", "curate.words": "", "curate.captions": ""}
    fields |= {"stages": ("curate",), "curate.rows": 1, "curate.near": 9}
    fields |= {"curate.tasks.extend_without_prompt": 1e-6}  # drawn last
    run(world, tmp_path, **fields)
    rows = read_rows(tmp_path / "curate")
    with_caption = [row for row in rows if "/0-0-" in row.image]
    assert {row.prompt for row in with_caption} == {CAPTION}
    others = {row.task for row in rows if "/0-0-" not in row.image}
    assert others == {Task.EXTEND_WITHOUT_PROMPT}
    said = capsys.readouterr().out
    assert "of the triplets drawn for removal" in said
    assert "left out: unreadable 2, blank 1, identical 1" in said


def test_all_mistakes_are_named_at_once(world, tmp_path):
    (tmp_path / "bad.json").write_text('{"images": []}')
    (tmp_path / "words.jsonl").write_text('{"picture": "0-0.jpg", "box": [0, 0, 1], "text": "A"}')
    config = config_of(
        world,
        **{
            "curate.clip": str(world / "pictures"),
            "curate.clusters": 1000,
            "curate.near": 0,
            "curate.far": 0,
            "curate.fill.boxes": 0.0,
            "curate.removal.boxes": 0.0,
            "curate.removal.silhouettes": 0.0,
            "data.image_size": 64,
        },
    )
    context = StageContext("curate", FrozenConfigDict(config), tmp_path / "run", mesh())
    with pytest.raises(ValueError) as said:
        curate.check(context)
    lines = str(said.value).split("\n")
    assert len(lines) == 4
    assert lines[0].startswith("config.curate.clusters is 1000, but there are 30 pictures in")
    assert lines[1].startswith("config.curate.clip: ") and "config.json" in lines[1]
    assert lines[2].startswith("config.curate.removal: all weights are 0, but config.curate.tasks")
    assert "near and config.curate.far are both 0" in lines[3]

    config = config_of(
        world,
        **{
            "curate.segmentation": str(tmp_path / "bad.json"),
            "curate.words": str(tmp_path / "words.jsonl"),
            "curate.captions": str(tmp_path / "none.jsonl"),
        },
    )
    with pytest.raises(ValueError) as said:
        curate.check(StageContext("curate", FrozenConfigDict(config), tmp_path / "run", mesh()))
    text = str(said.value)
    assert "config.curate.segmentation: " in text and "annotations is not a list" in text
    assert "line 1: box is [0, 0, 1]" in text
    assert "config.curate.captions: there is no file" in text


def test_a_missing_extra_is_named(world, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.delitem(sys.modules, "onereward_jax.curation.segmentation", raising=False)
    context = StageContext("curate", FrozenConfigDict(config_of(world)), tmp_path, mesh())
    with pytest.raises(ValueError, match=r"needs the package pycocotools: pip install .*\[people"):
        curate.check(context)


def mesh():
    return make_mesh(data=jax.device_count(), fsdp=1)


def test_too_few_usable_pictures_are_said_after_embedding(world, tmp_path):
    with pytest.raises(ValueError, match="clusters is 28, but only 25 of 30 pictures can be used"):
        run(world, tmp_path, **{"curate.clusters": 28})


def test_captions_that_do_not_fit_the_judge_are_named_at_once(world, tmp_path):
    captions = tmp_path / "captions.jsonl"
    write_lines(captions, [{"picture": "0-1.jpg", "caption": "a ball on a wall " * 40}])
    fields = {"stages": ("curate", "data", "reward"), "curate.captions": str(captions)}
    fields |= {"curate.near": 9, "curate.words": "", "curate.segmentation": ""}
    context = StageContext("curate", FrozenConfigDict(config_of(world, **fields)), tmp_path, mesh())
    context.folder.mkdir()
    with pytest.raises(ValueError, match="prompts do not fit into the judge's question"):
        curate.run(context)


def test_a_work_folder_among_the_pictures_is_refused(world):
    with pytest.raises(ValueError, match="--workdir is in the folder config.curate.pictures"):
        run(world, world / "pictures" / "run")


def test_data_needs_the_stage_that_it_names(world, tmp_path):
    with pytest.raises(ValueError, match="config.stages has no 'curate'"):
        run(world, tmp_path, stages=("data",))


def test_pictures_are_copied_where_they_cannot_be_linked(world, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(data_folder.os, "link", refuse)
    file = world / "pictures" / ROTATED
    chosen = data_folder.ChosenPicture(ROTATED, file, "0123456789abcdef", 2)
    assert data_folder.write_triplets(tmp_path, chosen, []) == []
    copied = tmp_path / chosen.image
    assert copied.read_bytes() == file.read_bytes()
    assert copied.stat().st_ino != file.stat().st_ino


def test_colours_become_clusters(done):
    """The tiny CLIP tells the walls apart, so most clusters are of one colour."""
    rows = [row for row in read_lines(done / "curate" / LIST) if "cluster" in row]
    pairs = Counter((row["cluster"], row["picture"][0]) for row in rows if row["picture"][0] != "p")
    most = Counter()
    for (cluster, _), count in pairs.items():
        most[cluster] = max(most[cluster], count)
    assert sum(most.values()) / sum(pairs.values()) > 0.8 and len(COLOURS) == CLUSTERS
