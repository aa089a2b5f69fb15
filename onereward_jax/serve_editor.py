"""Serve the editor and the judge over HTTP, with a page to draw a mask and see the result.

    onereward serve
    onereward serve --model=/models/FLUX.1-Fill-dev --judge=/models/Qwen2.5-VL-7B-Instruct
    onereward serve --model=runs/mine/export --lora=style.safetensors:0.8 --token_file=token

Without --model, the packaged mini editor and judge are served. All devices of this machine share
the weights. The page is at http://127.0.0.1:8080, the description of the API at /docs. Settings of
sampling, windows and seams are those of `onereward-edit`; requests may override them.
"""

from __future__ import annotations

import argparse
import pathlib
import signal
import threading
from typing import Any

from onereward_jax.common.user_errors import CommandParser, run_command
from onereward_jax.common.user_path import user_path
from onereward_jax.convert import resolve_folder
from onereward_jax.edit import editor_options, load, sampling_options, window_options
from onereward_jax.edit_server import Limits, ServeSettings
from onereward_jax.inference import Judge
from onereward_jax.inference.edit_defaults import read_edit_defaults
from onereward_jax.parallel import make_mesh
from onereward_jax.parallel.batch import BATCH_AXES
from onereward_jax.parallel.compilation_cache import use_compilation_cache
from onereward_jax.parallel.cpu_threads import set_cpu_threads

MINI_EDITOR, MINI_JUDGE = "mini/models/editor", "mini/models/judge"

NO_JUDGE = "none"

LOOK_SECONDS = 0.2

CONNECTIONS = 256
"""Open connections at most, idle ones too; each may send a body."""


def parser() -> CommandParser:
    """The options of this command."""
    options = CommandParser(prog="onereward serve", description=__doc__)
    editor_options(options, default=MINI_EDITOR)
    add = options.add_argument_group("the judge").add_argument
    add("--judge", help="folder of the judge (transformers layout), or none; default: the packaged "
        "one for the packaged editor, otherwise none")  # fmt: skip

    add = options.add_argument_group("the server").add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    add("--port", type=int, default=8080, help="port to listen on (default %(default)s)")
    add("--url", default="", help="address that people use if it is another: https://...")
    add("--token_file", type=user_path, help="only who has the token in this file may ask; without "
        "the file, one is made and its link printed")  # fmt: skip
    add("--batch_size", type=int, help="pictures of one size that are edited together; smaller "
        "batches are filled up: a size is compiled once (default: one per device)")  # fmt: skip
    limits = Limits()
    for name, what in (
        ("upload_mib", "MiB of a request, whose pictures are in base64"),
        ("megapixels", "megapixels of a picture"),
        ("steps", "steps of an edit, over all areas of its mask"),
        ("queue", "requests that wait; others get 503"),
        ("kept", "edits that are remembered"),
        ("kept_mib", "MiB of their pictures"),
    ):
        usual = getattr(limits, name)
        add(f"--max_{name}", type=int, default=usual, help=f"{what} (default {usual})")
    sampling_options(options)
    window_options(options)
    return options


def run(options: argparse.Namespace) -> None:
    """Serves until Ctrl-C or SIGTERM; what runs then is finished.

    Raises:
      FileNotFoundError, ValueError: a model cannot be loaded, an option is out of range, or the
        port cannot be used.
    """
    from onereward_jax.annotation.server import login_link, traffic_warning, usual_address
    from onereward_jax.annotation.server.http_server import listening
    from onereward_jax.edit_server.access_token import read_token
    from onereward_jax.edit_server.edit_app import build_app
    from onereward_jax.edit_server.engine import Engine
    from onereward_jax.edit_server.job_queue import JobQueue

    folder = resolve_folder(options.model, "model")
    judge = judge_of(options)
    token = read_token(options.token_file) if options.token_file else ""
    settings = ServeSettings(
        options.host, options.port, options.url, token, _limits(options), _batch_size(options)
    )
    limits = settings.limits
    queue = JobQueue(limits.queue, settings.batch_size, limits.kept, limits.kept_mib << 20)
    engine = Engine(queue, settings.batch_size)
    names = shown_name(options.model), shown_name(judge)
    app = build_app(engine, settings, options, read_edit_defaults(folder), names)
    stop = threading.Event()

    def asked_to_stop(*_: Any) -> None:
        # A model that is being loaded, or a second signal: nothing is to be finished.
        if stop.is_set() or engine.editor is None:
            raise KeyboardInterrupt
        stop.set()
        print("stopping: what runs is finished", flush=True)

    with listening(
        app, settings, name="server of the editor", options="--host, --port",
        most_connections=CONNECTIONS,
    ) as port:  # fmt: skip
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, asked_to_stop)
        address = usual_address(settings, port)
        if warning := traffic_warning(settings, "--url"):
            print(warning, flush=True)
        print(f"loading {options.model}", flush=True)
        engine.ready(load(options, folder), Judge.from_pretrained(judge) if judge else None)
        link = login_link(address, token) if token else address
        print(f"serving {options.model} at {link}", flush=True)
        print(f"the API is at {address}/docs; Ctrl-C ends this", flush=True)
        # Not here: no handler of a signal runs while this thread compiles or computes.
        work = threading.Thread(target=engine.run, args=(stop,), name="engine", daemon=True)
        work.start()
        while work.is_alive():
            work.join(LOOK_SECONDS)
        if not stop.is_set():
            raise RuntimeError("the engine has ended; its output says why")
    print("stopped, as asked", flush=True)


def judge_of(options: argparse.Namespace) -> str:
    """The judge's folder, "" for none. Raises FileNotFoundError, ValueError for a wrong one."""
    if options.judge is None:
        return MINI_JUDGE if options.model == MINI_EDITOR else ""
    if options.judge == NO_JUDGE:
        return ""
    resolve_folder(options.judge, "judge")
    return options.judge


def shown_name(model: str) -> str:
    """What clients are told of a model: no path of this machine."""
    packaged = {MINI_EDITOR: "the packaged mini editor", MINI_JUDGE: "the packaged mini judge"}
    return packaged.get(model, pathlib.Path(model).name)


def _limits(options: argparse.Namespace) -> Limits:
    names = ("upload_mib", "megapixels", "steps", "queue", "kept", "kept_mib")
    return Limits(**{name: getattr(options, f"max_{name}") for name in names})


def _batch_size(options: argparse.Namespace) -> int:
    """Pictures of a batch, a multiple of the devices that share it."""
    shape = make_mesh().shape
    devices = 1
    for axis in BATCH_AXES:
        devices *= shape[axis]
    if options.batch_size is None:
        return devices
    if options.batch_size < 1:
        raise ValueError(f"--batch_size is {options.batch_size}, at least 1 expected")
    return -(-options.batch_size // devices) * devices


def main(argv: list[str] | None = None) -> None:
    """The command, on `argv` or the command line."""
    use_compilation_cache()
    set_cpu_threads()
    run_command(parser(), run, argv)


if __name__ == "__main__":
    main()
