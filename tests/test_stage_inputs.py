"""A stage is stale when, and only when, its output would differ: every field is tried.

A verdict has one letter per stage, in their order: "." unchanged, "+" goes on or runs again in its
folder, "!" starts over.
"""

import functools
import json
import pathlib
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict, FrozenConfigDict
from PIL import Image

import onereward_jax
from onereward_jax.chain import fingerprints
from onereward_jax.chain.staleness import Action, compare, identity, leaves, reads_of, stage_inputs
from onereward_jax.common.config_files import load_config
from onereward_jax.reward.query_template import PACKAGED
from onereward_jax.stages import STAGES

ROOT = pathlib.Path(onereward_jax.__file__).parents[1]
TABLE = {stage.name: stage for stage in STAGES}
LETTERS = {Action.UNCHANGED: ".", Action.GOES_ON: "+", Action.STARTS_OVER: "!"}

# data embed candidates annotate reward rl evaluate export
EXPECTED = {
    "!+!!!!!!": "seed",
    "!++!!!!!": """data.image_size data.aspect_ratios
        mini.train.fill mini.train.extend_with_prompt mini.train.extend_without_prompt
        mini.train.removal mini.test.fill mini.test.extend_with_prompt
        mini.test.extend_without_prompt mini.test.removal""",
    ".!!!!!!!": "models.dtype embed.max_length",
    ".+!!!!!!": "candidates.negative_prompts",
    ".+...!!!": "guidance.negative_prompt rl.negative_prompt",
    ".+....!+": "evaluate.negative_prompt",
    "..!!!!!!": """models.paste_back models.solver
        candidates.count candidates.num_steps candidates.strength
        candidates.guidance_scale candidates.true_cfg_scale candidates.guided_by
        mini.disturbed mini.disturbance""",
    "..+!!!!!": """candidates.tasks candidates.train candidates.test candidates.chosen_by
        candidates.test_like_rl""",
    "...!!!!!": "mini.noise_rate mini.margin",
    "....!!!!": """reward.batch_size reward.lora.rank reward.consensus reward.undecided
        reward.between reward.mirror reward.tasks reward.vocabulary reward.crop
        reward.unfit_prompts reward.judge_share reward.held_out reward.validation
        reward.keep_best reward.label_smoothing reward.kind
        reward.jitter.noise reward.jitter.shift reward.jitter.negative
        reward.optimizer.learning_rate reward.optimizer.schedule reward.optimizer.warmup_steps
        reward.optimizer.final_fraction reward.optimizer.b1 reward.optimizer.b2
        reward.optimizer.eps reward.optimizer.weight_decay reward.optimizer.clip_norm
        reward.optimizer.moments""",
    "....+!!!": "reward.steps reward.judges",
    ".....!!!": """rl.batch_size rl.lora.rank rl.reward_upper_bound
        rl.vocabulary rl.orders
        rl.judge_int8 rl.ema_decay rl.num_steps rl.t1 rl.t2 rl.guidance_scale
        rl.references rl.surrogate rl.shared_noise rl.gradient_in_mask rl.anchor_weight
        rl.rollout_int8
        rl.policy_true_cfg_scale
        rl.prediction_true_cfg_scale rl.reference_true_cfg_scale rl.task_per rl.flow_matching_weight
        guidance.guidance_scale guidance.true_cfg_scale rl.task_probabilities.fill
        rl.task_probabilities.extend_with_prompt rl.task_probabilities.extend_without_prompt
        rl.task_probabilities.removal rl.dimension_weights.structure
        rl.dimension_weights.consistency rl.dimension_weights.text_alignment
        rl.dimension_weights.aesthetics rl.dimension_weights.removal_quality
        rl.balance rl.project_conflicts
        rl.jitter.noise rl.jitter.shift rl.jitter.negative rl.optimizer.learning_rate
        rl.optimizer.schedule rl.optimizer.warmup_steps rl.optimizer.final_fraction
        rl.optimizer.b1 rl.optimizer.b2 rl.optimizer.eps rl.optimizer.weight_decay
        rl.optimizer.clip_norm rl.optimizer.moments""",
    ".....+!!": "rl.steps",
    "......!+": """evaluate.num_steps evaluate.guidance_scale evaluate.true_cfg_scale
        evaluate.weights""",
    "......++": """evaluate.triplets.fill evaluate.triplets.extend_with_prompt
        evaluate.triplets.extend_without_prompt evaluate.triplets.removal evaluate.pictures
        mini.same_margin evaluate.judge_same_margin evaluate.questions evaluate.usability""",
    ".......+": """export.weights export.dtype export.editor export.comfyui export.adapter
        export.shard_gb export.editor_card.base_model export.editor_card.license
        export.editor_card.license_name
        export.editor_card.license_link export.judge_card.base_model export.judge_card.license
        export.judge_card.license_name export.judge_card.license_link""",
    "........": """rounds later_rounds.train later_rounds.test later_rounds.triplets
        later_rounds.from_policy later_rounds.weights later_rounds.judge later_rounds.reward_steps
        later_rounds.share later_rounds.rl later_rounds.rl_steps data.small_pictures
        data.paths data.mask_indices mesh.data mesh.fsdp
        mesh.tensor mesh.context logging.tensorboard logging.wandb
        logging.profile_steps compilation_cache models.remat embed.batch_size
        curate.pictures curate.clip curate.batch_size curate.duplicates curate.clusters curate.near
        curate.far curate.rows curate.segmentation curate.words curate.captions curate.tasks.fill
        curate.tasks.extend_with_prompt curate.tasks.extend_without_prompt curate.tasks.removal
        curate.fill.boxes curate.fill.strokes curate.fill.silhouettes curate.fill.words
        curate.extend.all_sides curate.extend.some_sides curate.removal.silhouettes
        curate.removal.boxes curate.area curate.border curate.grow curate.sheet
        candidates.batch_size reward.microbatches reward.suffix_length reward.evaluate_every
        reward.lora.alpha reward.lora.targets
        reward.checkpoint_every reward.log_every reward.max_refused rl.microbatches
        rl.dpo_beta
        rl.checkpoint_every rl.keep_every rl.sample_every rl.log_every rl.max_refused rl.lora.alpha
        rl.conflicts_every rl.balance_temperature rl.floor rl.floor_gain rl.balance_window
        rl.active_steps rl.leap_discount rl.bank_size
        rl.lora.targets rl.ensemble rl.ensemble_spread rl.held_out_every rl.stop_at_gap
        evaluate.batch_size annotate.enough reward.curve_shares
        annotate.web.host annotate.web.port annotate.web.url annotate.web.overlap
        annotate.web.lease_minutes annotate.web.gold_every annotate.web.guidelines
        rl.group_size rl.compare rl.opponents rl.trained_levels rl.advantage_limit rl.nft_beta
        rl.grpo_noise rl.clip_range rl.inner_updates rl.error_area
        benchmark.folders benchmark.editors benchmark.rows benchmark.longest_side
        benchmark.batch_size benchmark.lpips benchmark.clip benchmark.judge
        benchmark.pictures""",
}
"""Action -> the fields of configs/mini.py whose change leads to it."""

