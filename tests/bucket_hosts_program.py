"""One of several processes of a run in a bucket: `python tests/bucket_hosts_program.py <workdir>`.

Two small stages. `made`: every process writes a file of its own, all then read all of them, process
0 keeps a store of them. `read`: every process reads what `made` has left.
"""

import json
import os
import sys

import jax
from ml_collections import ConfigDict

from onereward_jax.annotation import Candidate
from onereward_jax.chain import Stage, StageContext, run_chain
from onereward_jax.chain.staleness import Effect
from onereward_jax.parallel import distributed, make_mesh
from onereward_jax.parallel.distributed import gather_on_writer
from onereward_jax.stages.preference_stores import open_store, read_store, save_lines


def made(context: StageContext) -> dict[str, int]:
    index = jax.process_index()
    path = context.folder / "pictures" / f"{index}.png"
    path.parent.mkdir(exist_ok=True)
    path.write_text(str(index))
    told = gather_on_writer(json.dumps(index))
    context.share("pictures")
    found = {path.name: path.read_text() for path in (context.folder / "pictures").iterdir()}
    assert found == {f"{one}.png": str(one) for one in range(jax.process_count())}, found
    if index == 0:
        with open_store(context) as store:
            store.add_candidates(candidate(int(one)) for one in told)
        (context.folder / "index.json").write_text(json.dumps(sorted(found)))
    return {}


def read(context: StageContext) -> dict[str, int]:
    folder = context.output("made")
    names = json.loads((folder / "index.json").read_text())
    with read_store(context, "made") as store:
        pictures = [one.picture for one in store.candidates()]
    assert pictures == names == [f"{one}.png" for one in range(jax.process_count())]
    total = sum(int((folder / "pictures" / name).read_text()) for name in names)
    (context.folder / f"{jax.process_index()}.txt").write_text(str(total))
    return {"total": total}


def candidate(index: int) -> Candidate:
    settings = dict(num_inference_steps=1, guidance_scale=1.0, true_cfg_scale=1.0)
    return Candidate(
        triplet_id="train/a", index=index, picture=f"{index}.png", negative_prompt="",
        noise_strength=1.0, noise_seed=index, source_digest="s", digest="d", **settings,
    )  # fmt: skip


CHAIN = (
    Stage("made", "make", made, before_publishing=save_lines),
    Stage("read", "read", read, reads={"made": Effect.OUTPUT}),
)

if __name__ == "__main__":
    with distributed.shutdown_together(orderly=(), silence=60.0):
        distributed.initialize(distributed.find_cluster_config(), 60.0)
        config = ConfigDict({"seed": 0, "stages": ("made", "read")})
        run_chain(config, sys.argv[1], make_mesh(data=jax.device_count(), fsdp=1), CHAIN)
        print("copies of", os.environ["ONEREWARD_COPIES"])
