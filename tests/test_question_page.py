"""The page that needs no server, by real keys and clicks in a browser, from file://."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from browser import browser_of, killable, require_browser, watched
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from onereward_jax.annotation.answers import read_answers
from onereward_jax.annotation.guidelines import read_guidelines
from onereward_jax.annotation.question_page import write_question_page
from onereward_jax.annotation.questions import Question
from onereward_jax.tasks import DIMENSIONS, Task

COLOURS = ((200, 30, 30), (30, 160, 30), (30, 30, 200), (220, 200, 20))


def asked(folder, name, task, candidates, dimensions=None, size=160):
    """A question with pictures of one colour: candidate i has `COLOURS[i]`."""
    place = folder / name
    place.mkdir(parents=True)
    mask = np.zeros((size, size), np.uint8)
    mask[: size // 2] = 255
    Image.new("RGB", (size, size), "grey").save(place / "image.png")
    Image.fromarray(mask).save(place / "mask.png")
    for number in range(candidates):
        Image.new("RGB", (size, size), COLOURS[number]).save(place / f"{number}.png")
    return Question(
        triplet=f"train/{name}",
        task=task,
        prompt="a </script> “red” apple",
        dimensions=dimensions or tuple(one.value for one in DIMENSIONS[task]),
        image=f"{name}/image.png",
        mask=f"{name}/mask.png",
        candidates=tuple(f"{name}/{number}.png" for number in range(candidates)),
        digest=f"{name:0<16}",
    )


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """A folder as annotators receive it, and its questions."""
    folder = tmp_path_factory.mktemp("questions")
    made = [
        asked(folder, "a", Task.FILL, 4),
        asked(folder, "b", Task.REMOVAL, 4, size=64),
        asked(folder, "c", Task.FILL, 2, ("structure", "overall")),
        asked(folder, "d", Task.FILL, 1, ("usable",)),
    ]
    write_question_page(folder / "index.html", made)
    return folder, made


@pytest.fixture(scope="module")
def playwright():
    """One driver for all tests; a browser each."""
    require_browser()
    with sync_playwright() as started:
        yield started


def opened(context, folder):
    """The page in a new tab, and what it complains about."""
    page = context.new_page()
    complaints = watched(page, allowed=("file://",))
    page.goto((folder / "index.html").as_uri())
    return page, complaints


def begun(context, folder, name="Kim"):
    """The page at its first item, after the name was given."""
    page, complaints = opened(context, folder)
    page.get_by_label("Your name").fill(name)
    page.keyboard.press("Enter")
    page.locator("[data-set]").click()
    expect(page.locator(".pictures")).to_be_visible()
    return page, complaints


def shown_colours(page):
    """The candidate that is at each position, by its file's name."""
    addresses = page.locator(".candidate .stage img:first-child").evaluate_all(
        "(all) => all.map((one) => one.src)"
    )
    return [int(pathlib.PurePosixPath(one).stem) for one in addresses]