ELSEWHERE = """stages data.source data.path annotate.by annotate.path models.editor
    candidates.transform evaluate.oracle rl.reward rl.algorithm
    models.transformer models.judge evaluate.judge evaluate.answers evaluate.editors
    reward.query_template reward.source reward.preferences annotate.web.database
    annotate.web.gold"""
"""Fields that name files or choose what is read: their tests follow."""


@pytest.fixture(autouse=True)
def models_are_read_once(monkeypatch):
    monkeypatch.setattr(fingerprints, "of_model", functools.cache(fingerprints.of_model))


def mini() -> ConfigDict:
    return load_config(str(ROOT / "configs" / "mini.py"))


def changed(config: ConfigDict, **fields) -> ConfigDict:
    """A copy with other values by dotted name (two underscores for a dot)."""
    copy = config.copy_and_resolve_references()
    for name, value in fields.items():
        *path, last = name.split("__")
        section = functools.reduce(lambda node, part: node[part], path, copy)
        with copy.ignore_type():
            section[last] = value
    return copy


def another(name, value):
    """A different value of the same type; numbers rise."""
    if value is None:  # left open
        return "blurry" if name.endswith("negative_prompt") else 9.0
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + type(value)(1)
    if isinstance(value, tuple):
        return (*value, *(value[:1] or (1,)))
    return value + (value[:1] or "x")


