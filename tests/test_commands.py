"""The commands `edit` and `judge`: what they write and print, and how mistakes end."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import torch_pipeline
from PIL import Image

from onereward_jax import Editor, edit, judge
from onereward_jax.common.user_errors import CommandParser, run_command
from onereward_jax.convert.hub import PACKAGE
from onereward_jax.inference import paste_back
from onereward_jax.inference.edit_defaults import EditDefaults, read_edit_defaults
from onereward_jax.mini.world import make_scene
from onereward_jax.parallel import make_mesh
from onereward_jax.tasks import FIXED_PROMPTS, Task

SIZE = (48, 32)


def picture(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def save_all(folder: Path) -> None:
    """A picture, a mask that fits it, one that does not, and an empty one."""
    picture(0).save(folder / "a.png")
    picture(1, (32, 32)).save(folder / "small.png")
    mask = Image.new("L", SIZE)
    mask.paste(255, (8, 8, 24, 24))
    mask.save(folder / "mask.png")
    Image.new("L", SIZE).save(folder / "black.png")
    (folder / "text.png").write_text("text")
    (folder / "folder.png").mkdir()


def test_a_folder_is_edited_as_its_rows_are_one_by_one(tmp_path: Path, capsys, monkeypatch) -> None:
    torch_pipeline.whole_pipeline(True).save_pretrained(tmp_path / "editor")
    source, out = tmp_path / "source", tmp_path / "made" / "out"
    source.mkdir()
    save_all(source)
    rows = [
        {"image": "a.png", "mask": "mask.png", "prompt": "a red apple"},
        {"image": "a.png", "mask": "mask.png", "task": "remove"},
        {"image": "small.png", "pad": "4,0,12,0", "task": "extend"},
    ]
    (source / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    editor = Editor.from_pretrained(tmp_path / "editor", mesh=make_mesh(devices=jax.devices()[:1]))
    monkeypatch.setattr(edit, "load", lambda *_: editor)
    edit.main([
        f"--model={tmp_path / 'editor'}", f"--image={source}", f"--out={out}", "--steps=2",
        "--seed=5", "--batch_size=3", "--paste_back", "--feather=2",
    ])  # fmt: skip
    assert re.search("edit: 100%.* 6/6 ", capsys.readouterr().err)

    mask, white = Image.open(source / "mask.png"), Image.new("L", SIZE, 255)
    white.paste(0, (4, 0, 36, 32))
    canvas = Image.new("RGB", SIZE, (128, 128, 128))
    canvas.paste(picture(1, (32, 32)), (4, 0))
    images, masks = [picture(0), picture(0), canvas], [mask, mask, white]
    fixed = [FIXED_PROMPTS[task] for task in (Task.REMOVAL, Task.EXTEND_WITHOUT_PROMPT)]
    edits = editor(images, masks, ["a red apple", *fixed], seed=[5, 6, 5], num_inference_steps=2)
    names = ["a.png", "a-2.png", "small.png"]
    assert {path.name for path in out.glob("[!.]*")} == {*names, "edit_record.jsonl"}
    for name, image, edited, where in zip(names, images, edits, masks, strict=True):
        expected = np.asarray(paste_back(image, edited, where, 2), int)
        found = np.asarray(Image.open(out / name), int)
        assert np.abs(found - expected).max() <= 1
        assert np.abs(found - np.asarray(image, int)).max() > 1


def test_a_folder_may_state_how_its_editor_is_best_used(tmp_path: Path) -> None:
    assert read_edit_defaults(tmp_path) == EditDefaults(50, 4.0, 1.0, paste_back=False)
    assert read_edit_defaults(PACKAGE / "mini/models/editor") == EditDefaults(
        8, 2.0, 1.0, paste_back=True, resolution=64, aspect_ratios=(1.0,)
    )
    for content, message in (
        ({"steps": 8}, "unknown field 'steps'; there are num_inference_steps, "),
        ({"num_inference_steps": 8.5}, "num_inference_steps is 8.5, int expected"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0, 1 to 2147483647 expected"),
        ({"num_inference_steps": 10**400}, "num_inference_steps is "),
        ({"true_cfg_scale": float("nan")}, "true_cfg_scale is nan: a finite number"),
        ({"guidance_scale": 10**400}, "guidance_scale is .*: a finite number"),
        ({"aspect_ratios": [1, 0]}, "aspect_ratios: 0.0 is not a positive number"),
        ({"aspect_ratios": ["1"]}, "aspect_ratios is '1': a finite number"),
        ({"aspect_ratios": 1.5}, "aspect_ratios is 1.5, list expected"),
        ({"resolution": 100}, "resolution is 100, a multiple of 16"),
        ([8], "holds a list"),
    ):
        (tmp_path / "editing.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=f"editing.json.* {message}"):
            read_edit_defaults(tmp_path)


def test_adapters_have_a_path_and_maybe_a_weight() -> None:
    given = ["--lora=runs/a", "--lora=b.safetensors:0.5", "--lora=hub/c:d"]
    options = edit.parser().parse_args(["--model=-", "--image=-", "--out=-", *given])
    assert options.lora == [("runs/a", 1.0), ("b.safetensors", 0.5), ("hub/c:d", 1.0)]


def test_the_judge_that_comes_along_answers_in_both_orders(tmp_path: Path, capsys) -> None:
    scene = make_scene(np.random.default_rng(0), Task.EXTEND_WITHOUT_PROMPT, "test")
    for name, pixels in {"a": scene.target, "b": scene.image}.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    files = [f"--{name}={tmp_path / name}.png" for name in "ab"]
    question = ["--model=mini/models/judge", "--task=extend", "--dimension=consistency"]
    judge.main([*question, *files])
    forth, back, both = capsys.readouterr().out.splitlines()
    assert forth.startswith("P(Yes), a before b: ") and back.startswith("P(Yes), b before a: ")
    probabilities = [float(line.split()[-1]) for line in (forth, back)]
    assert 0.1 < sum(probabilities) < 1.9 and np.subtract(*probabilities) > 1e-3
    mean = (1 + np.subtract(*probabilities)) / 2
    assert both.startswith(f"a is better: {mean:.3f}"[:-1])


def test_the_judges_verdict_is_the_mean_of_both_orders() -> None:
    assert judge.verdict(0.25, 1.0) == "b is better: 0.8750, the mean of both orders"
    told = judge.verdict(0.5, 0.25)
    assert told.startswith("a is better: 0.6250, ") and told.endswith("contradict each other")


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (KeyboardInterrupt(), 130, "stopped, as asked"),
        (FileNotFoundError(2, "No such file", "a.png"), 2, "error: a.png: no such file"),
    ],
)
def test_what_ends_a_command_is_said_in_a_sentence(error, code, sentence, capsys) -> None:
    def run(options):
        raise error

    with pytest.raises(SystemExit) as ending:
        run_command(CommandParser(prog="test", description=""), run, [])
    assert ending.value.code == code and capsys.readouterr().err == f"{sentence}\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "erase"}, "unknown task 'erase'; there are fill, extend, remove,"),
        ({"mask": "text.png"}, "text.png is not a readable image: "),
        ({"mask": "black.png"}, "the mask is empty: "),
        ({"mask": "small.png"}, "the mask of 32x32 pixels has another aspect ratio than"),
        ({"image": "none.png"}, "there is no file none.png"),
        ({"prompt": ""}, "the task fill needs a prompt"),
        ({"model": "mini/models/artist"}, "model: there is no folder mini/models/artist"),
        (
            {"model": "mini/models/judge"},
            "judge holds a Qwen2_5_VL.* alone; .*: --transformer, ",
        ),
        ({"transformer": "nowhere"}, "transformer: there is no file or folder nowhere"),
        ({"lora": "nowhere:0.5"}, "lora: there is no file or folder nowhere"),
        ({"lora": "a:inf"}, "argument --lora: the weight of a is inf, a number expected"),
        ({"out": "edited"}, "--out: edited: the name has no suffix: use .png"),
        ({"out": "edited.psd"}, "--out: edited.psd: "),
        ({"out": "a.png"}, "--out: a.png is an input, which would be lost"),
        ({"crop": "yes"}, "argument --crop: ignored explicit argument"),
        ({"context": "2"}, "--context is for --crop, which is not given"),
        ({"feather": "-1"}, "--feather is -1, at least 0 expected"),
        ({"strength": "0"}, "strength 0.0 leaves none of 8 steps"),
        ({"steps": "many"}, "argument --steps: invalid int value: 'many'; --help explains"),
        ({"stesp": "3"}, "unrecognized arguments: --stesp=3; --help explains"),
        ({"height": "-64"}, "height is -64, at least 1 expected"),
        ({"seed": "99999999999999999999"}, "seed is 99999999999999999999, which does not fit"),
        ({"negative_prompt": "\udcff"}, r"the prompt '\\udcff' is not Unicode text"),
        ({"out": "folder.png"}, "--out: folder.png is a folder; one image needs a file"),
        ({"prompt": "\udcff"}, r"the prompt '\\udcff' is not Unicode text"),
        ({"image": "."}, "--mask: for a folder, set it in metadata.jsonl"),
    ],
)
def test_mistakes_end_in_one_sentence(
    tmp_path: Path, monkeypatch, capsys, options: dict[str, str], message: str
) -> None:
    save_all(tmp_path)
    monkeypatch.chdir(tmp_path)
    given = {"model": "mini/models/editor", "image": "a.png", "mask": "mask.png"}
    given |= {"prompt": "a red apple", "out": "edited.png"} | options
    with pytest.raises(SystemExit) as ending:
        edit.main([f"--{name}={value}" for name, value in given.items()])
    assert ending.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    assert re.search(message, lines[0])


def test_pictures_too_wide_for_their_format_are_refused_before_the_edit(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(edit, "load", lambda *_: pytest.fail("the editor was loaded"))
    for name, grey in (("wide", 0), ("mask", 255)):
        Image.new("L", (16400, 16), grey).save(tmp_path / f"{name}.png")
    with pytest.raises(SystemExit):
        edit.main([
            "--model=mini/models/editor", f"--image={tmp_path}/wide.png", "--task=remove",
            f"--mask={tmp_path}/mask.png", f"--out={tmp_path}/edited.webp",
        ])  # fmt: skip
    assert "WEBP has at most 16383 pixels per side" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'\n{"image": "caf\xe9.png"}', "line 2: not UTF-8 "),
        ('{"image": "a.png"}'.encode("utf-16"), "line 1: not UTF-8 "),
        (b"[" * 100_000, "line 1: not JSON: "),
        (b'["a.png"]', "line 1: not a JSON object"),
        (b'\xef\xbb\xbf{"image": "gone.png", "mask": "mask.png", "prompt": "x"}', "gone.png"),
        (b'{"image": "a.png", "task": "extend", "pad": "99999999,0,0,0"}', "above Pillow's limit"),
    ],
    ids=["Latin-1", "UTF-16", "nested", "list", "UTF-8 with a mark", "huge"],
)
def test_folders_that_cannot_be_read_end_in_one_sentence(
    tmp_path: Path, capsys, content: bytes, message: str
) -> None:
    save_all(tmp_path)
    (tmp_path / "metadata.jsonl").write_bytes(content)
    with pytest.raises(SystemExit) as ending:
        files = [f"--image={tmp_path}", f"--out={tmp_path / 'out'}"]
        edit.main(["--model=mini/models/editor", *files])
    assert ending.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


@pytest.mark.parametrize("command", ["edit", "judge"])
def test_a_model_without_a_vocabulary_ends_in_one_sentence(
    tmp_path: Path, capsys, command: str
) -> None:
    save_all(tmp_path)
    names = {"edit": ("editor", "tokenizer"), "judge": ("judge", ".")}
    model = tmp_path / "model"
    shutil.copytree(PACKAGE / "mini" / "models" / names[command][0], model)
    (model / names[command][1] / "tokenizer.json").unlink()
    options = {
        "edit": [f"--image={tmp_path / 'a.png'}", f"--mask={tmp_path / 'mask.png'}",
                 "--prompt=x", f"--out={tmp_path / 'out.png'}"],
        "judge": [f"--a={tmp_path / 'a.png'}", f"--b={tmp_path / 'a.png'}",
                  "--task=fill", "--dimension=structure"],
    }  # fmt: skip
    with pytest.raises(SystemExit) as ending:
        {"edit": edit, "judge": judge}[command].main([f"--model={model}", *options[command]])
    assert ending.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "has no vocabulary: none of tokenizer.json" in line


@pytest.mark.parametrize("command", ["edit", "judge", "train_compile"])
def test_help_shows_a_whole_command(command: str) -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", f"onereward_jax.{command}", "--help"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"python -m onereward_jax.{command} --" in outcome.stdout
    flags = ["--prompt", "--traceback"]
    if command == "train_compile":
        flags = ["--topology", "--config.<section>.<field>"]
    assert all(flag in outcome.stdout for flag in flags)
