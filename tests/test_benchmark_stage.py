"""The stage `benchmark`: every metric where its weights and truth are; nothing is done twice."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import transformers
from benchmark_pictures import SIDE, box_mask, picture, write_brushbench, write_pictures
from ml_collections import FrozenConfigDict
from PIL import Image
from processes import codes, free_address, said, start
from test_clip_vision import QUICK, TEXT
from test_lpips import random_lpips, saved, squeeze

import onereward_jax
from onereward_jax.chain import run_chain
from onereward_jax.chain.stage import StageContext
from onereward_jax.common.config_files import load_config
from onereward_jax.common.user_errors import Stopped
from onereward_jax.data.benchmark_folders import read_benchmark
from onereward_jax.evaluation.benchmark_metrics import METRICS
from onereward_jax.mini.mini_tokenizers import clip_tokenizer
from onereward_jax.parallel import make_mesh
from onereward_jax.parallel.preemption import StopPoints
from onereward_jax.stages import STAGES, benchmark
from onereward_jax.stages.benchmark import measure_pictures
from onereward_jax.stages.benchmark.measured import MEASURED

ROOT = pathlib.Path(onereward_jax.__file__).parents[1]


def make_clip(folder):
    """A random CLIP with both towers and a tokenizer."""
    tokenizer = clip_tokenizer(["red apples, the word SALE"], merges=20, max_length=16)
    text = TEXT | dict(
        vocab_size=len(tokenizer), max_position_embeddings=16,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id,
    )  # fmt: skip
    config = transformers.CLIPConfig(text_config=text, vision_config=QUICK, projection_dim=12)
    transformers.CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    side = {"height": QUICK["image_size"], "width": QUICK["image_size"]}
    stated = {"size": {"shortest_edge": QUICK["image_size"]}, "crop_size": side}
    (folder / "preprocessor_config.json").write_text(json.dumps(stated))


def finished(folder, benchmarks, change):
    """Pictures of an editor from elsewhere: the source with something else inside the mask."""
    for number, (name, rows) in enumerate(benchmarks.items()):
        for row in rows:
            pixels = row.read()
            inside = np.asarray(picture(100 + number, row.size))
            made = np.where(pixels.mask[..., None], change(pixels, inside), pixels.source)
            path = folder / name / f"{row.name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(made.astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two benchmarks, weights of LPIPS and CLIP, and the pictures of two editors."""
    top = tmp_path_factory.mktemp("benchmark")
    write_brushbench(top / "brush")
    write_pictures(top / "photos")
    rows = {name: read_benchmark(name, top / name).rows for name in ("brush", "photos")}
    finished(
        top / "perfect",
        rows,
        lambda pixels, inside: inside if pixels.truth is None else pixels.truth,
    )
    finished(top / "noisy", rows, lambda pixels, inside: inside)
    (top / "noisy" / "photos" / "p1.png").unlink()
    saved(top / "lpips", *random_lpips(squeeze), "lpips")
    make_clip(top / "clip")
    return top


def config_of(world, **fields):
    config = load_config(f"{ROOT}/configs/mini.py:folder")
    config.stages = ("benchmark",)
    config.benchmark.update(
        folders=(f"brush={world}/brush", f"photos={world}/photos"),
        editors=(f"perfect={world}/perfect", f"noisy={world}/noisy"),
        lpips=f"{world}/lpips",
        clip=f"{world}/clip",
        judge="",
        pictures=2,
    )
    config.update_from_flattened_dict(fields)
    return config


