"""Rehearsal of a real run: photographs, people's answers, killed processes, through to the export.

    python -m onereward_jax.rehearsal --workdir=runs/rehearsal [--pictures=folder]
    python -m onereward_jax.rehearsal --workdir=runs/rehearsal --run=gs://bucket/rehearsal

`launch/rehearse.sh` runs it in an environment without extras; `tests/test_real_run.py` uses the
same parts. Everything goes through the command line of `onereward_jax.main`, with multiple
processes on this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
from etils import epath
from PIL import Image, ImageDraw, ImageFilter

from onereward_jax.chain.stage_record import COMPLETE, FILE, StageRecord, read_record
from onereward_jax.common.user_errors import WAITING, exit_with
from onereward_jax.pictures import read_picture
from onereward_jax.storage import is_bucket, local_path
from onereward_jax.storage.cache_folder import VARIABLE
from onereward_jax.tasks import FIXED_PROMPTS, Task

Place = pathlib.Path | epath.Path
"""A local path or a path in a bucket."""

ROOT = pathlib.Path(__file__).parents[1]
MAIN = ("-m", "onereward_jax.main")
PROMPTS = ("a red apple", "a green tree", "a blue car", "a small cat", "a house", "a white cloud")
PICTURES, LONGEST_SIDE = 6, 160
FOR_TESTING = 2
"""Number of test images, the first ones."""
DISAGREES, SEES_NO_DIFFERENCE = 0.2, 0.1
"""Fractions of questions for which an annotator reverses the order, or sees no difference."""
MARKER = "rehearsal.txt"
"""File that marks a work folder as one that a rehearsal may delete."""
PATIENCE = 3600.0
"""Timeout in seconds of every wait."""


def empty_workdir(workdir: pathlib.Path) -> None:
    """Creates the work folder, or empties that of an earlier rehearsal; deletes nothing else.

    Raises:
      ValueError: the folder is not of a rehearsal and not empty.
    """
    marker = workdir / MARKER
    if marker.is_file():
        shutil.rmtree(workdir)
    elif workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise ValueError(f"--workdir: {workdir} is not of a rehearsal: use another folder")
    workdir.mkdir(parents=True, exist_ok=True)
    marker.write_text("Made by launch/rehearse.sh, which deletes this folder when it runs again.\n")


def draw_pictures(folder: pathlib.Path) -> list[pathlib.Path]:
    """Makes images if none are given: soft colours, noise and ellipses, in three sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(PICTURES):
        rng = np.random.default_rng(number)
        width, height = [(160, 107), (128, 128), (107, 160)][number % 3]
        coarse = Image.fromarray(rng.integers(0, 256, (4, 6, 3), np.uint8))
        picture = coarse.resize((width, height), Image.BICUBIC)
        draw = ImageDraw.Draw(picture)
        for _ in range(4):
            x, y = rng.integers(0, width), rng.integers(0, height)
            colour = tuple(rng.integers(0, 256, 3).tolist())
            draw.ellipse((x - 20, y - 15, x + 20, y + 15), fill=colour)
        noisy = np.asarray(picture.filter(ImageFilter.GaussianBlur(1))) + rng.normal(
            0, 6, (height, width, 3)
        )
        paths.append(folder / f"{number}.png")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(paths[-1])
    return paths


