"""The page against the real annotation server, by real keys and clicks in a browser."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
import sqlalchemy as sa
from browser import browser_of, free_port, killable, require_browser, watched
from PIL import Image
from playwright.sync_api import expect, sync_playwright
from web_annotators import AB, SET, Browser, served, token_of

from onereward_jax.annotation.questions import FILE, Question, add_questions
from onereward_jax.annotation.server import AnswerDatabase, login_link, stored_answers
from onereward_jax.annotation.server.question_files import read_questions
from onereward_jax.annotation.server.tables import LEASES
from onereward_jax.annotation.web_settings import database_url
from onereward_jax.tasks import DIMENSIONS, Task

COLOURS = ((200, 30, 30), (30, 160, 30), (30, 30, 200), (220, 200, 20))

SERVE = """
import pathlib, sys, threading
from web_annotators import served
with served(pathlib.Path(sys.argv[1]), port=int(sys.argv[2])):
    print("ready", flush=True)
    threading.Event().wait()
"""


def asked(workdir, set_name, name, task, candidates, dimensions=None):
    """A question whose candidate i has `COLOURS[i]`."""
    folder = workdir / set_name
    (folder / name).mkdir(parents=True)
    mask = np.zeros((160, 160), np.uint8)
    mask[:80] = 255
    Image.new("RGB", (160, 160), "grey").save(folder / name / "image.png")
    Image.fromarray(mask).save(folder / name / "mask.png")
    for number in range(candidates):
        Image.new("RGB", (160, 160), COLOURS[number]).save(folder / name / f"{number}.png")
    question = Question(
        triplet=f"train/{name}",
        task=task,
        prompt="a red apple",
        dimensions=dimensions or tuple(one.value for one in DIMENSIONS[task]),
        image=f"{name}/image.png",
        mask=f"{name}/mask.png",
        candidates=tuple(f"{name}/{number}.png" for number in range(candidates)),
        digest=f"{name:0<16}",
    )
    add_questions(folder / FILE, [*read_questions_of(folder), question])


def read_questions_of(folder):
    return read_questions(folder / FILE) if (folder / FILE).exists() else []


def saved(workdir, set_name=SET):
    """The answers in the database: {(annotator, triplet, dimension): (best, worst) or usable}."""
    with contextlib.closing(AnswerDatabase(database_url("", workdir))) as database:
        found = stored_answers(database, set_name, read_questions(workdir / set_name / FILE))
    return {
        (one.annotator, one.triplet.removeprefix("train/"), one.dimension): one.usable
        if one.usable is not None
        else (one.best, one.worst)
        for one in found.given
    }


def link_of(address, workdir, name, **options):
    return login_link(address, token_of(workdir, name, **options))


def opened(context, link, set_name=SET):
    """The page after logging in with a link, at its first item; and what it complains about."""
    page = context.new_page()
    complaints = watched(page, allowed=(link.partition("#")[0],))
    page.goto(link)
    page.locator(f"button[data-set={set_name}]").click()
    expect(page.locator(".pictures")).to_be_visible()
    return page, complaints


def shown(page):
    """The candidate at each position, by the colour of its pixels."""
    pixels = page.locator(".candidate .stage img:first-child").evaluate_all(
        """(all) => Promise.all(all.map(async (one) => {
            await one.decode();
            const canvas = document.createElement("canvas");
            canvas.width = canvas.height = 1;
            const context = canvas.getContext("2d");
            context.drawImage(one, 0, 0);
            return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
        }))"""
    )
    return [COLOURS.index(tuple(one)) for one in pixels]


def type_keys(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def expect_saved(page):
    expect(page.locator(".saved")).to_have_attribute("data-state", "saved")


@pytest.fixture(scope="module")
def playwright():
    """One driver for all tests; a browser each."""
    require_browser()
    with sync_playwright() as started:
        yield started


@pytest.fixture
def workdir(tmp_path):
    """A work folder with both sets of questions."""
    asked(tmp_path, SET, "a", Task.FILL, 4)
    asked(tmp_path, SET, "b", Task.REMOVAL, 4)
    asked(tmp_path, AB, "c", Task.FILL, 2, ("structure", "overall"))
    asked(tmp_path, AB, "d", Task.FILL, 1, ("usable",))
    return tmp_path


@contextlib.contextmanager
def process(workdir, port):
    """A server that can be killed."""
    paths = f"{pathlib.Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    started = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(workdir), str(port)],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert started.stdout.readline() == "ready\n"
        yield started
    finally:
        started.kill()
        started.wait()
        started.stdout.close()


def test_a_link_logs_in_and_keys_and_clicks_are_saved_as_candidates(playwright, workdir):
    with served(workdir) as server, browser_of(playwright) as context:
        link = link_of(server.address, workdir, "kim")
        page, complaints = opened(context, link)
        assert "token" not in page.url
        heading = page.locator("h1")
        expect(heading).to_have_text("structure: which is best, which is worst?")
        first = shown(page)
        type_keys(page, "2", "Shift+Digit4", "Enter", "0", "Enter")
        page.get_by_label("candidate 1 is best").click()
        page.get_by_label("candidate 3 is worst").click()
        type_keys(page, "Enter", "1", "Shift+Digit2", "Shift+Digit3", "Control+z", "Enter")
        expect(heading).to_have_text("removal quality: which is best, which is worst?")
        second = shown(page)
        type_keys(page, "3", "Shift+Digit1", "Backspace")
        expect(heading).to_have_text("aesthetics: which is best, which is worst?")
        expect(page.get_by_label("candidate 2 is worst")).to_have_attribute("aria-pressed", "true")
        expect(page.get_by_text("item 1 of 2")).to_be_visible()
        type_keys(page, "0", "u", "Enter")
        expect(page.get_by_text("item 2 of 2")).to_be_visible()
        type_keys(page, "Enter")
        expect(heading).to_have_text("Hello, kim")
        given = {key[1:]: said for key, said in saved(workdir).items()}
        assert given == {
            ("a", "structure"): (first[1], first[3]),
            ("a", "consistency"): (None, None),
            ("a", "text_alignment"): (first[0], first[2]),
            ("a", "aesthetics"): (first[0], first[1]),
            ("b", "removal_quality"): (second[2], second[0]),
        }

        page.locator(f"button[data-set={AB}]").click()
        kinds = {}
        for number in (1, 2):
            expect(page.get_by_text(f"item {number} of 2")).to_be_visible()
            if page.locator(".candidate").count() == 2:
                kinds["c"] = shown(page)
                type_keys(page, "2", "Enter")
                expect(heading).to_have_text("overall: which is better?")
                page.get_by_role("button", name="No difference").click()
            else:
                expect(heading).to_have_text("usable: yes or no?")
                type_keys(page, "n", "y")
            page.get_by_role("button", name="Next item").click()
        expect(heading).to_have_text("Hello, kim")
        expect(page.locator(f"button[data-set={AB}]")).to_have_count(0)
        assert saved(workdir, AB) == {
            ("kim", "c", "structure"): (kinds["c"][1], kinds["c"][0]),
            ("kim", "c", "overall"): (None, None),
            ("kim", "d", "usable"): True,
        }
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("Your link or token")).to_be_visible()
        page.get_by_label("Your link or token").fill(f"{server.address}/#token=wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("this link is not valid")
        page.get_by_label("Your link or token").fill(link)
        page.keyboard.press("Enter")
        expect(heading).to_have_text("Hello, kim")
        # what the browser itself logs about the two refusals that were provoked
        assert all("401" in one for one in complaints) and len(complaints) <= 3, complaints


def test_a_reload_and_a_second_tab_show_the_same_item(playwright, workdir):
    with served(workdir) as server, browser_of(playwright) as context:
        link = link_of(server.address, workdir, "kim")
        page, complaints = opened(context, link)
        order = shown(page)
        type_keys(page, "1", "Shift+Digit2", "Enter", "3")
        expect_saved(page)
        page.reload()
        expect(page.locator("h1")).to_contain_text("consistency")
        assert shown(page) == order
        expect(page.get_by_label("candidate 3 is best")).to_have_attribute("aria-pressed", "true")
        tab, more = opened(context, link)
        assert shown(tab) == order
        expect(tab.get_by_label("structure: best 1, worst 2")).to_be_visible()
        type_keys(tab, "Shift+Digit1")  # of what the first tab has begun
        expect_saved(tab)
        page.bring_to_front()
        page.evaluate("window.dispatchEvent(new Event('focus'))")
        expect(page.get_by_label("consistency: best 3, worst 1")).to_be_visible()
        assert saved(workdir) == {
            ("kim", "a", "structure"): (order[0], order[1]),
            ("kim", "a", "consistency"): (order[2], order[0]),
        }
        assert complaints == more == []


def test_a_killed_server_loses_and_doubles_nothing(playwright, workdir):
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with contextlib.ExitStack() as stack, browser_of(playwright) as context:
        server = stack.enter_context(process(workdir, port))
        page, complaints = opened(context, link_of(address, workdir, "kim"))
        order = shown(page)
        type_keys(page, "1", "Shift+Digit2")
        expect_saved(page)
        server.send_signal(signal.SIGKILL)
        server.wait()
        type_keys(page, "Enter", "2", "Shift+Digit3", "Enter", "0", "Shift+Digit4", "1")
        expect(page.locator(".saved")).to_have_attribute("data-state", "waiting")
        expect(page.locator(".saved")).to_contain_text("your answers are kept in this browser")
        type_keys(page, "Enter", "4", "Shift+Digit1")
        assert saved(workdir) == {("kim", "a", "structure"): (order[0], order[1])}
        stack.enter_context(process(workdir, port))
        expect(page.locator(".saved")).to_have_attribute("data-state", "saved", timeout=30_000)
        type_keys(page, "Enter")
        expect(page.locator("h1")).to_contain_text("removal quality")
        assert saved(workdir) == {
            ("kim", "a", "structure"): (order[0], order[1]),
            ("kim", "a", "consistency"): (order[1], order[2]),
            ("kim", "a", "text_alignment"): (order[0], order[3]),
            ("kim", "a", "aesthetics"): (order[3], order[0]),
        }
        assert all("ERR_CONNECTION_REFUSED" in one for one in complaints), complaints


def test_a_killed_browser_sends_later_what_the_server_did_not_get(playwright, workdir, tmp_path):
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    profile = tmp_path / "profile"
    link = link_of(address, workdir, "kim")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(process(workdir, port))
        with killable(playwright, profile) as (browser, context):
            page, _ = opened(context, link)
            order = shown(page)
            type_keys(page, "1", "Shift+Digit2", "Enter")
            expect_saved(page)
            server.send_signal(signal.SIGKILL)
            server.wait()
            type_keys(page, "2", "Shift+Digit3")
            expect(page.locator(".saved")).to_have_attribute("data-state", "waiting")
            browser.kill()
            browser.wait()
        assert set(saved(workdir)) == {("kim", "a", "structure")}
        stack.enter_context(process(workdir, port))
        with browser_of(playwright, profile) as context:
            page = context.new_page()
            page.goto(link)
            expect(page.locator("h1")).to_have_text("Hello, kim")
            expect_saved(page)
            page.locator(f"button[data-set={SET}]").click()
            expect(page.get_by_label("consistency: best 2, worst 3")).to_be_visible()
        assert saved(workdir) == {
            ("kim", "a", "structure"): (order[0], order[1]),
            ("kim", "a", "consistency"): (order[1], order[2]),
        }


def test_a_lost_lease_and_a_lost_session_are_told(playwright, workdir):
    with served(workdir) as server, browser_of(playwright) as context:
        link = link_of(server.address, workdir, "kim")
        page, _ = opened(context, link)
        url = database_url("", workdir)
        with contextlib.closing(AnswerDatabase(url)) as database, database.writing() as connection:
            connection.execute(sa.update(LEASES).values(expires_at=0.0))
        lea = Browser(server.address, token_of(workdir, "lea"))
        lea.answer(lea.next())
        type_keys(page, "1", "Shift+Digit2")
        expect(page.locator(".missing-choice")).to_contain_text("others have it now")
        expect(page.locator("[aria-pressed=true].choice")).to_have_count(0)
        page.get_by_label("to the start page").click()
        page.locator(f"button[data-set={SET}]").click()
        expect(page.locator("h1")).to_contain_text("removal quality")

        order = shown(page)
        context.clear_cookies()
        type_keys(page, "1", "Shift+Digit2")
        expect(page.locator(".saved")).to_have_attribute("data-state", "signed-out")
        assert not any(name == "kim" for name, *_ in saved(workdir))
        context.new_page().goto(link)
        expect(page.locator(".saved")).to_have_attribute("data-state", "saved", timeout=20_000)
        mine = {key: said for key, said in saved(workdir).items() if key[0] == "kim"}
        assert mine == {("kim", "b", "removal_quality"): (order[0], order[1])}


def test_the_admin_page_shows_what_was_answered(playwright, workdir):
    with served(workdir, overlap=2) as server, browser_of(playwright) as context:
        for name in ("kim", "lea"):
            context.clear_cookies()
            page, _ = opened(context, link_of(server.address, workdir, name, admin=name == "lea"))
            order = shown(page)
            type_keys(page, str(1 + order.index(2)), f"Shift+Digit{1 + order.index(0)}", "Enter")
            type_keys(page, *(["0"] if name == "kim" else ["1", "Shift+Digit2"]))
            expect_saved(page)
            if name == "kim":  # no admin: told so, and nothing is shown
                page.goto(f"{server.address}/admin")
                expect(page.get_by_role("alert")).to_have_text("only admins may see this.")
        admin = context.new_page()
        complaints = watched(admin, allowed=(server.address,))
        admin.goto(f"{server.address}/")
        admin.get_by_role("link", name="Admin page").click()
        rows = admin.locator("tr[data-annotator]")
        expect(rows).to_have_count(2)
        expect(rows.nth(0)).to_contain_text("kim")
        assert rows.nth(0).locator("td").all_inner_texts()[:2] == ["1", "2"]
        structure = admin.locator("tr[data-dimension=structure]").locator("td")
        assert structure.nth(0).inner_text() == "2"
        expect(admin.get_by_role("img", name="answers per hour")).to_be_visible()
        expect(admin.locator(".people figure")).to_have_count(2)
        assert admin.locator(f"div[data-set={SET}] .big").inner_text() == "0 of 2"
        with admin.expect_download() as download:
            admin.locator(f"div[data-set={SET}] a").click()
        lines = pathlib.Path(download.value.path()).read_text().splitlines()
        assert download.value.suggested_filename == f"answers-{SET}.jsonl" and len(lines) == 4
        assert complaints == []


def test_a_tablet_in_the_dark_has_large_targets_and_no_sideways_scroll(playwright, workdir):
    tablet = {"viewport": {"width": 820, "height": 1180}, "color_scheme": "dark"}
    with (
        served(workdir) as server,
        browser_of(playwright, has_touch=True, **tablet) as context,
    ):
        page, complaints = opened(context, link_of(server.address, workdir, "kim"))
        page.get_by_label("candidate 2 is best").tap()
        page.get_by_label("candidate 1 is worst").tap()
        page.get_by_role("button", name="Next", exact=True).tap()
        expect(page.get_by_label("structure: best 2, worst 1")).to_be_visible()
        small = page.locator("button:visible").evaluate_all(
            """(all) => all.map((one) => [one.textContent, one.getBoundingClientRect().height])
                 .filter(([, height]) => height < 40)"""
        )
        assert small == []
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 820
        box = page.locator(".candidate .frame").last.bounding_box()
        assert box["y"] + box["height"] < 1180 and box["width"] > 250
        touches = context.new_cdp_session(page)
        for kind, apart in (("Start", 20), ("Move", 40), ("Move", 60), ("End", None)):
            points = [
                {"x": box["x"] + 100 + side * apart, "y": box["y"] + 100, "id": number}
                for number, side in enumerate((-1, 1))
                if apart
            ]
            touches.send(
                "Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points}
            )
        widths = page.locator(".stage").evaluate_all(
            "(all) => all.map((one) => one.getBoundingClientRect().width)"
        )
        assert widths == pytest.approx([3 * box["width"]] * 5, rel=0.02)
        assert page.evaluate("visualViewport.scale") == 1
        dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert max(map(int, dark.removeprefix("rgb(").rstrip(")").split(","))) < 60
        expect_saved(page)
        assert complaints == []
