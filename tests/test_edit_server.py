"""The server of the editor over HTTP: what it edits, what it refuses, and how it ends."""

from __future__ import annotations

import json
import re
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from browser import browser_of, require_browser, watched
from compilations import compilations
from PIL import Image
from playwright.sync_api import expect, sync_playwright
from served_editor import BATCH, STEPS, Served, content, mask, picture, pixels, sent, served

from onereward_jax import Editor, Judge, edit, judge
from onereward_jax.edit_server import Limits
from onereward_jax.edit_server.access_token import read_token
from onereward_jax.edit_server.edit_work import KeptEdit
from onereward_jax.edit_server.job_queue import STOPPING, Job, JobQueue, QueueFull
from onereward_jax.edit_server.judge_work import judge_job
from onereward_jax.edit_server.request_bodies import JudgementBody
from onereward_jax.inference.crop_window import crop_window, free_size
from onereward_jax.parallel import make_mesh
from onereward_jax.reward.judge_view import JudgeView


@pytest.fixture(scope="module")
def editor() -> Editor:
    return Editor.from_pretrained("mini/models/editor", mesh=make_mesh(devices=jax.devices()[:1]))


@pytest.fixture(scope="module")
def judge_model() -> Judge:
    return Judge.from_pretrained("mini/models/judge", mesh=make_mesh(devices=jax.devices()[:1]))


@pytest.fixture
def server(editor, judge_model) -> Iterator[Served]:
    with served(editor, judge_model) as running:
        yield running


def edited_by_the_command(folder: Path, rows: list[dict], *flags: str) -> list[np.ndarray]:
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = folder / "out"
    edit.main([
        "--model=mini/models/editor", f"--image={folder}", f"--out={out}", f"--steps={STEPS}",
        f"--batch_size={BATCH}", *flags,
    ])  # fmt: skip
    return [pixels(path) for path in sorted(out.glob("*.png"))]