def write_folder(pictures: Sequence[pathlib.Path], folder: pathlib.Path) -> None:
    """Writes a data folder: one row per image and task, with a mask and without a target."""
    folder.mkdir(parents=True)
    rows = []
    for number, path in enumerate(pictures):
        picture = read_picture(path)
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        picture.save(folder / f"{number}.png")
        width, height = picture.size
        for task in Task:
            mask = np.zeros((height, width), np.uint8)
            if task in (Task.FILL, Task.REMOVAL):
                mask[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = 255
            else:
                mask[:, : width // 3] = 255
            name = f"{number}-{task.value}.png"
            Image.fromarray(mask).save(folder / name)
            prompt = {} if task in FIXED_PROMPTS else {"prompt": PROMPTS[number % len(PROMPTS)]}
            split = "test" if number < FOR_TESTING else "train"
            rows.append(
                {"image": f"{number}.png", "mask": name, "task": task.value, "split": split}
                | prompt
            )
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")


def answer(questions: Place, annotator: str, share: tuple[float, float] = (0.0, 1.0)) -> int:
    """Answers questions like people: appends lines to the file. Returns how many.

    Answers depend only on the triplets' names, so that runs whose images differ by rounding get
    equal answers.

    Args:
      questions: `questions.jsonl` of a work folder.
      annotator: name; annotators sometimes disagree.
      share: range of the questions to answer, as fractions in [0, 1].
    """
    text = questions.read_text()
    asked = [json.loads(line) for line in text.split("\n") if line]
    asked = [one for one in asked if "best" not in one]
    first, last = (round(part * len(asked)) for part in share)
    lines = []
    for one in asked[first:last]:
        name = f"{one['triplet']} {one['dimension']}"
        common = np.random.default_rng(list(name.encode()))
        order = common.permutation(len(one["candidates"])).tolist()
        drawn = np.random.default_rng(list(f"{name} {annotator}".encode())).random()
        if drawn < DISAGREES:
            order.reverse()
        best, worst = order[0], order[-1]
        if drawn > 1.0 - SEES_NO_DIFFERENCE:
            best = worst = None
        kept = {field: one[field] for field in ("triplet", "dimension", "digest")}
        lines.append(kept | {"best": best, "worst": worst, "annotator": annotator})
    questions.write_text(text + "".join(json.dumps(line) + "\n" for line in lines))
    return len(lines)


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of the chain on this machine.

    Attributes:
      workdir: its folder; may be in a bucket, then every process has its own copies, as on separate
        hosts.
      flags: flags of every start, e.g. --config=...
      processes: number of processes.
      devices: virtual CPU devices per process.
      program: arguments of Python.
      before_each: called with the index of each process before it starts.
      here: local folder for the processes' output and copies; None: `workdir`.
    """

    workdir: Place
    flags: tuple[str, ...]
    processes: int = 2
    devices: int = 2
    program: tuple[str, ...] = MAIN
    before_each: Callable[[int], None] = lambda index: None
    here: pathlib.Path | None = None

    @property
    def said(self) -> pathlib.Path:
        """The folder of the processes' output."""
        return (self.here or self.workdir) / "processes"

    @property
    def questions(self) -> Place:
        """The file of the questions to people."""
        return self.workdir / "questions" / "questions.jsonl"

    def start(self, *flags: str) -> list[subprocess.Popen]:
        """Starts all processes; their output goes to `said`."""
        self.said.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, *self.program, f"--workdir={self.workdir}", *self.flags, *flags]
        shape = f"--xla_force_host_platform_device_count={self.devices}"
        variables = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {shape}".strip()}
        if self.processes > 1:
            command.append("--distributed")
            variables |= {
                "JAX_COORDINATOR_ADDRESS": f"localhost:{_free_port()}",
                "JAX_NUM_PROCESSES": str(self.processes),
            }
        started = []
        for index in range(self.processes):
            self.before_each(index)
            own = {"JAX_PROCESS_ID": str(index)} if self.processes > 1 else {}
            if self.here is not None:
                own[VARIABLE] = str(self.here / f"copies-{index}")
            with (self.said / f"{index}.txt").open("a") as file:
                started.append(
                    subprocess.Popen(
                        command,
                        cwd=ROOT,
                        env=os.environ | {"JAX_PLATFORMS": "cpu"} | variables | own,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                    )
                )
        return started

    def finish(self, *flags: str, code: int = 0) -> None:
        """Starts and waits; all processes must end with `code`."""
        with _ended_at_last(self.start(*flags)) as started:
            found = [process.wait(PATIENCE) for process in started]
        if found != [code] * self.processes:
            raise RuntimeError(f"exit codes {found}, expected {code}:\n{self.last_words()}")

    def kill_one(self, stage: str, *flags: str, alone: bool = False) -> None:
        """Starts, and kills the last process (SIGKILL) once `stage` has saved a checkpoint.

        Args:
          stage: one that trains.
          flags: of this start.
          alone: wait until the others have noticed and ended by themselves; otherwise they are
            killed too, as a job manager does.
        """
        with _ended_at_last(self.start(*flags)) as started:
            deadline = time.monotonic() + PATIENCE
            while not self.checkpoints(stage):
                if time.monotonic() > deadline or any(one.poll() is not None for one in started):
                    raise RuntimeError(f"{stage} saved no checkpoint:\n{self.last_words()}")
                time.sleep(0.02)
            started[-1].send_signal(signal.SIGKILL)
            for process in started if alone else ():
                process.wait(PATIENCE)
        record = self.record(stage)
        if record is None or record.status == COMPLETE:
            raise RuntimeError(f"{stage} was to be killed in its midst, and is complete")

    def checkpoints(self, stage: str) -> list[int]:
        """Steps that a stage has saved."""
        folder = self.workdir / stage / "checkpoints"
        found = folder.iterdir() if folder.is_dir() else ()
        return sorted(int(path.name) for path in found if path.name.isdecimal())

    def record(self, stage: str) -> StageRecord | None:
        """What the record of a stage says."""
        return read_record(local_path(str(self.workdir / stage / FILE)).parent)

    def finished(self, stage: str) -> str:
        """When a stage was completed last."""
        record = self.record(stage)
        if record is None or record.status != COMPLETE:
            raise RuntimeError(f"{stage} is not complete:\n{self.last_words()}")
        return record.finished

    def last_words(self) -> str:
        """The end of what each process said."""
        parts = []
        for index in range(self.processes):
            text = (self.said / f"{index}.txt").read_text(errors="replace")
            parts.append(f"--- process {index}\n{text[-4000:]}")
        return "\n".join(parts)


def to_the_export(run: Run, *, alone: bool = False) -> None:
    """From nothing to the exported folders, with people in between and a kill in each training."""
    run.finish(code=WAITING)
    tell(f"waiting for people, as it should: {run.questions}")
    answer(run.questions, "anna")
    answer(run.questions, "ben", (0.0, 0.5))
    for stage in ("reward", "rl"):
        run.kill_one(stage, alone=alone)
        tell(f"{stage}: a process was killed after step {run.checkpoints(stage)[-1]}")
    run.finish()
    tell(f"from photographs to the export: {run.workdir / 'export'}")


def go_further(run: Run, steps: int) -> None:
    """More steps of RL, then more answers; what need not run again must not.

    Args:
      run: one that is complete.
      steps: of the stage `rl`, more than it has done.
    """
    before = {stage: run.finished(stage) for stage in ("candidates", "annotate", "reward", "rl")}
    first = min(run.checkpoints("rl"))
    run.finish(f"--config.rl.steps={steps}")
    if run.finished("reward") != before["reward"] or first not in run.checkpoints("rl"):
        raise RuntimeError(f"more steps of rl made other stages start over:\n{run.last_words()}")
    tell(f"rl went on to step {steps}")
    answer(run.questions, "ben", (0.5, 1.0))
    run.finish(f"--config.rl.steps={steps}")
    if run.finished("candidates") != before["candidates"]:
        raise RuntimeError(f"more answers made candidates start over:\n{run.last_words()}")
    if run.finished("reward") == before["reward"]:
        raise RuntimeError(f"more answers did not train the judge again:\n{run.last_words()}")
    tell("more answers: the judge and the editor were trained again")


def use(run: Run, folder: pathlib.Path) -> pathlib.Path:
    """An edit of a picture of the data folder by the exported editor; returns where it is."""
    out = folder.parent / "edited.png"
    command = [
        *(sys.executable, "-m", "onereward_jax.edit", f"--model={run.workdir}/export/editor"),
        *(f"--image={folder}/0.png", f"--mask={folder}/0-removal.png", "--task=remove"),
        *("--steps=2", f"--out={out}"),
    ]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    return out


def tell(message: str) -> None:
    """One line on the terminal."""
    print(f"rehearsal: {message}", flush=True)


@contextlib.contextmanager
def _ended_at_last(processes: list[subprocess.Popen]):
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def main() -> None:
    """The whole rehearsal, in a new work folder."""
    parser = argparse.ArgumentParser(prog="onereward_jax.rehearsal", description=__doc__)
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="of its own; made anew")
    parser.add_argument("--run", help="gs://bucket/path for the run itself; else in --workdir")
    parser.add_argument("--pictures", type=pathlib.Path, help="folder of *.jpg, *.png; else drawn")
    parser.add_argument("--processes", type=int, default=2, help="on this machine")
    parser.add_argument("--devices", type=int, default=2, help="virtual devices of each")
    parser.add_argument("--mesh", default="2x1x2", help="data x fsdp x tensor (x context)")
    options = parser.parse_args()
    workdir = options.workdir.resolve()
    try:
        empty_workdir(workdir)
    except ValueError as error:
        exit_with(error)
    if options.pictures:
        names = (".jpg", ".jpeg", ".png", ".webp")
        every = sorted(p for p in options.pictures.iterdir() if p.suffix.lower() in names)
        pictures = every[:PICTURES]
        if len(pictures) < PICTURES:
            sys.exit(f"error: {options.pictures} has {len(pictures)} pictures: {PICTURES} needed")
    else:
        pictures = draw_pictures(workdir / "drawn")
    write_folder(pictures, workdir / "photographs")
    sizes = zip(("data", "fsdp", "tensor", "context"), options.mesh.split("x"))
    flags = (
        f"--config={ROOT / 'configs' / 'rehearsal.py'}",
        f"--config.data.path={workdir / 'photographs'}",
        "--host_timeout=60",
        *(f"--config.mesh.{axis}={size}" for axis, size in sizes),
    )
    place, here = workdir / "run", None
    if options.run is not None:
        place, here = epath.Path(options.run), workdir
        if not is_bucket(place) or place.exists():
            sys.exit(f"error: --run: {place} is not a new folder of a bucket")
    run = Run(place, flags, options.processes, options.devices, here=here)
    started = time.monotonic()
    try:
        to_the_export(run, alone=True)
        go_further(run, steps=6)
        tell(f"an edit by the exported editor: {use(run, workdir / 'photographs')}")
    except (RuntimeError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")
    tell(f"all went well, in {(time.monotonic() - started) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