def inputs(config: ConfigDict, workdir: pathlib.Path) -> dict[str, dict]:
    """Of every stage of the config."""
    frozen, found, identities = FrozenConfigDict(config), {}, {}
    for stage in (TABLE[name] for name in config.stages):
        earlier = {name: identities[name] for name in reads_of(stage, frozen) if name in found}
        found[stage.name] = stage_inputs(stage, frozen, workdir, earlier)
        identities[stage.name] = identity(stage, frozen, found[stage.name])
    return found


def verdicts(then: dict[str, dict], config: ConfigDict, workdir: pathlib.Path) -> str:
    now, frozen = inputs(config, workdir), FrozenConfigDict(config)
    return "".join(
        LETTERS[compare(TABLE[name], frozen, then[name], now[name]).action] for name in now
    )


def test_every_field_makes_stale_what_depends_on_it_and_nothing_else(tmp_path):
    config = mini()
    expected = {name: verdict for verdict, names in EXPECTED.items() for name in names.split()}
    assert set(leaves(config)) == expected.keys() | set(ELSEWHERE.split())
    then = inputs(config, tmp_path)
    assert verdicts(then, config, tmp_path) == "........"
    values = leaves(config)
    found = {}
    for name in expected:
        other = changed(config, **{name.replace(".", "__"): another(name, values[name])})
        found[name] = verdicts(then, other, tmp_path)
    assert found == expected


def test_steps_that_fall_start_over(tmp_path):
    config = mini()
    then = inputs(config, tmp_path)
    assert verdicts(then, changed(config, rl__steps=100), tmp_path) == ".....!!!"
    assert verdicts(then, changed(config, reward__steps=100), tmp_path) == "....!!!!"


def test_settings_that_are_not_read_make_nothing_stale(tmp_path):
    several = changed(mini(), reward__judges=2, reward__held_out=0.2)
    then = inputs(several, tmp_path)
    for field, value in (("rl__ensemble", "least"), ("rl__stop_at_gap", 0.1)):
        assert verdicts(then, changed(several, **{field: value}), tmp_path) == ".....!!!"
    lora = changed(mini(), rl__lora__rank=4)
    then = inputs(lora, tmp_path)
    assert verdicts(then, changed(lora, rl__lora__alpha=1.0), tmp_path) == ".....!!!"
    for surrogate, read in (("several", "active_steps"), ("leap", "leap_discount")):
        config = changed(mini(), rl__surrogate=surrogate)
        other = changed(config, **{f"rl__{read}": 0.9 if surrogate == "leap" else 2})
        assert verdicts(inputs(config, tmp_path), other, tmp_path) == ".....!!!"
    constant = changed(mini(), rl__optimizer__schedule="constant")
    then = inputs(constant, tmp_path)
    assert verdicts(then, changed(constant, rl__optimizer__final_fraction=1.0), tmp_path) == "." * 8