def run(world, workdir, **fields):
    config = config_of(world, **fields)
    return run_chain(config, workdir, make_mesh(), STAGES, only="benchmark")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def done(world, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("done")
    run(world, workdir)
    return workdir


def test_each_metric_is_there_where_it_can_be_and_the_others_say_why(world, done):
    rows = {(row["editor"], row["row"]): row for row in lines(done / "benchmark" / "rows.jsonl")}
    assert len(rows) == 2 * 6
    for row in rows.values():
        assert row["metrics"].keys() | row["missing"].keys() == METRICS.keys()
        assert not row["metrics"].keys() & row["missing"].keys()
    filled, removed, word = (rows["noisy", name] for name in ("images/000001", "p0", "p2"))
    no_judge = {"judge": "config.benchmark.judge is empty", "judge_held_out":
                "config.evaluate.judge is empty, and the run has trained none "
                "(config.reward.held_out)"}  # fmt: skip
    assert filled["missing"] == no_judge | {
        "clip_removed": "the row is no removal",
        "clip_truth": "the row is no removal",
        "words": "the row's prompt has no words in quotes",
    }
    assert removed["missing"] == no_judge | {
        "psnr": "the row has no target",
        "ssim": "the row has no target",
        "lpips": "the row has no target",
        "clip_text": "the row has no prompt that says what to see",
        "clip_text_mask": "the row has no prompt that says what to see",
        "clip_truth": "the row has no target",
        "words": "the row's prompt has no words in quotes",
    }
    assert {"words", "psnr", "clip_text", "lpips"} <= word["metrics"].keys()
    absent = rows["noisy", "p1"]
    assert set(absent["missing"].values()) == {
        "the folder of this editor has no picture of the row"
    }
    perfect = rows["perfect", "images/000001"]["metrics"]
    assert perfect["psnr"] == perfect["psnr_kept"] == 60 and perfect["ssim"] == pytest.approx(1)
    assert perfect["lpips"] == perfect["lpips_kept"] == 0 < filled["metrics"]["lpips"]
    assert filled["metrics"]["psnr"] < 30 and filled["metrics"]["psnr_kept"] == 60
    assert filled["metrics"]["lpips_kept"] == 0 and filled["metrics"]["seam"] > perfect["seam"]

    page = (done / "benchmark" / "index.html").read_text()
    assert page.count("<img ") == 4 * 4 - 1 - 1  # p0 has no target, noisy no p1
    assert "http" not in page.replace("http://www.w3.org", "")
    table = (done / "benchmark" / "table.csv").read_text()
    assert "brush,all,noisy,lpips,3," in table and "photos,object removal,perfect,seam,1," in table
    told = (done / "benchmark" / "table.md").read_text()
    assert "- photos, noisy, 1 of 3 pictures (p1): the folder of this editor" in told


def test_a_stopped_run_goes_on_and_only_what_changed_is_measured(
    world, done, tmp_path, monkeypatch
):
    calls = []
    monkeypatch.setattr(
        measure_pictures,
        "_sample",
        lambda one, sample=measure_pictures._sample: calls.append(one.editor) or sample(one),
    )
    stops = iter([False, False, True])
    monkeypatch.setattr(StopPoints, "asked", lambda self: next(stops, False))
    fields = {"benchmark.lpips": "", "benchmark.clip": "", "benchmark.editors":
              (f"perfect={world}/perfect", f"noisy={tmp_path}/noisy")}  # fmt: skip
    shutil.copytree(world / "noisy", tmp_path / "noisy")
    with pytest.raises(Stopped, match="benchmark: stopped at"):
        run(world, tmp_path / "run", **fields)
    kept = len(lines(tmp_path / "run" / "benchmark" / MEASURED))
    assert kept
    with (tmp_path / "run" / "benchmark" / MEASURED).open("a") as file:
        file.write('{"kind": "pix')  # a killed run
    run(world, tmp_path / "run", **fields)
    values = {
        (one["kind"], one["editor"], one["row"]): one["values"]
        for one in lines(tmp_path / "run" / "benchmark" / MEASURED)
    }
    assert values == {
        (one["kind"], one["editor"], one["row"]): one["values"]
        for one in lines(done / "benchmark" / MEASURED)
        if one["kind"] in ("pixels", "words")
    }
    calls.clear()
    path = tmp_path / "noisy" / "photos" / "p2.png"
    Image.fromarray(np.full((SIDE, SIDE, 3), 9, np.uint8)).save(path)
    run(world, tmp_path / "run", **fields)
    assert set(calls) == {"noisy"}
    changed = {
        (one["kind"], one["editor"], one["row"]): one["values"]
        for one in lines(tmp_path / "run" / "benchmark" / MEASURED)
    }
    assert {place for place, found in changed.items() if found != values[place]} <= {
        ("pixels", "noisy", "p2"), ("words", "noisy", "p2"),
    }  # fmt: skip
    assert changed["pixels", "noisy", "p2"]["psnr_kept"] < 30
    calls.clear()
    run(world, tmp_path / "run", **fields)
    assert calls == []


def check(world, tmp_path, **fields):
    config = FrozenConfigDict(config_of(world, **fields))
    benchmark.check(StageContext("benchmark", config, tmp_path, make_mesh()))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"benchmark.folders": ()}, "config.benchmark.folders is empty: name the benchmarks"),
        ({"benchmark.folders": ("a=/gone",)}, "config.benchmark.folders: there is no folder /gone"),
        ({"benchmark.folders": ("a={}/brush:full",)}, "'full' is not a part of BrushBench"),
        ({"benchmark.folders": ("a={}/clip",)}, "is a folder without metadata.jsonl"),
        ({"benchmark.longest_side": 10}, "a picture of 10x10 is too small to be edited"),
        ({"benchmark.editors": ()}, "config.benchmark.editors is empty"),
        ({"benchmark.editors": ("a={}/lpips",)}, "has neither a transformer .* nor images"),
        ({"benchmark.editors": ("base", "base")}, "an editor is named twice"),
        ({"benchmark.lpips": "{}/clip"}, "config.benchmark.lpips: .* is not a tensor of LPIPS"),
        ({"benchmark.clip": "{}/lpips"}, "config.benchmark.clip: .*config.json does not exist"),
        ({"benchmark.judge": "{}/clip"}, "the judge .*/clip: "),
    ],
)
def test_mistakes_are_named_before_anything_is_edited(world, tmp_path, fields, message):
    def at(value):
        return value.format(world) if isinstance(value, str) else value

    given = {
        name: tuple(map(at, value)) if isinstance(value, tuple) else at(value)
        for name, value in fields.items()
    }
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        check(world, tmp_path, **given)


