"""The rehearsal of a real run in a bucket: two hosts, killed while they save, until the export."""

import json
import pathlib

import pytest
from etils import epath
from gcs_server import gcs_server

from onereward_jax.rehearsal import Run, draw_pictures, to_the_export, write_folder
from onereward_jax.stages.preference_stores import LINES
from onereward_jax.storage import BucketFolder, local_path


@pytest.mark.slow
def test_two_hosts_that_are_killed_while_they_save_end_with_the_export(tmp_path, monkeypatch):
    with gcs_server("team") as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("ONEREWARD_COPIES", str(tmp_path / "copies"))
        write_folder(draw_pictures(tmp_path / "drawn"), tmp_path / "photographs")
        photographs = BucketFolder("gs://team/photographs")
        files = {path.name: path for path in (tmp_path / "photographs").iterdir()}
        photographs.upload(files)
        flags = (
            f"--config={pathlib.Path('configs/rehearsal.py').absolute()}",
            f"--config.data.path={photographs}",
            "--host_timeout=120",
        )
        run = Run(epath.Path("gs://team/run"), flags, 2, 2, here=tmp_path)
        to_the_export(run)
        names = BucketFolder("gs://team/run").list()
        stages = ("data", "embed", "candidates", "annotate", "reward", "rl", "evaluate", "export")
        assert all(run.finished(stage) for stage in stages)
        assert not [name for name in names if ".sqlite" in name or "lock.json" in name]
        assert {f"candidates/{LINES}", f"annotate/{LINES}", "rl/metrics.jsonl"} <= names.keys()
        pictures = [name for name in names if name.startswith("candidates/pictures/")]
        told = local_path(f"gs://team/run/candidates/{LINES}").read_text().split("\n")
        recorded = [json.loads(line)["picture"] for line in told if line]
        assert len(pictures) == 72
        assert sorted(f"candidates/{picture}" for picture in recorded) == sorted(pictures)
        for stage in ("reward", "rl"):
            folder = f"{stage}/checkpoints"
            steps = {name.split("/")[2] for name in names if name.startswith(f"{folder}/")}
            complete = {f"{folder}/{step}/commit_success.txt" for step in steps}
            assert complete and complete <= names.keys()
        from diffusers import FluxFillPipeline

        FluxFillPipeline.from_pretrained(local_path("gs://team/run/export/editor"))