def test_fields_of_the_online_methods_count_for_those_that_read_them(tmp_path):
    for method, reads in {"nft": "..!!", "grpo": "!!.!"}.items():
        config = changed(mini(), rl__algorithm=method)
        then = inputs(config, tmp_path)
        fields = ("grpo_noise", "clip_range", "nft_beta", "group_size")
        for field, verdict in zip(fields, reads):
            other = changed(config, **{f"rl__{field}": config.rl[field] * 2})
            expected = "." * 8 if verdict == "." else ".....!!!"
            assert verdicts(then, other, tmp_path) == expected, (method, field)


def test_values_count_not_how_they_are_spelled(tmp_path):
    """Whole numbers in a tuple; guidance left open and the same guidance; spaces in a template."""
    config = changed(mini(), candidates__true_cfg_scale=(1.0, 5.0))
    whole = changed(mini(), candidates__true_cfg_scale=(1, 5))
    assert verdicts(inputs(config, tmp_path), whole, tmp_path) == "." * 8
    config = mini()
    then = inputs(config, tmp_path)
    same = changed(config, rl__policy_true_cfg_scale=2.0, evaluate__true_cfg_scale=2.0)
    assert verdicts(then, same, tmp_path) == "." * 8
    apart = changed(config, guidance__true_cfg_scale=3.0, rl__policy_true_cfg_scale=2.0)
    assert verdicts(then, apart, tmp_path) == ".....!!!"
    used = changed(same, guidance__true_cfg_scale=3.0)  # the prediction and the reference follow
    assert verdicts(inputs(same, tmp_path), used, tmp_path) == ".....!!!"

    template, path = json.loads(PACKAGED.read_text()), tmp_path / "template.json"
    path.write_text(json.dumps(template | {"version": "mine"}))
    config = changed(config, reward__query_template=str(path))
    then = inputs(config, tmp_path)
    path.write_text(json.dumps(template | {"version": "mine"}, indent=3))
    assert verdicts(then, config, tmp_path) == "." * 8
    words = {"outlined": "Before: {image}", "blanked": "Before: {image}"}
    path.write_text(json.dumps(template | {"version": "mine", "source": words}))
    assert verdicts(then, config, tmp_path) == "." * 8  # the judge does not see the source
    path.write_text(json.dumps(template | {"version": "mine", "head": "Look:"}))
    assert verdicts(then, config, tmp_path) == "....!!!!"

    config = changed(config, reward__source="outlined")
    assert verdicts(then, config, tmp_path) == "....!!!!"
    then = inputs(config, tmp_path)
    path.write_text(json.dumps(template | {"version": "mine", "head": "Look:", "source": words}))
    assert verdicts(then, config, tmp_path) == "....!!!!"


@pytest.mark.parametrize("field", ["rl__reward", "rl__algorithm"])
def test_a_plug_in_counts_by_what_is_in_its_file(field, tmp_path):
    path = tmp_path / "plugin.py"
    path.write_text("a = 1")
    config = changed(mini(), **{field: str(path)})
    then = inputs(config, tmp_path)
    assert verdicts(then, mini(), tmp_path) == ".....!!!"
    moved = shutil.copy(path, tmp_path / "moved.py")
    assert verdicts(then, changed(config, **{field: moved}), tmp_path) == "." * 8
    path.write_text("a = 2")
    assert verdicts(then, config, tmp_path) == ".....!!!"


