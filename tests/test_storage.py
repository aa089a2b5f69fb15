"""Folders of a bucket and their copies, against a real server on loopback."""

import json
import os
import pathlib

import pytest
from ml_collections import FrozenConfigDict

from onereward_jax.chain import fingerprints
from onereward_jax.common.user_errors import Unreachable
from onereward_jax.storage import BucketFolder, WorkingCopy, fetch, local_path, mount_of


def files_below(folder: pathlib.Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def write(folder: pathlib.Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_what_one_host_publishes_another_fetches(bucket, tmp_path):
    here = WorkingCopy(bucket, tmp_path / "a", heads=("stage.json",))
    there = WorkingCopy(bucket, tmp_path / "b", heads=("stage.json",))
    made = {f"rl/samples/{n}.png": os.urandom(100 * n) for n in range(20)}
    made |= {"rl/policy/model.safetensors": os.urandom(6 << 20), "rl/metrics.jsonl": b"{}\n"}
    left_out = {"rl/stage.json": b"{}", "rl/.a.draft-1": b"x", "rl/checkpoints/4/x": b"x",
                "rl/preferences.sqlite-wal": b"x"}  # fmt: skip
    write(here.local, made | left_out)
    here.publish("rl")
    assert sorted(bucket.list()) == sorted(made)
    there.fetch("rl")
    assert files_below(there.local) == made
    (here.local / "rl/samples/3.png").unlink()
    write(here.local, {"rl/metrics.jsonl": b"{}\n{}\n"})
    here.publish("rl")
    write(there.local, {"rl/samples/stale.png": b"of a former run"})
    there.fetch("rl")
    del made["rl/samples/3.png"]
    assert files_below(there.local) == made | {"rl/metrics.jsonl": b"{}\n{}\n"}
    # What has not changed is neither read nor written again.
    before = {name: os.stat(there.local / name).st_ino for name in made}
    there.fetch("rl")
    assert {name: os.stat(there.local / name).st_ino for name in made} == before
    # A host overwrites nothing that it has only read.
    write(here.local, {"rl/metrics.jsonl": b"{}\n{}\n{}\n"})
    here.publish("rl")
    there.publish("rl")
    assert bucket.read("rl/metrics.jsonl") == b"{}\n{}\n{}\n"


def test_an_index_never_names_what_is_not_there(bucket, tmp_path, monkeypatch):
    copy = WorkingCopy(bucket, tmp_path)
    write(copy.local, {"embed/index.json": b"old", "embed/0": b"0"})
    upload = bucket.upload

    def slow_upload(files):
        # While files travel the stage goes on: one more file, then the index that names it.
        write(copy.local, {"embed/1": b"1", "embed/index.json": b"names 1"})
        return upload(files)

    monkeypatch.setattr(bucket, "upload", slow_upload)
    copy.publish("embed")
    assert bucket.read("embed/index.json") == b"old" and bucket.read("embed/1") is None
    copy.publish("embed")
    assert bucket.read("embed/index.json") == b"names 1" and bucket.read("embed/1") == b"1"


def test_what_people_write_meanwhile_is_never_overwritten(bucket):
    bucket.write("questions/questions.jsonl", b"question\n")
    answers = iter([b"question\nanswer of anna\n", b"question\nanswer of anna\nof ben\n"])

    def add(before: bytes) -> bytes:
        answer = next(answers, None)
        if answer is not None:  # somebody uploads between the reading and the writing
            bucket.write("questions/questions.jsonl", answer)
        return before + b"new question\n"

    bucket.edit("questions/questions.jsonl", add)
    expected = b"question\nanswer of anna\nof ben\nnew question\n"
    assert bucket.read("questions/questions.jsonl") == expected
    assert bucket.create("lock.json", b"mine") and not bucket.create("lock.json", b"yours")
    assert bucket.edit("new", lambda before: before + b"!") == b"!" == bucket.read("new")


def test_a_folder_that_is_moved_counts_at_every_moment(bucket, monkeypatch):
    made = {f"rl/{name}": name.encode() for name in ("a", "b/4/c", "stage.json")}
    for name, content in made.items():
        bucket.write(name, content)
    counts = []
    calls = {name: getattr(bucket._files, name) for name in ("cp_file", "rm_file")}
    for name, call in calls.items():

        def watched(*args, call=call):
            found = bucket.list()
            counts.append(
                [
                    folder
                    for folder in ("rl", "rl.old-1")
                    if f"{folder}/stage.json" in found
                    and {f"{folder}/a", f"{folder}/b/4/c"} <= found.keys()
                ]
            )
            assert sum(f"{folder}/stage.json" in found for folder in ("rl", "rl.old-1")) == len(
                counts[-1]
            ), "a folder counts that is not whole"
            return call(*args)

        monkeypatch.setattr(bucket._files, name, watched)
    monkeypatch.setattr("onereward_jax.storage.bucket_folder.THREADS", 1)
    bucket.move("rl", "rl.old-1", last="stage.json")
    assert all(counts) and ["rl", "rl.old-1"] in counts
    assert {name: bucket.read(name) for name in bucket.list()} == {
        name.replace("rl/", "rl.old-1/"): content for name, content in made.items()
    }


def test_inputs_in_a_bucket_are_read_like_folders(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("ONEREWARD_COPIES", str(tmp_path))
    bucket.write("photos/metadata.jsonl", b"{}\n")
    bucket.write("photos/a/0.png", b"0")
    folder = local_path(f"{bucket}/photos")
    assert files_below(folder) == {"metadata.jsonl": b"{}\n", "a/0.png": b"0"}
    stamp = (folder / "a/0.png").stat().st_mtime_ns
    bucket.write("photos/metadata.jsonl", b"{}\n{}\n")
    bucket.delete(["photos/none"])
    assert files_below(local_path(f"{bucket}/photos/"))["metadata.jsonl"] == b"{}\n{}\n"
    assert (folder / "a/0.png").stat().st_mtime_ns == stamp
    assert local_path(f"{bucket}/photos/metadata.jsonl").read_bytes() == b"{}\n{}\n"
    assert not local_path(f"{bucket}/nothing").exists()
    assert local_path("photos") == pathlib.Path("photos")
    with pytest.raises(ValueError, match="only gs://"):
        local_path("s3://bucket/photos")


def test_pictures_in_a_bucket_are_read_once_and_told_by_their_state(bucket, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    rows = [{"image": "0.png", "mask": "m.png"}, {"image": "1.png", "mask": "m.png"}]
    photos = {"metadata.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode()}
    photos |= {name: name.encode() for name in ("0.png", "1.png", "m.png")}
    for name, content in photos.items():
        bucket.write(f"photos/{name}", content)
    write(tmp_path / "here", photos)
    digest = fingerprints.pictures("data.path")

    def asked(path: str, host: str) -> str:
        monkeypatch.setenv("ONEREWARD_COPIES", str(tmp_path / host))
        return digest(FrozenConfigDict({"data": {"path": path}}), tmp_path / "run")

    first = asked(f"{bucket}/photos", "a")
    assert first == asked(str(tmp_path / "here"), "a"), "the content counts, not the place"
    assert first == asked(f"{bucket}/photos", "a") == asked(f"{bucket}/photos", "b")
    assert [path.name for path in (tmp_path / "b").rglob("*.*l")] == ["metadata.jsonl"]
    assert not list((tmp_path / "b").rglob("*.png")), "nothing is fetched to learn that all is old"
    bucket.write("photos/1.png", b"another")
    fetch._fetched_once.cache_clear()  # as in another process
    assert first != asked(f"{bucket}/photos", "b")


def test_a_bucket_that_cannot_be_used_is_told_in_a_sentence(bucket, monkeypatch):
    with pytest.raises(OSError, match="gs://nobody/run: there is no bucket nobody") as refused:
        BucketFolder("gs://nobody/run").list()
    assert not isinstance(refused.value, Unreachable)
    monkeypatch.setattr(bucket._files, "cat_file", lambda _: 1 / 0)
    with pytest.raises(Unreachable, match=f"{bucket} cannot be reached: division by zero"):
        bucket.read("lock.json")
    for url in ("gs://", "gs:///run", "folder"):
        with pytest.raises(ValueError, match="expected gs://bucket/path"):
            BucketFolder(url)


def test_mounts_are_told_by_their_place(tmp_path):
    table = tmp_path / "mounts"
    table.write_text(
        "/dev/sda1 / ext4 rw 0 0\nteam /mnt/my\\040team fuse.gcsfuse rw 0 0\n"
        "tmpfs /mnt/my\\040team/fast tmpfs rw 0 0\n"
    )
    found = mount_of(pathlib.Path("/mnt/my team/runs/flux"), table)
    assert (found.source, found.kind, found.is_fuse) == ("team", "fuse.gcsfuse", True)
    assert not mount_of(pathlib.Path("/mnt/my team/fast/x"), table).is_fuse
    assert mount_of(pathlib.Path("/mnt/my"), table).kind == "ext4"