def test_edits_are_those_of_the_command_bit_for_bit_whoever_else_asks(
    server, editor, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(edit, "load", lambda *_: editor)
    large, area = picture(2, (160, 120)), mask(20, 30, 60, 50, size=(160, 120))
    for name, files in {
        "small": {"a": picture(0), "a_mask": mask(), "b": picture(1), "b_mask": mask(0, 0, 20, 63)},
        "large": {"c": large, "c_mask": area},
    }.items():
        (tmp_path / name).mkdir()
        for file, made in files.items():
            made.save(tmp_path / name / f"{file}.png")
    row = lambda name, prompt: dict(image=f"{name}.png", mask=f"{name}_mask.png", prompt=prompt)
    whole = edited_by_the_command(
        tmp_path / "small", [row("a", "a red apple"), row("b", "the word CAFE")], "--seed=5"
    )
    _, window = edited_by_the_command(tmp_path / "large", [row("c", "a cat")] * 2, "--crop")

    requests = [
        {"image": sent(picture(0)), "mask": sent(mask()), "prompt": "a red apple", "seed": 5},
        {"image": sent(picture(1)), "mask": sent(mask(0, 0, 20, 63)), "prompt": "the word CAFE",
         "seed": 5},
        {"image": sent(large), "mask": sent(area), "prompt": "a cat"},
    ]  # fmt: skip
    places = [server.post(**body).headers["location"] for body in requests]
    jobs = [server.engine.queue.find(place.rpartition("/")[2]) for place in places]
    with server.running(), compilations() as compiled:
        results = [server.result(place) for place in places]
        assert jobs[1].started < jobs[0].ended  # in one batch
        assert jobs[2].started >= jobs[1].ended
        alone = server.result(server.post(**requests[0]).headers["location"])
    for found, expected in zip([*results, alone], [*whole, window, whole[0]], strict=True):
        assert np.array_equal(found, expected)
    where = np.asarray(mask()) > 0
    assert (results[0][where] != np.asarray(picture(0))[where]).any()
    assert "jit(step)" not in compiled


def test_events_tell_every_step_and_the_judge_compares_the_results(
    server, judge_model, tmp_path, monkeypatch, capsys
) -> None:
    body = {"image": sent(picture(0)), "mask": sent(mask()), "prompt": "a red apple"}
    places = [server.post(**body, seed=seed).headers["location"] for seed in (0, 1)]
    assert server.http.get(places[1]).json()["place"] == 1
    answer = server.http.get(f"{places[0]}/result")
    assert answer.status_code == 409 and "the edit is waiting" in answer.json()["error"]
    a, b = (place.rpartition("/")[2] for place in places)
    assert server.refused("/api/judgements", a=a, b=b) == (
        400, f"a: there is no finished edit {a}; the oldest are forgotten"
    )  # fmt: skip
    with server.running():
        states = server.states(places[0])
        assert [one["state"] for one in states][-1] == "done" and states[-1]["steps"] == STEPS
        steps = [one["step"] for one in states]
        assert steps == sorted(steps) and steps[-1] == STEPS
        results = [server.result(place) for place in places]
        asked = server.post("/api/judgements", a=a, b=b).headers["location"]
        (*_, last) = server.states(asked)
        # The same pictures, sent as files.
        files = {name: sent(Image.fromarray(made)) for name, made in zip("ab", results)}
        again = server.post("/api/judgements", **files, task="fill", prompt="a red apple")
        (*_, same) = server.states(again.headers["location"])
    assert last["answers"] == same["answers"] == server.http.get(asked).json()["answers"]
    assert [one["dimension"] for one in last["answers"]] == [
        "structure", "consistency", "text_alignment", "aesthetics"
    ]  # fmt: skip
    for name, made in zip("ab", results):
        Image.fromarray(made).save(tmp_path / f"{name}.png")
    monkeypatch.setattr(Judge, "from_pretrained", lambda _: judge_model)
    judge.main([
        "--model=mini/models/judge", f"--a={tmp_path}/a.png", f"--b={tmp_path}/b.png",
        "--task=fill", "--dimension=text_alignment", "--prompt=a red apple",
    ])  # fmt: skip
    forth, back, verdict = capsys.readouterr().out.splitlines()
    told = last["answers"][2]
    assert forth.endswith(f"{told['a_first']:.4f}") and back.endswith(f"{told['b_first']:.4f}")
    sure = max(told["a_is_better"], 1 - told["a_is_better"])
    assert verdict.startswith("ab"[told["a_is_better"] < 0.5]) and f"{sure:.4f}" in verdict
    assert server.http.delete(places[0]).status_code == 204
    assert server.http.get(places[0]).status_code == 404


def test_the_judge_sees_large_results_in_the_window_of_their_mask(editor) -> None:
    size = (320, 240)
    sources, area = [picture(seed, size) for seed in (0, 1, 2)], mask(40, 30, 80, 60, size=size)
    edit_before = Job("edit", "", None, 1, result=content(sources[0]), state="done")
    edit_before.kept = KeptEdit("remove", "", content(area), content(sources[2]), None)
    find = {edit_before.number: edit_before}.get
    body = {"a": edit_before.number, "b": sent(sources[1])}
    asked = lambda view, **changes: (
        judge_job(JudgementBody(**{**body, **changes}), find, editor.defaults, Limits(), view).work
    )
    question = asked(JudgeView(source="blanked"))
    window = crop_window(
        (30, 40, 61, 81), size[::-1], resolution=64, aspect_ratios=(1.0,), context=2.0, margin=0
    )
    for seen, source in zip((question.a, question.b, question.source), sources, strict=True):
        expected = source.resize((64, 64), Image.Resampling.LANCZOS, box=window.box)
        assert np.array_equal(np.asarray(seen), np.asarray(expected))
    assert np.asarray(question.mask).any() and not np.asarray(question.mask).all()
    files = {"a": sent(sources[0]), "task": "remove"}
    assert asked(JudgeView(), **files).a.size == free_size(size[::-1], 64)[::-1]
    with pytest.raises(ValueError, match="mask: needed, this judge sees crops around the mask"):
        asked(JudgeView(crop=2.0), **files)
    with pytest.raises(ValueError, match="source: needed, this judge sees the source picture"):
        asked(JudgeView(source="outlined"), **files, mask=sent(area))


def png_of_size(width: int, height: int) -> bytes:
    """A picture of one colour and of so many pixels, in some kilobytes: a decompression bomb."""
    chunk = lambda kind, data: (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width // 8 + 1) * 64))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def test_wrong_fields_are_named_in_one_sentence(server) -> None:
    good = {"image": sent(picture(0)), "mask": sent(mask()), "prompt": "a red apple"}
    large = {"image": sent(picture(0, (160, 120))), "mask": sent(mask(size=(160, 120)))}
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    for change, sentence in (
        ({"image": sent(png_of_size(60_000, 60_000))}, "image is not a readable image: "),
        ({"image": sent(png_of_size(9_000, 9_000))}, "image: 9000x9000 pixels are more than 40 "),
        ({"mask": sent(png_of_size(9_000, 9_000))}, "mask: 9000x9000 pixels are more than 40 "),
        ({"image": sent(eps)}, "image: EPS is not read here: send PNG or JPEG"),
        ({"image": sent(b"text")}, "image is not a readable image: cannot identify"),
        ({"image": sent(content(picture(0))[:900])}, "image is not a readable image: "),
        ({"image": "a.png"}, "image: Value error, base64 of a picture's file expected"),
        ({"image": None}, "image: "),
        ({"mask": None}, "the task fill needs a mask"),
        ({"mask": sent(mask(size=(64, 32)))}, "the mask of 64x32 pixels has another aspect ratio"),
        ({"mask": sent(Image.new("L", (64, 64)))}, "mask: the mask is empty"),
        ({"mask": None, "pad": "1,2,3"}, "pad '1,2,3': four integers expected"),
        ({"mask": None, "pad": "1,2,3,4"}, "pad is for the task extend, not for fill"),
        (
            {"mask": None, "pad": "9000,0,0,9000", "task": "extend"},
            "pad: 9064x9064 pixels are more",
        ),
        ({"prompt": ""}, "the task fill needs a prompt"),
        ({"prompt": "x" * 5000}, "prompt: "),
        ({"task": "fly"}, "task: Input should be 'fill', 'extend' or 'remove'"),
        ({"steps": 0}, "steps: Input should be greater than or equal to 1"),
        ({"steps": 201}, "steps: 201, at most 200 in all are made here"),
        ({"steps": "2"}, "steps: Input should be a valid integer"),
        ({"seed": 2**64}, "seed: "),
        ({"true_cfg_scale": -1}, "true_cfg_scale: "),
        ({"strength": 0}, "strength: "),
        ({"feather": 10**9}, "feather: "),
        ({"context": 3}, "context is for crop, which is not given"),
        ({"paste_back": False, "crop": True}, "paste_back: crop pastes its window back"),
        ({**large, "crop": False}, "crop: the picture of 160x120 pixels is too large to be edited"),
        ({"step": 2}, "step: Extra inputs are not permitted"),
    ):
        code, told = server.refused(**{**good, **change})
        assert code == 400 and told.startswith(sentence) and "\n" not in told, (change, told)
    dots = Image.new("L", (160, 120))
    for left in (2, 60, 120):
        dots.paste(255, (left, 50, left + 8, 58))
    many = {"mask": sent(dots), "components": "each", "crop": True, "steps": 100}
    assert server.refused(**{**good, **large, **many}) == (
        400, "steps: 100 for each of 3 areas, at most 200 in all are made here"
    )  # fmt: skip
    for change, sentence in (
        ({}, "task: needed, unless a or b is the number of an edit"),
        (
            {"task": "fill", "b": sent(picture(1, (32, 32)))},
            "b: pictures to compare must have the ",
        ),
        ({"a": "x", "task": "fill"}, "a: the number of an edit, or base64"),
    ):
        body = {"a": sent(picture(0)), "b": sent(picture(1)), **change}
        code, told = server.refused("/api/judgements", **body)
        assert code == 400 and told.startswith(sentence), told
    assert server.http.post("/api/edits", content=b"{").status_code == 400
    assert server.engine.queue.length == 0


def test_a_full_queue_says_when_to_come_again_and_cancelled_requests_make_room(
    editor, judge_model
) -> None:
    with served(editor, judge_model, queue=2, upload_mib=1) as server:
        good = {"image": sent(picture(0)), "mask": sent(mask()), "task": "remove"}
        first, _ = (server.post(**good).headers["location"] for _ in range(2))
        answer = server.post(**{**good, "image": sent(b"is not even decoded")})
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"] == "2 requests wait already: try again later"
        assert server.http.delete(first).status_code == 204
        assert server.http.get(first).json()["state"] == "cancelled"
        assert server.post(**good).status_code == 202
        code, sentence = server.refused(**{**good, "image": "A" * (1 << 20)})
        assert (code, sentence) == (413, f"a request may have {1 << 20} bytes at most")
        server.engine.editor = None  # as before the models are there
        assert server.http.get("/health").status_code == 200
        assert server.http.get("/ready").status_code == 503
        answer = server.post(**good)
        assert answer.status_code == 503 and "being loaded" in answer.json()["error"]


def test_results_are_forgotten_oldest_first_and_jobs_without_a_client_are_given_up() -> None:
    queue = JobQueue(longest=9, batch_size=2, kept=2, kept_bytes=100)
    jobs = [Job("edit", key, None, steps=3) for key in "aaba"]
    for job in jobs:
        queue.submit(job)
    assert queue.take(0.0) == [jobs[0], jobs[1]]  # not the third of that key, not the other key
    assert queue.advance([jobs[0], jobs[1]])
    queue.cancel(jobs[0])
    assert queue.advance([jobs[0], jobs[1]])
    queue.cancel(jobs[1])
    assert not queue.advance([jobs[0], jobs[1]])
    queue.end(jobs[0], result=b"late")
    assert jobs[0].state == "cancelled" and jobs[0].result is None
    for job in jobs[2:]:
        assert queue.take(0.0) == [job]
        queue.end(job, result=bytes(80))
    assert [queue.find(job.number) for job in jobs] == [None, None, None, jobs[3]]


def test_when_it_stops_what_runs_is_finished_and_what_waits_is_told(server) -> None:
    good = {"image": sent(picture(0)), "mask": sent(mask()), "task": "remove"}
    running, *waiting = (
        server.post(**good, seed=seed, steps=steps).headers["location"]
        for seed, steps in enumerate((60, 2, 3))
    )
    stop = threading.Event()
    work = threading.Thread(target=server.engine.run, args=(stop,))
    work.start()
    job, *told = (
        server.engine.queue.find(place.rpartition("/")[2]) for place in (running, *waiting)
    )
    while job.step == 0:
        stop.wait(0.005)
    stop.set()
    for place in waiting:
        (*_, last) = server.states(place)
        assert (last["state"], last["error"]) == ("failed", STOPPING)
    assert server.http.get("/ready").status_code == 503
    answer = server.post(**good)
    assert (answer.status_code, answer.json()["error"]) == (503, STOPPING)
    assert server.result(running).shape == (64, 64, 3)  # the engine waits for this
    assert all(one.ended < job.ended for one in told)
    work.join(timeout=60)
    assert not work.is_alive()
    with pytest.raises(QueueFull):
        server.engine.queue.submit(job)


def test_only_who_has_the_token_may_ask(editor, judge_model, tmp_path) -> None:
    token = read_token(tmp_path / "token")
    assert read_token(tmp_path / "token") == token and len(token) > 40
    assert (tmp_path / "token").stat().st_mode & 0o77 == 0
    (tmp_path / "short").write_text("secret")
    with pytest.raises(ValueError, match="--token_file: .*short must hold one token of at least"):
        read_token(tmp_path / "short")
    with served(editor, judge_model, token) as server:
        for path in ("/", "/edit.css", "/style.css", "/health", "/ready", "/docs", "/openapi.json"):
            assert server.http.get(path).status_code == 200, path
        assert server.http.get("/api/about").status_code == 401
        assert server.refused(image="")[0] == 401
        for wrong in ("x", f"{token}x", token[:-1], "ü"):
            headers = {"Authorization": f"Bearer {wrong}".encode()}
            assert server.http.get("/api/about", headers=headers).status_code == 401
            assert server.refused("/api/login", token=wrong)[0] == 401
        bearer = {"Authorization": f"Bearer {token}"}
        about = server.http.get("/api/about", headers=bearer).json()
        assert about["defaults"]["steps"] == STEPS and about["tasks"]["remove"] == [
            "removal_quality"
        ]
        assert server.http.post("/api/login", json={"token": token}).status_code == 204
        assert server.http.get("/api/about").status_code == 200  # by the cookie
        other = {"Origin": "https://evil.example"}
        assert server.http.post("/api/edits", json={}, headers=other).status_code == 403
        assert server.http.get("/", headers={"Host": "evil.example"}).status_code == 400
        for _ in range(10):
            code, _ = server.refused("/api/login", token="wrong")
        assert code == 429
        policy = server.http.get("/").headers["content-security-policy"]
        assert "default-src 'self'" in policy and "unsafe" not in policy


def test_a_mask_drawn_with_the_mouse_is_edited_and_results_are_compared(server) -> None:
    require_browser()
    with sync_playwright() as playwright, server.running():
        with browser_of(playwright) as context:
            page = context.new_page()
            address = str(server.http.base_url)
            complaints = watched(page, allowed=(address,))
            page.goto(address)
            page.get_by_role("button", name="Edit", exact=True).click()
            expect(page.get_by_role("alert")).to_have_text("Open a picture first.")
            page.locator("input[data-opens=picture]").set_input_files(
                {"name": "a.png", "mimeType": "image/png", "buffer": content(picture(0))}
            )
            page.get_by_label("Prompt", exact=True).fill("a red apple")
            page.get_by_role("button", name="Edit", exact=True).click()
            expect(page.get_by_role("alert")).to_contain_text("Draw a mask first")
            page.keyboard.press("Tab")  # out of the text: keys are the page's again
            page.keyboard.press("r")
            canvas = page.locator("canvas.drawing")
            box = canvas.bounding_box()
            at = lambda x, y: (box["x"] + x / 64 * box["width"], box["y"] + y / 64 * box["height"])
            for start, end in (((0, 0), (64, 64)), ((10.2, 12.2), (40.8, 44.8))):
                page.mouse.move(*at(*start))
                page.mouse.down()
                page.mouse.move(*at(30, 30))
                page.mouse.move(*at(*end))
                page.mouse.up()
                if end == (64, 64):
                    page.keyboard.press("u")
            for count in (1, 2):
                page.get_by_label("Seed").fill(str(count + 6))
                page.get_by_role("button", name="Edit", exact=True).click()
                expect(page.locator(".card")).to_have_count(count, timeout=200_000)
            assert page.locator(".pane.result .frame img").first.is_visible()
            with page.expect_download() as download:
                page.locator(".download").click()
            drawn = pixels(Path(download.value.path()))
            body = {"image": sent(picture(0)), "mask": sent(mask(10, 12, 40, 44)), "seed": 8}
            same = server.post(**body, prompt="a red apple", feather=8)
            assert np.array_equal(drawn, server.result(same.headers["location"]))
            grid = page.locator(".pane.result .table")
            page.locator(".flip").click()
            expect(grid).to_have_class(re.compile("show-source"))
            page.keyboard.press("f")
            for letter in "AB":
                page.get_by_role("button", name=f"compare result {letter}").click()
            page.get_by_role("button", name="Which is better?").click()
            expect(page.locator(".answer")).to_have_count(4, timeout=200_000)
            expect(page.locator(".judge .status")).to_contain_text("is better: ")
            page.goto(f"{address}/docs")
            expect(page.locator(".api table").first).to_contain_text("true_cfg_scale")
            assert complaints == []