def folder_of_pictures(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir()
    picture = np.zeros((32, 32, 3), np.uint8)
    for name in ("a", "b", "m"):
        Image.fromarray(picture).save(folder / f"{name}.png")
    rest = {"mask": "m.png", "prompt": "x", "task": "fill"}
    rows = [{"image": f"{name}.png"} | rest for name in "ab"]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_contents_count_not_paths(tmp_path):
    """Metadata, pictures, models and answers changed under the same path; and moved."""
    pictures = folder_of_pictures(tmp_path / "pictures")
    judge = tmp_path / "judge"
    shutil.copytree(ROOT / "onereward_jax" / "mini" / "models" / "judge", judge)
    work = tmp_path / "work"
    questions = work / "questions" / "questions.jsonl"
    questions.parent.mkdir(parents=True)
    questions.write_text('{"triplet": "train/1"}\n')
    config = changed(
        mini(), data__source="folder", data__path=str(pictures), annotate__by="people",
        models__judge=str(judge),
    )  # fmt: skip
    then = inputs(config, work)

    unread = changed(config, mini__train__fill=5, mini__noise_rate=0.5)
    assert verdicts(then, unread, work) == "." * 8
    with pytest.raises(FileNotFoundError, match="config.data.path: there is no .*elsewhere/"):
        inputs(changed(config, data__path=str(tmp_path / "elsewhere")), work)
    for name in ("pictures", "judge"):
        shutil.copytree(tmp_path / name, tmp_path / "moved" / name)
    moved = changed(
        config, data__path=str(tmp_path / "moved" / "pictures"),
        models__judge=str(tmp_path / "moved" / "judge"),
    )  # fmt: skip
    assert verdicts(then, moved, work) == "." * 8

    questions.write_text('{"triplet": "train/1"}\n{"triplet": "train/2"}\n')  # not answered
    assert verdicts(then, config, work) == "." * 8
    questions.write_text('{"triplet": "train/1", "best": 1, "worst": 0}\n{"triplet": "train/2"}\n')
    assert verdicts(then, config, work) == "...+!!!!"
    answered = inputs(config, work)
    questions.write_bytes(  # the same answer: another editor's lines, a remark, said twice
        b'\xef\xbb\xbf{"worst": 0, "best": 1,  "triplet": "train/1", "remark": "!"}\r\n'
        b'{"triplet": "train/2", "best": "", "worst": ""}\r\n'
        b'{"triplet": "train/1", "best": 1, "worst": 0}'
    )
    assert verdicts(answered, config, work) == "." * 8
    blind = work / "questions-ab" / "questions.jsonl"
    blind.parent.mkdir()
    blind.write_text('{"triplet": "test/1"}\n')  # written by the stage itself
    assert verdicts(answered, config, work) == "." * 8
    blind.write_text('{"triplet": "test/1", "best": 1, "worst": 0}\n')
    assert verdicts(answered, config, work) == "......++"
    answered = inputs(config, work)

    fingerprints.of_model.cache_clear()
    card = json.loads((judge / "config.json").read_text())
    (judge / "config.json").write_text(json.dumps(card | {"note": 1}))
    assert verdicts(answered, config, work) == "....!!!!"
    newest = inputs(config, work)

    Image.fromarray(np.full((32, 32, 3), 9, np.uint8)).save(pictures / "a.png")
    assert verdicts(newest, config, work)[:2] == "!+"
    newest = inputs(config, work)
    rows = (pictures / "metadata.jsonl").read_text().splitlines()
    other = json.dumps(dict(reversed(json.loads(rows[0]).items())) | {"split": None})
    (pictures / "metadata.jsonl").write_text("\r\n".join([other, "", *rows]))
    assert verdicts(newest, config, work) == "." * 8
    (pictures / "metadata.jsonl").write_text("\n".join([*rows, ""]))
    with (pictures / "metadata.jsonl").open("a") as file:
        file.write('{"image": "b.png", "mask": "m.png", "prompt": "y", "task": "fill"}\n')
    assert verdicts(newest, config, work) == "!++!!!!!"


def test_large_files_are_told_apart_by_samples(tmp_path):
    path, size = tmp_path / "large.safetensors", fingerprints.WHOLE_BYTES * 4
    content = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    path.write_bytes(content.tobytes())
    before = fingerprints.of_file(path)
    assert fingerprints.of_file(path) == before
    for where in (0, size // 2, size - 1):  # as training changes them: everywhere
        other = content.copy()
        other[where : where + size // 3] ^= 1
        path.write_bytes(other.tobytes())
        assert fingerprints.of_file(path) != before
