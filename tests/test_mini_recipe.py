"""The recipe of the packaged mini models."""

import jax
import pytest
from ml_collections import FrozenConfigDict

from configs.make_mini import get_config
from onereward_jax.chain import run_chain
from onereward_jax.chain.stage import StageContext
from onereward_jax.parallel import make_mesh
from onereward_jax.stages.own_stages import stages_of

MESH = make_mesh(1, 1, 1, devices=jax.devices()[:1])


def test_its_programs_are_named_without_base_models(tmp_path):
    context = StageContext("pretrain", FrozenConfigDict(get_config()), tmp_path, MESH)
    assert context.program("vae") == "vae"


@pytest.mark.slow
def test_it_makes_both_models_in_a_few_steps(tmp_path):
    config, stages = stages_of(get_config("smoke"))
    *_, last = run_chain(config, tmp_path, MESH, stages)
    assert {"vae_psnr_held_out_db", "judge_accuracy"} <= set(last.record.results)
    for model in ("editor/model_index.json", "judge/config.json"):
        assert (tmp_path / "pretrain" / model).is_file()