def type_keys(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def saved_answers(page, folder, questions, tmp_path):
    """What `read_answers` finds in the file that the page saves: {(triplet, dimension): answer}."""
    with page.expect_download() as download:
        page.locator("#save-now, #save").click()
    assert download.value.suggested_filename == "answers-Kim.jsonl"
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    found = read_answers(path, questions)
    assert not found.elsewhere and {one.annotator for one in found.given} <= {"Kim"}
    return {(one.triplet, one.dimension): one for one in found.given}


def test_keys_answer_and_the_file_has_the_candidates_that_were_looked_at(
    playwright, questions, tmp_path
):
    folder, made = questions
    with browser_of(playwright) as context:
        page, complaints = begun(context, folder)
        heading, missing = page.locator("h1"), page.locator(".missing-choice")
        expect(heading).to_have_text("structure: which is best, which is worst?")
        first = shown_colours(page)
        # digits go by their place: with Shift, and on a layout where they are other characters
        page.evaluate(
            """() => window.dispatchEvent(
                new KeyboardEvent("keydown", { code: "Digit3", key: "\\"", bubbles: true }))"""
        )
        expect(page.get_by_label("candidate 3 is best")).to_have_attribute("aria-pressed", "true")
        type_keys(page, "Shift+Digit3")  # the best becomes the worst: the best is open again
        expect(page.get_by_label("candidate 3 is best")).to_have_attribute("aria-pressed", "false")
        type_keys(page, "Digit2", "Enter")
        expect(heading).to_have_text("consistency: which is best, which is worst?")
        type_keys(page, "0", "Enter")
        page.get_by_label("candidate 4 is best").click()
        page.get_by_label("candidate 1 is worst").click()
        type_keys(page, "Enter")  # the button of the click does not keep the key
        expect(heading).to_have_text("aesthetics: which is best, which is worst?")
        type_keys(page, "1", "Enter")
        expect(missing).to_have_text("Choose the worst one too. Enter again leaves it open.")
        type_keys(page, "Shift+Digit2", "Backspace", "Shift+Digit3", "u", "Enter", "Enter")

        expect(heading).to_have_text("removal quality: which is best, which is worst?")
        expect(page.locator(".stage img").first).to_have_class("small")
        second = shown_colours(page)
        type_keys(page, "4", "Shift+Digit1", "Shift+Digit2", "Control+z", "Enter")
        expect(heading).to_have_text("structure: which is better?")
        third = shown_colours(page)
        type_keys(page, "2", "Enter")
        page.get_by_role("button", name="No difference").click()
        type_keys(page, "Enter")
        expect(heading).to_have_text("usable: yes or no?")
        type_keys(page, "n", "1", "Enter")
        expect(page.locator("h1")).to_have_text("Hello, Kim")
        expect(page.locator(".set")).to_contain_text("4 of 4 answered; nothing left")

        given = saved_answers(page, folder, made, tmp_path)
    pairs = {key: (one.best, one.worst) for key, one in given.items()}
    assert pairs["train/a", "structure"] == (first[1], first[2])
    assert pairs["train/a", "consistency"] == (None, None)
    assert pairs["train/a", "text_alignment"] == (first[3], first[0])
    assert pairs["train/a", "aesthetics"] == (first[0], first[1])
    assert pairs["train/b", "removal_quality"] == (second[3], second[0])
    assert pairs["train/c", "structure"] == (third[1], third[0])
    assert pairs["train/c", "overall"] == (None, None)
    assert complaints == []


def test_looking_zooms_all_pictures_and_shows_the_source(playwright, questions):
    folder, _ = questions
    with browser_of(playwright) as context:
        page, complaints = begun(context, folder)
        stages = page.locator(".stage")
        sizes = lambda: stages.evaluate_all(
            "(all) => all.map((one) => one.getBoundingClientRect().toJSON())"
        )
        places = lambda: [
            {
                name: box[name] - frame[name]
                for name, box, frame in ((n, b, f) for n in ("x", "y", "width"))
            }
            for b, f in zip(sizes(), frames)
        ]
        frames = sizes()
        type_keys(page, "z")
        zoomed = places()
        assert len(zoomed) == 5 and all(one == zoomed[0] for one in zoomed)
        assert sizes()[0]["width"] == pytest.approx(3 * frames[0]["width"])
        box = page.locator(".candidate .frame").first.bounding_box()
        page.mouse.move(box["x"] + 100, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + 130, box["y"] + 90)
        page.mouse.up()
        dragged = places()
        assert dragged[4]["x"] == pytest.approx(zoomed[0]["x"] + 30, abs=0.1)
        assert dragged[0]["y"] == pytest.approx(zoomed[0]["y"] - 10, abs=0.1)
        page.mouse.wheel(0, -200)
        assert places()[0]["width"] > dragged[0]["width"]
        type_keys(page, "z")
        assert sizes() == frames

        under = page.locator(".candidate .under").first
        expect(under).to_be_hidden()
        page.keyboard.down("f")
        expect(under).to_be_visible()
        page.wait_for_timeout(400)
        page.keyboard.up("f")
        expect(under).to_be_hidden()
        type_keys(page, "f")  # a tap: on and off by itself
        expect(page.get_by_label("the source in the place")).to_have_attribute(
            "aria-pressed", "true"
        )
        expect(under).to_be_visible()
        expect(under).to_be_hidden()
        type_keys(page, "f")
        mask = page.locator(".source .mask")
        expect(mask).to_be_visible()
        type_keys(page, "m")
        expect(mask).to_be_hidden()
        type_keys(page, "g")
        expect(page.get_by_role("complementary")).to_contain_text("lines and edges continue")
        type_keys(page, "g", "?")
        expect(page.get_by_role("dialog")).to_contain_text("no difference")
        type_keys(page, "1")  # belongs to the dialog
        type_keys(page, "Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
        expect(page.locator("[aria-pressed=true].best")).to_have_count(0)
        assert complaints == []


def test_a_reload_a_second_tab_and_a_new_browser_lose_nothing(playwright, questions, tmp_path):
    folder, made = questions
    profile = tmp_path / "profile"
    with browser_of(playwright, profile) as context:
        page, complaints = begun(context, folder)
        order = shown_colours(page)
        type_keys(page, "1", "Shift+Digit2", "Enter", "3")
        page.reload()
        expect(page.locator("h1")).to_have_text("consistency: which is best, which is worst?")
        assert shown_colours(page) == order
        expect(page.get_by_label("candidate 3 is best")).to_have_attribute("aria-pressed", "true")

        other, _ = opened(context, folder)
        other.locator("[data-set]").click()
        expect(other.locator("h1")).to_contain_text("consistency")
        assert shown_colours(other) == order
        type_keys(other, "Shift+Digit1", "Enter", "0")
        page.bring_to_front()
        expect(page.get_by_label("consistency: best 3, worst 1")).to_be_visible()
        expect(page.get_by_label("text alignment: no difference")).to_be_visible()
        type_keys(page, "Enter", "Enter", "4", "Shift+Digit3")
        expect(other.get_by_label("aesthetics: best 4, worst 3")).to_be_visible()
        assert complaints == []
    with browser_of(playwright, profile) as context:  # the browser was closed with both tabs open
        page, complaints = opened(context, folder)
        expect(page.locator("h1")).to_have_text("Hello, Kim")
        given = saved_answers(page, folder, made, tmp_path)
        assert complaints == []
    pairs = {key: (one.best, one.worst) for key, one in given.items()}
    assert pairs == {
        ("train/a", "structure"): (order[0], order[1]),
        ("train/a", "consistency"): (order[2], order[0]),
        ("train/a", "text_alignment"): (None, None),
        ("train/a", "aesthetics"): (order[3], order[2]),
    }


def test_a_killed_browser_has_every_answer_that_it_told_to_be_kept(playwright, questions, tmp_path):
    folder, made = questions
    with killable(playwright, tmp_path / "profile") as (browser, context):
        page, _ = begun(context, folder)
        order = shown_colours(page)
        type_keys(page, "1", "Shift+Digit2", "Enter", "3", "Shift+Digit1", "u", "Shift+Digit4")
        expect(page.locator(".saved")).to_have_attribute("data-state", "saved")
        browser.kill()
        browser.wait()
    with browser_of(playwright, tmp_path / "profile") as context:
        page, complaints = opened(context, folder)
        expect(page.locator("h1")).to_have_text("Hello, Kim")
        given = saved_answers(page, folder, made, tmp_path)
        assert complaints == []
    assert {key: (one.best, one.worst) for key, one in given.items()} == {
        ("train/a", "structure"): (order[0], order[1]),
        ("train/a", "consistency"): (order[2], order[3]),
    }


def test_a_browser_that_keeps_nothing_says_so_and_saves_files(playwright, questions, tmp_path):
    folder, made = questions
    with browser_of(playwright) as context:
        context.add_init_script(
            """for (const name of ["localStorage", "sessionStorage", "indexedDB"]) {
                Object.defineProperty(window, name, { get() { throw new Error("refused"); } });
            }"""
        )
        page, complaints = begun(context, folder)
        order = shown_colours(page)
        type_keys(page, "1", "Shift+Digit2", "Enter", "0", "Enter", "Backspace")
        expect(page.get_by_label("structure: best 1, worst 2")).to_be_visible()
        expect(page.locator(".saved")).to_have_text("kept in this page: do not close it")
        given = saved_answers(page, folder, made, tmp_path)
        assert complaints == []
    assert {key: (one.best, one.worst) for key, one in given.items()} == {
        ("train/a", "structure"): (order[0], order[1]),
        ("train/a", "consistency"): (None, None),
    }


def test_a_saved_file_continues_in_another_browser(playwright, questions, tmp_path):
    folder, made = questions
    with browser_of(playwright) as context:
        page, _ = begun(context, folder)
        type_keys(page, "1", "Shift+Digit2", "Enter", "0")
        before = saved_answers(page, folder, made, tmp_path)
    file = tmp_path / "answers-Kim.jsonl"
    shutil.copytree(folder, tmp_path / "copy")
    with browser_of(playwright) as context:
        page, complaints = opened(context, tmp_path / "copy")
        broken = tmp_path / "broken.jsonl"
        broken.write_text(file.read_text() + json.dumps({**LINE, "best": 9, "worst": 1}))
        page.locator("input[type=file]").set_input_files(broken)
        expect(page.get_by_role("alert")).to_contain_text("line 3: not an answer to structure")
        expect(page.locator("#save")).to_be_disabled()
        page.locator("input[type=file]").set_input_files(file)
        expect(page.get_by_role("alert")).to_have_text("2 of 2 answers are new.")
        page.locator("[data-set]").click()
        expect(page.locator("h1")).to_contain_text("text alignment")
        type_keys(page, "1", "Shift+Digit2")
        after = saved_answers(page, folder, made, tmp_path)
        assert complaints == []
    assert len(after) == 3
    for key, answer in before.items():
        assert (after[key].best, after[key].worst) == (answer.best, answer.worst)


LINE = {"digest": f"{'a':0<16}", "dimension": "structure"}


def test_a_team_s_guideline_and_its_examples_are_on_the_page(playwright, tmp_path):
    folder = tmp_path / "questions"
    made = [asked(folder, "a", Task.REMOVAL, 3)]
    team = folder / "guidelines"
    team.mkdir()
    (team / "removal_quality.md").write_text("# Ours\n\nNo <b>ghosts</b>.\n\n- none\n- at all\n")
    for side in ("good", "bad"):
        Image.new("RGB", (40, 40), "blue").save(team / f"removal_quality-{side}-1.png")
    write_question_page(folder / "index.html", made, read_guidelines(team))
    with browser_of(playwright, color_scheme="dark", has_touch=True) as context:
        page, complaints = begun(context, folder)
        page.get_by_label("guideline of the dimension").tap()
        panel = page.get_by_role("complementary")
        expect(panel.get_by_text("No <b>ghosts</b>.")).to_be_visible()
        expect(panel.get_by_role("listitem")).to_have_text(["none", "at all"])
        for name in ("Good, example 1", "Bad, example 1"):
            assert panel.get_by_alt_text(name).evaluate("(one) => one.decode().then(() => true)")
        small = page.locator("button:visible").evaluate_all(
            """(all) => all.map((one) => [one.textContent, one.getBoundingClientRect().height])
                 .filter(([, height]) => height < 40)"""
        )
        assert small == []
        dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert max(map(int, dark.removeprefix("rgb(").rstrip(")").split(","))) < 60
        assert complaints == []