def test_damaged_pictures_are_named_with_their_rows(world, tmp_path):
    folder = write_brushbench(tmp_path / "brush")
    whole = (folder / "images" / "000001.jpg").read_bytes()
    (folder / "images" / "000001.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"1 bad rows\n  b, line 3, entry 000001: .*jpg is not a"):
        run(world, tmp_path / "run", **{"benchmark.folders": (f"b={folder}",)})
    rows = {"b": read_benchmark("b", world / "brush").rows}
    others = finished(tmp_path / "others", rows, lambda pixels, inside: inside)
    Image.fromarray(box_mask((SIDE, 20))).save(others / "b" / "images" / "000002.png")
    with pytest.raises(ValueError, match=r"1 bad pictures in .*\n  000002.png is 48x20 pixels"):
        run(world, tmp_path / "run", **{"benchmark.folders": (f"b={world}/brush",),
            "benchmark.editors": (f"others={others}",)})  # fmt: skip


EDITORS = ("base", f"again={ROOT}/onereward_jax/mini/models/editor/transformer")
OWN = {
    "benchmark.editors": EDITORS,
    "benchmark.lpips": "",
    "benchmark.clip": "",
    "benchmark.judge": "mini/models/judge",
    "evaluate.num_steps": 1,
}


@pytest.mark.slow
def test_editors_are_run_once_and_judged_the_same_by_one_and_by_two_processes(world, tmp_path):
    run(world, tmp_path / "one", **OWN)
    pictures = sorted((tmp_path / "one" / "benchmark" / "pictures").rglob("*.png"))
    assert len(pictures) == 2 * 6
    rows = lines(tmp_path / "one" / "benchmark" / "rows.jsonl")
    for row in rows:
        if row["editor"] == "again":  # the same weights and noise: the same pictures
            assert row["metrics"]["judge"] == pytest.approx(0.5, abs=1e-4)
        else:
            assert row["missing"]["judge"] == "the others are compared with this editor"
    times = {path: path.stat().st_mtime_ns for path in pictures}
    run(world, tmp_path / "one", **OWN, **{"benchmark.pictures": 1})
    assert times == {path: path.stat().st_mtime_ns for path in pictures}

    given = OWN | {
        "benchmark.folders": config_of(world).benchmark.folders,
        "stages": ("benchmark",),
    }
    command = [
        "-m", "onereward_jax.main", f"--config={ROOT}/configs/mini.py:folder",
        "--stage=benchmark", f"--workdir={tmp_path}/two", "--distributed",
        *(f"--config.{name}={value}" for name, value in given.items()),
    ]  # fmt: skip
    cluster = {"JAX_COORDINATOR_ADDRESS": free_address(), "JAX_NUM_PROCESSES": "2"}
    processes = [
        start(command, tmp_path, index=index, devices=jax.device_count() // 2,
              JAX_PROCESS_ID=str(index), **cluster)
        for index in range(2)
    ]  # fmt: skip
    assert codes(processes, 1200) == [0, 0], said(tmp_path, 0) + said(tmp_path, 1)
    both = lines(tmp_path / "two" / "benchmark" / "rows.jsonl")
    assert [row["row"] for row in both] == [row["row"] for row in rows]
    for one, other in zip(rows, both, strict=True):
        assert one["missing"] == other["missing"]
        for name, value in one["metrics"].items():
            assert other["metrics"][name] == pytest.approx(value, rel=1e-2, abs=1e-2), name
