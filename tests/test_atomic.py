"""Folders that appear complete or not at all, whatever killed the one that wrote them."""

import os

import pytest

from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.convert.atomic_folder import atomic_folder


def write(folder, text):
    with atomic_folder(folder) as draft:
        (draft / "file").write_text(text)


def test_a_folder_is_replaced_as_a_whole_or_stays(tmp_path):
    folder = tmp_path / "folder"
    write(folder, "one")
    with pytest.raises(OSError, match="disk full"), atomic_folder(folder) as draft:
        (draft / "file").write_text("half")
        raise OSError("disk full")
    assert (folder / "file").read_text() == "one"
    write(folder, "two")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (folder / "file").read_text() == "two"


def test_what_killed_processes_left_is_in_nobodys_way(tmp_path):
    folder = tmp_path / "folder"
    (tmp_path / ".folder.draft-1").mkdir()
    (tmp_path / ".folder.draft-1" / "file").write_text("half")
    write(folder, "one")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]

    folder.rename(tmp_path / ".folder.old")  # killed between the two renames
    with pytest.raises(OSError, match="again"), atomic_folder(folder):
        raise OSError("again")
    assert (folder / "file").read_text() == "one"
    (tmp_path / ".folder.old").mkdir()  # killed before the former one was removed
    write(folder, "two")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_what_a_killed_process_has_left_gives_way(tmp_path):
    """It was to become a link to another file, which must not be written into."""
    source, path = tmp_path / "source.txt", tmp_path / "copy.txt"
    source.write_text("kept")
    os.link(source, tmp_path / ".copy.draft.txt")
    with atomic_file(path) as draft:
        draft.write_text("new")
    assert source.read_text() == "kept" and path.read_text() == "new"
    assert sorted(tmp_path.iterdir()) == [path, source]


def test_a_file_may_have_the_longest_name(tmp_path):
    path = tmp_path / ("漢" * 83 + ".png")
    with atomic_file(path) as draft:
        draft.write_text("one")
        assert draft.suffix == ".png"
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
