"""Screenshots of the page of `onereward serve`, made by drawing and asking as a person would.

    python benchmarks/serve_pictures.py --out=docs/images          # starts the packaged models
    python benchmarks/serve_pictures.py --out=/tmp/shots --address=http://127.0.0.1:8080 --all

Needs Chromium, playwright and scikit-image. A photograph with an empty sign (the coffee of
scikit-image, CC0) gets the word CAFE, twice, and the judge compares the two. --all also takes dark,
tablet and phone.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import pathlib
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from PIL import Image, ImageDraw
from playwright.sync_api import Page, expect, sync_playwright
from skimage import data

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIGN, WORD = (3, 11, 60, 44), (6, 14, 57, 41)
VIEWS = {
    "serve": {"viewport": {"width": 1280, "height": 800}},
    "serve-dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "serve-tablet": {"viewport": {"width": 820, "height": 1180}},
    "serve-phone": {
        "viewport": {"width": 390, "height": 844},
        "has_touch": True,
        "is_mobile": True,
    },
}
PORT = 8471
PATIENCE = 600_000.0
"""Milliseconds for the first edit, which compiles."""


def photograph() -> bytes:
    """A cup of coffee behind an empty sign, 64x64 pixels."""
    made = Image.fromarray(data.coffee()[:400, 100:500]).resize((64, 64))
    ImageDraw.Draw(made).rectangle(SIGN, "white", "black")
    file = io.BytesIO()
    made.save(file, "PNG")
    return file.getvalue()


@contextlib.contextmanager
def server(address: str) -> Iterator[str]:
    """The address of a server with the packaged models, or the given one."""
    if address:
        yield address
        return
    started = subprocess.Popen(
        [sys.executable, "-m", "onereward_jax.serve_editor", f"--port={PORT}"]
    )
    try:
        while True:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/ready", timeout=10).close()
                break
            if started.poll() is not None:
                raise SystemExit("the server has not started")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{PORT}"
    finally:
        started.terminate()
        started.wait()


def draw_box(page: Page, box: tuple[int, int, int, int]) -> None:
    """Draws a box of the mask with the mouse, in pixels of the picture."""
    page.get_by_role("button", name="Box").click()
    canvas = page.locator("canvas.drawing")
    canvas.scroll_into_view_if_needed()
    place = canvas.bounding_box()
    at = lambda x, y: (place["x"] + x / 64 * place["width"], place["y"] + y / 64 * place["height"])
    page.mouse.move(*at(*box[:2]))
    page.mouse.down()
    page.mouse.move(*at(box[2] - 10, box[3] - 10))
    page.mouse.move(*at(*box[2:]))
    page.mouse.up()


def edit_twice(page: Page) -> None:
    """Two edits with two seeds, and the judge's comparison."""
    page.locator("input[data-opens=picture]").set_input_files(
        {"name": "sign.png", "mimeType": "image/png", "buffer": photograph()}
    )
    draw_box(page, WORD)
    page.get_by_label("Prompt", exact=True).fill('the word "CAFE"')
    for seed in (0, 1):
        page.get_by_label("Seed").fill(str(seed))
        page.get_by_role("button", name="Edit", exact=True).click()
        expect(page.locator(".card")).to_have_count(seed + 1, timeout=PATIENCE)
    for letter in "AB":
        page.get_by_role("button", name=f"compare result {letter}").click()
    page.get_by_role("button", name="Which is better?").click()
    expect(page.locator(".answer")).to_have_count(4, timeout=PATIENCE)


def main() -> None:
    """Takes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--address", default="")
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    with server(options.address) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"]
        )
        for name, view in VIEWS.items() if options.all else [("serve", VIEWS["serve"])]:
            page = browser.new_context(**view).new_page()
            page.on("console", lambda message: print(message.type, message.text))
            page.on("pageerror", lambda error: print("error:", error))
            page.goto(address)
            edit_twice(page)
            page.screenshot(path=options.out / f"{name}.png", full_page=name != "serve")
        browser.close()


if __name__ == "__main__":
    main()
