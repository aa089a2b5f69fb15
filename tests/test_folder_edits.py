"""Edits of a folder: what is there is kept, what changed is noticed, bad rows stop no others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import torch_pipeline
from PIL import Image

from onereward_jax import Editor, edit
from onereward_jax.inference import folder_edits
from onereward_jax.inference.edit_record import RECORD, open_record, output_names
from onereward_jax.parallel import make_mesh

SIZE = (48, 32)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> tuple[Path, Editor]:
    folder = tmp_path_factory.mktemp("editor")
    torch_pipeline.whole_pipeline(False).save_pretrained(folder)
    (folder / "editing.json").write_text(
        '{"num_inference_steps": 1, "true_cfg_scale": 1.0, "paste_back": true, "resolution": 32}'
    )
    return folder, Editor.from_pretrained(folder, mesh=make_mesh(devices=jax.devices()[:1]))


def picture(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


class Folder:
    """A folder of rows, and the command on it."""

    def __init__(self, path: Path, model: tuple[Path, Editor], monkeypatch, capsys) -> None:
        self.path, self.out, self.model, self.capsys = path / "in", path / "out", model[0], capsys
        self.path.mkdir()
        self.loads = 0
        for number in range(4):
            picture(number).save(self.path / f"p{number}.png")
        mask = Image.new("L", SIZE)
        mask.paste(255, (8, 8, 24, 24))
        mask.save(self.path / "mask.png")
        self.rows = [self.row(f"p{number}.png") for number in range(4)]
        self.write()

        def load(*_) -> Editor:
            self.loads += 1
            return model[1]

        monkeypatch.setattr(edit, "load", load)

    @staticmethod
    def row(image: str, **others: str) -> dict[str, str]:
        return {"image": image, "mask": "mask.png", "prompt": "a red apple"} | others

    def write(self) -> None:
        lines = (row if isinstance(row, str) else json.dumps(row) for row in self.rows)
        (self.path / "metadata.jsonl").write_text("\n".join(lines))

    def run(self, *options: str, out: Path | None = None) -> str:
        """What the command prints."""
        edit.main([
            f"--model={self.model}", f"--image={self.path}", f"--out={out or self.out}", *options,
        ])  # fmt: skip
        return self.capsys.readouterr().out

    def results(self, out: Path | None = None) -> dict[str, bytes]:
        found = (out or self.out).rglob("*.png")
        return {path.relative_to(out or self.out).as_posix(): path.read_bytes() for path in found}

    def changed(self) -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in self.out.glob("*.png")}


@pytest.fixture
def folder(tmp_path: Path, model, monkeypatch, capsys) -> Folder:
    return Folder(tmp_path, model, monkeypatch, capsys)


def test_what_is_there_is_kept_and_only_what_changed_is_made_anew(folder: Folder) -> None:
    folder.run()
    first, times = folder.results(), folder.changed()
    assert set(first) == {"p0.png", "p1.png", "p2.png", "p3.png"} and folder.loads == 1
    assert "4 of 4 pictures are there" in folder.run()
    assert folder.loads == 1 and folder.changed() == times
    # A new row at the start, a damaged result, other words and another picture under the same name.
    folder.rows.insert(0, folder.row("p0.png", task="remove"))
    folder.rows[3]["prompt"] = "a green apple"
    folder.write()
    picture(9).save(folder.path / "p3.png")
    (folder.out / "p1.png").write_bytes(first["p1.png"][:100])
    said = folder.run()
    assert "prompt, pictures changed" in said or "pictures, prompt changed" in said
    found = folder.results()
    assert found["p1.png"] == first["p1.png"]
    assert found["p0-2.png"] != first["p0.png"]  # the former first row is now the second of p0
    assert found["p2.png"] != first["p2.png"] and found["p3.png"] != first["p3.png"]
    folder.run(out=folder.path / "anew")
    assert folder.results(folder.path / "anew") == found


@pytest.mark.parametrize("option", ["--seed=1", "--steps=2", "--feather=2", "--invert_mask"])
def test_other_settings_are_said_and_used(folder: Folder, option: str) -> None:
    folder.rows = folder.rows[:1]
    folder.write()
    folder.run()
    (first,) = folder.results().values()
    said = folder.run(option)
    name = {"--steps=2": "num_inference_steps"}.get(option, option[2:].partition("=")[0])
    assert f"1 pictures were made with other settings and are made anew: {name} changed" in said
    (second,) = folder.results().values()
    assert second != first
    folder.run(option, out=folder.path / "anew")
    assert list(folder.results(folder.path / "anew").values()) == [second]


def test_another_model_under_the_same_path_is_noticed(folder: Folder, tmp_path: Path) -> None:
    folder.model = Path(shutil.copytree(folder.model, tmp_path / "model"))
    folder.run()
    (folder.model / "scheduler" / "scheduler_config.json").write_text("{}")
    assert "are made anew: model changed" in folder.run()


def test_a_killed_command_goes_on_to_the_same_bytes(folder: Folder, monkeypatch) -> None:
    """Killed after a picture was written and before it is recorded, in the middle of a batch."""
    folder.run("--batch_size=2", "--crop", out=folder.path / "whole")
    written, write = [], folder_edits.write_picture

    class Killed(BaseException):
        pass

    def dying(path: Path, *others) -> None:
        write(path, *others)
        written.append(path.name)
        if len(written) == 3:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(folder_edits, "write_picture", dying)
        folder.run("--batch_size=2", "--crop")
    there = folder.changed()
    assert len(there) == 3
    # As if the last line had been cut, too.
    with (folder.out / RECORD).open("a") as record:
        record.write('{"output": "p3.p')
    assert "2 of 4 pictures are there" in folder.run("--batch_size=2", "--crop")
    assert folder.results() == folder.results(folder.path / "whole")
    kept = [name for name, time in folder.changed().items() if there.get(name) == time]
    assert len(kept) == 2


def test_bad_rows_are_named_first_and_stop_no_others(folder: Folder, capsys) -> None:
    (folder.path / "text.png").write_text("text")
    black = Image.new("L", SIZE)
    black.save(folder.path / "black.png")
    # Its header is whole.
    whole = (folder.path / "p3.png").read_bytes()
    (folder.path / "p3.png").write_bytes(whole[: len(whole) // 2])
    folder.rows[1:1] = [
        folder.row("gone.png"), "{", folder.row("text.png"), folder.row("p1.png", mask="black.png"),
    ]  # fmt: skip
    folder.write()
    for made in (3, 0):
        with pytest.raises(SystemExit) as ending:
            folder.run()
        assert ending.value.code not in (0, None)
        out, err = capsys.readouterr()
        before, _, after = err.partition("error: ")
        for text in (before, after):
            for line in ("line 2", "line 3", "line 4", "line 5"):
                assert f"{line}: " in text
        assert "line 8" not in before and "line 8: " in after and "p3.png" in after
        assert f"({made} files)" in out and "Traceback" not in err
        assert set(folder.results()) == {"p0.png", "p1.png", "p2.png"}
    picture(3).save(folder.path / "p3.png")
    folder.rows[1:5] = []
    folder.write()
    folder.run()
    assert len(folder.results()) == 4


def test_nothing_that_the_command_has_not_made_is_replaced(folder: Folder, capsys) -> None:
    def refused(out: Path, message: str) -> None:
        with pytest.raises(SystemExit):
            folder.run(out=out)
        assert message in capsys.readouterr().err

    refused(folder.path, "p0.png is an input, which would be lost")
    folder.out.mkdir()
    picture(8).save(folder.out / "p2.png")
    refused(folder.out, f"has no {RECORD}, but files with the names of results: p2.png;")
    (folder.out / RECORD).write_text("mine\n")
    refused(folder.out, f"{RECORD}, line 1 is no record of an edit")
    other = folder.path / "other"
    with open_record(other):
        refused(other, "another command writes to")
    assert folder.loads == 0


def test_results_are_called_as_their_pictures() -> None:
    names = ["a", "x/a", "a", "A", "b", "a-2", "b"]
    assert output_names(names) == [
        ("a.png", 0), ("x/a.png", 0), ("a-3.png", 1), ("A-4.png", 2), ("b.png", 0),
        ("a-2.png", 0), ("b-2.png", 1),
    ]  # fmt: skip
    grown = output_names(["c", "a", "x/a", "a"])
    assert grown[1:] == [("a.png", 0), ("x/a.png", 0), ("a-2.png", 1)]
