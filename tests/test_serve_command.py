"""The command `onereward serve`: what it refuses, and how it ends."""

import re
import socket
import subprocess
import sys
import time

import httpx
import pytest
from browser import browser_of, free_port, require_browser
from playwright.sync_api import expect, sync_playwright
from processes import with_devices
from served_editor import Served, content, mask, picture, sent, served

from onereward_jax import serve_editor
from onereward_jax.common.user_errors import run_command


def test_a_command_that_cannot_serve_says_why_before_it_loads_a_model(tmp_path, capsys) -> None:
    (tmp_path / "token").write_text("short")
    taken = socket.create_server(("127.0.0.1", 0))
    for flags, sentence in (
        (["--model=nothing/there"], "model"),
        (["--judge=nothing/there"], "judge"),
        (["--batch_size=0"], "--batch_size is 0, at least 1 expected"),
        (["--max_queue=0"], "--max_queue is 0, at least 1 expected"),
        (["--steps=300"], "--steps is 300, at most --max_steps, 200"),
        (["--feather=-1"], "--feather is -1, at least 0 expected"),
        (["--resolution=100"], "resolution is 100, a multiple of 16 expected"),
        ([f"--token_file={tmp_path / 'token'}"], f"--token_file: {tmp_path / 'token'} must hold"),
        ([f"--port={taken.getsockname()[1]}"], "--host, --port: cannot listen on 127.0.0.1"),
    ):
        with pytest.raises(SystemExit) as end:
            run_command(serve_editor.parser(), serve_editor.run, flags)
        told = capsys.readouterr().err
        assert end.value.code == 2 and told.startswith("error: ") and sentence in told, told
        assert told.count("\n") == 1
    taken.close()


def test_the_link_or_its_token_opens_the_page_while_models_are_loaded() -> None:
    require_browser()
    token = "a-token-of-some-length"
    with served(None, None, token) as server, sync_playwright() as playwright:
        address = str(server.http.base_url)
        with browser_of(playwright) as context:
            page = context.new_page()
            page.goto(address)
            for given, sentence in (("wrong", "this link is not valid"), (token, "")):
                expect(page.get_by_label("token")).to_be_visible()
                page.get_by_label("token").fill(given)
                page.get_by_role("button", name="Enter").click()
                if sentence:
                    expect(page.get_by_role("alert")).to_contain_text(sentence)
            expect(page.locator(".settings")).to_be_visible()
        with browser_of(playwright) as context:
            page = context.new_page()
            page.goto(f"{address}/#token={token}")
            expect(page.locator(".settings")).to_be_visible()
            assert "token" not in page.url
            page.locator("input[data-opens=first]").set_input_files(
                {"name": "a.png", "mimeType": "image/png", "buffer": content(picture(0))}
            )
            page.get_by_role("button", name="Extend").click()
            page.get_by_role("button", name="Edit", exact=True).click()
            expect(page.locator(".status").first).to_contain_text("the models are being loaded")
            page.get_by_role("button", name="Cancel").click()
            expect(page.locator(".status").first).to_have_text("cancelled")


@pytest.mark.slow
def test_the_command_finishes_what_runs_when_it_is_terminated(tmp_path) -> None:
    port, token = free_port(), tmp_path / "token"
    command = ["-m", "onereward_jax.serve_editor", f"--port={port}", f"--token_file={token}"]
    started = subprocess.Popen(
        [sys.executable, *command], env=with_devices(1), stdout=subprocess.PIPE, text=True
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        for line in started.stdout:
            if link := re.search(r"#token=(\S+)", line):
                break
        http.headers["Authorization"] = f"Bearer {link[1]}"
        assert link[1] == token.read_text().strip()
        server = Served(http, None)
        while http.get("/ready").status_code != 200:
            time.sleep(0.05)
        good = {"image": sent(picture(0)), "mask": sent(mask()), "task": "remove"}
        place = server.post(**good, steps=200).headers["location"]
        while http.get(place).json()["step"] == 0:
            time.sleep(0.02)
        started.terminate()
        assert server.result(place).shape == (64, 64, 3)
    said = started.stdout.read()
    assert started.wait() == 0
    assert said.endswith("stopping: what runs is finished\nstopped, as asked\n")
