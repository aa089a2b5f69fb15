"""Models from the Hugging Face hub: the real client against a hub of two repositories."""

import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading
import urllib.parse

import pytest

import onereward_jax

ROOT = pathlib.Path(onereward_jax.__file__).parents[1]
OLD, NEW = "0123abcd" * 5, "fedc4321" * 5
REVISIONS = {"main": NEW, "v1": OLD, OLD: OLD, NEW: NEW}
FILES = {
    "config.json": {OLD: b'{"version": "old"}', NEW: b'{"version": "new"}'},
    "vae/model.safetensors": dict.fromkeys((OLD, NEW), b"w" * 100_000),
    "weights.bin": dict.fromkeys((OLD, NEW), b"a pickle"),
    "loras/style one.safetensors": dict.fromkeys((OLD, NEW), b"one"),
    "loras/style two.safetensors": dict.fromkeys((OLD, NEW), b"two"),
    "loras/mine/step_2000.safetensors": {OLD: b"old", NEW: b"new"},
}


class Hub(http.server.BaseHTTPRequestHandler):
    """What the client asks of huggingface.co; `owner/gated` wants a token."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = urllib.parse.unquote(self.path.partition("?")[0])
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            parts += ["revision", "main"][len(parts) - 4 :]
            repository, kind, revision = "/".join(parts[2:4]), parts[4], parts[5]
        else:
            repository, kind, revision = "/".join(parts[:2]), parts[2], parts[3]
        if repository not in ("owner/model", "owner/gated"):
            return self.refuse(404, "RepoNotFound")
        if revision not in REVISIONS:
            return self.refuse(404, "RevisionNotFound")
        commit = REVISIONS[revision]
        if kind == "revision":
            return self.send(json.dumps({"id": repository, "sha": commit}).encode(), body)
        if kind == "tree":
            entries = [
                {"type": "file", "path": name, "size": len(of[commit]), "oid": digest(of[commit])}
                for name, of in FILES.items()
            ]
            return self.send(json.dumps(entries).encode(), body)
        if repository == "owner/gated" and "Authorization" not in self.headers:
            return self.refuse(401, "GatedRepo")
        content = FILES["/".join(parts[4:])][commit]
        if body:
            self.server.sent.append("/".join(parts[4:]))
        self.send(content, body, {"ETag": f'"{digest(content)}"', "X-Repo-Commit": commit})

    def send(self, content, body, headers=()):
        self.send_response(200)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def refuse(self, code, error):
        self.send_response(code)
        self.send_header("X-Error-Code", error)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def digest(content):
    return hashlib.sha1(content).hexdigest()


@pytest.fixture
def hub():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.sent = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


PROGRAM = """
import sys
from onereward_jax.convert import hub_commit, resolve_folder
for name in sys.argv[1:]:
    try:
        folder = resolve_folder(name, "config.models.editor")
        print(hub_commit(folder), folder, (folder / "config.json").read_text())
    except FileNotFoundError as error:
        print(error)
"""


def start(hub, home, *names, program=PROGRAM, **variables):
    environment = {
        "PATH": os.environ["PATH"],
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "HF_HOME": str(home),
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
    }
    command = [sys.executable, "-c", program, *names]
    return subprocess.Popen(command, env=environment | variables, stdout=subprocess.PIPE, text=True)


def said(process):
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return printed.splitlines()


def test_processes_of_a_host_download_once_and_a_revision_can_be_named(hub, tmp_path):
    together = [start(hub, tmp_path, "owner/model", "owner/model@v1") for _ in range(2)]
    for process in together:
        newest, tagged = said(process)
        assert newest.startswith(f"{NEW} ") and newest.endswith('{"version": "new"}')
        assert tagged.startswith(f"{OLD} ") and tagged.endswith('{"version": "old"}')
    assert sorted(hub.sent) == ["config.json", "config.json", "vae/model.safetensors"]


def test_what_the_hub_refuses_is_a_sentence_that_says_what_to_do(hub, tmp_path):
    names = "owner/gated", "owner/none", "owner/model@v2", f"owner/model@{OLD[:-1]}/vae"
    gated, none, revision, commit = said(start(hub, tmp_path, *names))
    start_of = "config.models.editor: there is no folder {}, and "
    assert gated == start_of.format("owner/gated") + (
        "owner/gated on the Hugging Face hub is gated: accept its terms at "
        "https://huggingface.co/owner/gated, then set HF_TOKEN to your token on every host (or run "
        "`hf auth login` there)"
    )
    assert "has no repository owner/none that you may read" in none
    assert "owner/model on the Hugging Face hub has no revision v2" in revision
    assert f"has no revision {OLD[:-1]}" in commit
    (allowed,) = said(start(hub, tmp_path, "owner/gated", HF_TOKEN="hf_mine"))
    assert allowed.startswith(NEW)


ADAPTERS = PROGRAM.replace("hub_commit, resolve_folder", "resolve_adapter").replace(
    """        folder = resolve_folder(name, "config.models.editor")
        print(hub_commit(folder), folder, (folder / "config.json").read_text())
    except FileNotFoundError as error:""",
    """        path = resolve_adapter(name, "lora")
        print(path.name, path.read_text())
    except (FileNotFoundError, ValueError) as error:""",
)


def test_one_file_of_a_repository_is_enough(hub, tmp_path):
    page = "https://huggingface.co/owner/model/blob/v1/loras/mine/step_2000.safetensors"
    names = (
        "owner/model/loras/style two.safetensors",
        "owner/model/loras/mine",
        "owner/model@v1/loras/mine/step_2000.safetensors",
        page,
        "owner/model/loras",
        "owner/model/loras/none.safetensors",
        "none.safetensors",
    )
    process = start(hub, tmp_path, *names, program=ADAPTERS)
    printed = said(process)
    assert printed[:4] == ["style two.safetensors two"] + [
        f"step_2000.safetensors {content}" for content in ("new", "old", "old")
    ]
    several = ["lora: the hub's owner/model/loras has several files, name one of them:"]
    assert printed[4:7] == several + [f"  style {number}.safetensors" for number in ("one", "two")]
    assert printed[7] == "lora: the hub's owner/model has no file loras/none.safetensors"
    assert printed[8] == "lora: there is no file or folder none.safetensors"
    assert sorted(hub.sent) == [
        "loras/mine/step_2000.safetensors",
        "loras/mine/step_2000.safetensors",
        "loras/style two.safetensors",
    ]
    offline = start(
        hub, tmp_path, "owner/model@v1/loras/mine", program=ADAPTERS, HF_HUB_OFFLINE="1"
    )
    assert said(offline) == ["step_2000.safetensors old"]
