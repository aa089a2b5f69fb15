"""Headless Chromium for tests that click and type; what the page complains about fails the test."""

import contextlib
import os
import shutil
import socket
import subprocess

import pytest
from playwright.sync_api import expect

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

expect.set_options(timeout=20_000)  # on a busy machine


def require_browser():
    """The path of a browser. Without one the test is skipped, but never in CI."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        reason = f"no browser: none of {', '.join(BROWSERS)} is installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@contextlib.contextmanager
def browser_of(playwright, profile=None, **settings):
    """A context of a browser; with `profile`, a folder, one that a later start finds again."""
    launch = {"executable_path": require_browser(), "args": list(FLAGS)}
    settings = {"viewport": {"width": 1280, "height": 800}} | settings
    if profile is not None:
        context = playwright.chromium.launch_persistent_context(profile, **launch, **settings)
        try:
            yield context
        finally:
            context.close()
        return
    browser = playwright.chromium.launch(**launch)
    try:
        yield browser.new_context(**settings)
    finally:
        browser.close()


@contextlib.contextmanager
def killable(playwright, profile):
    """A browser as a process of its own, and its context."""
    port = free_port()
    started = subprocess.Popen(
        [require_browser(), *FLAGS, f"--user-data-dir={profile}",
         f"--remote-debugging-port={port}", "--window-size=1280,800", "about:blank"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        while "DevTools listening" not in started.stderr.readline():
            assert started.poll() is None
        yield started, playwright.chromium.connect_over_cdp(f"http://127.0.0.1:{port}").contexts[0]
    finally:
        started.kill()
        started.wait()
        started.stderr.close()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def watched(page, allowed=()):
    """Collects errors of the page, violations of its policy, and requests that start elsewhere.

    Args:
      page: the page, before it goes anywhere.
      allowed: starts of addresses that it may ask for.
    """
    found = []

    def at_console(message):
        if message.type in ("error", "warning"):
            found.append(message.text)

    def at_request(request):
        if not request.url.startswith((*allowed, "data:", "blob:")):
            found.append(f"asked for {request.url}")

    page.on("console", at_console)
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("request", at_request)
    return found
