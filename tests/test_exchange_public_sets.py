"""EditReward-Data and tables of pairs become preferences folders; a judge is trained on them."""

import json
import pathlib

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ml_collections import FrozenConfigDict
from PIL import Image
from public_sets import EDIT_REWARD_FLAGS, TABLE_FLAGS, write_edit_reward, write_table
from safetensors.numpy import load_file

import onereward_jax
from onereward_jax import preferences
from onereward_jax.annotation.labelled_pairs import PairRules, read_pairs
from onereward_jax.annotation.preferences_folder import (
    content_digest,
    read_about,
    read_comparisons,
)
from onereward_jax.chain import run_chain
from onereward_jax.common.config_files import load_config
from onereward_jax.parallel import make_mesh
from onereward_jax.stages import STAGES
from onereward_jax.stages.imported_folders import imported_content
from onereward_jax.stages.imported_pairs import check_imported, crop_notes, imported_pairs
from onereward_jax.stages.judged_size import judged_pixels
from onereward_jax.tasks import Dimension, Task

ROOT = pathlib.Path(onereward_jax.__file__).parents[1]


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """(folder of EditReward rows, folder of a table)."""
    given, made = tmp_path_factory.mktemp("given"), tmp_path_factory.mktemp("made")
    write_edit_reward(given)
    write_table(given)
    pictures = f"--pictures={given / 'images'}"
    sources = (("train.json", (*EDIT_REWARD_FLAGS, pictures)), ("pairs.csv", TABLE_FLAGS))
    for file, flags in sources:
        to = made / file.partition(".")[0]
        preferences.main(["import", f"--from={given / file}", f"--to={to}", *flags])
    return made / "train", made / "pairs"


def test_edit_reward_scores_decide_and_ties_are_no_difference(imported, tmp_path):
    rows = {row["prompt"]: row for row in write_edit_reward(tmp_path)}
    comparisons = read_comparisons(imported[0])
    assert len(comparisons) == len(rows) == 24
    for one in comparisons:
        row = rows.pop(one.prompt)
        assert one.task is Task.FILL and one.mask is None and one.source == one.image.pixels
        assert {each.model for each in one.candidates} == {row["model1"], row["model2"]}
        path_of = {row["model1"]: row["path1"], row["model2"]: row["path2"]}
        for each in one.candidates:
            given = tmp_path / "images" / path_of[each.model]
            assert (imported[0] / each.picture.path).read_bytes() == given.read_bytes()
        said = {answer.dimension: answer for answer in one.answers}
        ends = {Dimension.TEXT_ALIGNMENT: "dim1", Dimension.AESTHETICS: "dim2"}
        for dimension, end in ends.items():
            scores = [row.get(f"model{side}_{end}_score") for side in (1, 2)]
            if None in scores:
                assert dimension not in said
                continue
            answer = said[dimension]
            places = (answer.best, answer.worst)
            names = [None if place is None else one.candidates[place].model for place in places]
            order = [row["model1"], row["model2"]]
            if scores[0] == scores[1]:
                assert names == [None, None]
            else:
                assert names == (order if scores[0] > scores[1] else order[::-1])
    # path1 is always the preferred one: the position in the folder must not tell that.
    first = [one.candidates[0].model == "ovis_u1" for one in comparisons]
    assert 0.2 < np.mean(first) < 0.8
    about = read_about(imported[0])
    assert about["license"] == "other"
    assert about["origin"] == {"format": "edit_reward", "from": "train.json"}


def test_overall_falls_back_to_the_order_of_the_paths(tmp_path):
    rows = write_edit_reward(tmp_path)
    kept = [{name: value for name, value in row.items() if "score" not in name} for row in rows[:4]]
    (tmp_path / "train.json").write_text(json.dumps(kept))
    command = ["import", f"--from={tmp_path / 'train.json'}", f"--to={tmp_path / 'prefs'}"]
    flags = ("--format=edit_reward", "--task=fill", "--dimensions=overall=aesthetics")
    preferences.main([*command, *flags, f"--pictures={tmp_path / 'images'}", "--annotator=me"])
    for one in read_comparisons(tmp_path / "prefs"):
        (answer,) = one.answers
        assert answer.annotator == "me" and answer.dimension is Dimension.AESTHETICS
        tie = one.prompt == rows[0]["prompt"]
        assert (answer.best is None) == tie
        assert tie or one.candidates[answer.best].model == "ovis_u1"


def test_a_table_with_names_of_its_own(imported):
    by_prompt = {one.prompt: one for one in read_comparisons(imported[1])}
    assert len(by_prompt) == 24
    for number in range(24):
        one = by_prompt[f'a "red", round\napple {number}']
        (answer,) = one.answers
        assert answer.annotator == "ann" and one.image is None and one.source == ""
        left = [each.picture for each in one.candidates if each.model == ""]
        assert len(left) == 2 and all(picture.path.endswith(".jpg") for picture in left)
        expected = ((1.0, False), (1.0, False), (1.0, True), (0.75, False))[number % 4]
        assert (answer.probability, answer.best is None) == expected
    assert read_about(imported[1])["counts"]["undecided"] == 6


def test_tables_in_every_file_type_are_the_same(imported, tmp_path):
    write_table(tmp_path)
    fields = ("left", "right", "caption", "choice", "who")
    rows = []
    for number in range(24):
        choice = ("leftvote", "rightvote", "same", 0.75)[number % 4]
        caption = f'a "red", round\napple {number}'
        rows.append((f"left-{number}.jpg", f"right-{number}.jpg", caption, choice, "ann"))
    records = [dict(zip(fields, row)) for row in rows]
    (tmp_path / "a.json").write_text(json.dumps(records))
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n\n")
    embedded = [
        record
        | {
            side: {"bytes": (tmp_path / record[side]).read_bytes(), "path": None}
            for side in ("left", "right")
        }
        | {"choice": str(record["choice"])}
        for record in records
    ]
    pq.write_table(pa.Table.from_pylist(embedded), tmp_path / "a.parquet")
    for name in ("a.json", "a.jsonl", "a.parquet"):
        to = tmp_path / name.replace(".", "-")
        preferences.main(["import", f"--from={tmp_path / name}", f"--to={to}", *TABLE_FLAGS])
        assert content_digest(to) == content_digest(imported[1])


def test_pictures_of_any_size_are_brought_to_the_judges_size():
    pixels = np.random.default_rng(0).integers(0, 255, (32, 64, 3), np.uint8)
    same = judged_pixels(Image.fromarray(pixels), (32, 64))
    np.testing.assert_array_equal(same, pixels)
    square = judged_pixels(Image.fromarray(pixels), (32, 32))
    np.testing.assert_array_equal(square, pixels[:, 16:48])  # the centre, not resampled
    large = judged_pixels(Image.fromarray(np.full((100, 300, 3), 7, np.uint8)), (64, 128))
    assert large.shape == (64, 128, 3) and (large == 7).all()


def config_of(folders, **data):
    config = load_config(str(ROOT / "configs" / "mini.py") + ":smoke")
    config.stages = ("reward",)
    config.reward.preferences = tuple(map(str, folders))
    config.data.update(data)
    config.reward.update(steps=2, batch_size=8, evaluate_every=2, checkpoint_every=2, log_every=1)
    return config


def test_soft_labels_and_rules_apply_to_imported_answers(imported):
    config = FrozenConfigDict(config_of(imported[1:]))
    for consensus, soft in (("each", 0.75), ("soft", 0.75), ("majority", 1.0)):
        rules = dict.fromkeys(("train", "test"), PairRules(consensus=consensus))
        labels = sorted(pair.label for pair in imported_pairs(config, rules, {}))
        assert labels == sorted([1.0] * 12 + [soft] * 6)
    half = dict.fromkeys(("train", "test"), PairRules(undecided="half"))
    assert sum(pair.label == 0.5 for pair in imported_pairs(config, half, {})) == 6


def test_buckets_follow_the_pictures_and_large_crops_are_told(imported):
    square = FrozenConfigDict(config_of(imported[:1]))
    rules = dict.fromkeys(("train", "test"), PairRules())
    assert {pair.size for pair in imported_pairs(square, rules, {})} == {(64, 64)}
    (note,) = crop_notes(square)
    assert "48 of 48 imported pictures lose more than 10% to the crop" in note
    wide = FrozenConfigDict(config_of(imported[:1], aspect_ratios=(1.0, 1.6)))
    assert {pair.size for pair in imported_pairs(wide, rules, {})} == {(48, 80)}
    assert crop_notes(wide) == []


def test_a_source_picture_in_both_splits_is_refused(imported, tmp_path):
    folder = tmp_path / "other"
    (folder / "pictures").parent.mkdir()
    (folder / "pictures").symlink_to(imported[0] / "pictures")
    (folder / "about.json").write_bytes((imported[0] / "about.json").read_bytes())
    lines = [json.loads(line) for line in (imported[0] / "preferences.jsonl").open()]
    other = {"train": "test", "test": "train"}
    changed = [line | {"split": other[line["split"]]} for line in lines[:2]]
    (folder / "preferences.jsonl").write_text("\n".join(map(json.dumps, changed)))
    config = FrozenConfigDict(config_of((imported[0], folder)))
    with pytest.raises(ValueError, match="2 source pictures are in both splits") as found:
        check_imported(config)
    assert lines[0]["source"] in str(found.value)
    unknown = [line | {"source": "", "image": None, "mask": None} for line in changed]
    (folder / "preferences.jsonl").write_text("\n".join(map(json.dumps, unknown)))
    with pytest.raises(ValueError, match="2 source pictures are in both splits"):
        check_imported(config)
    # The same pictures may be among the candidates of the run.
    own = {each["pixels"]: other[line["split"]] for line in lines for each in line["candidates"]}
    rules = dict.fromkeys(("train", "test"), PairRules())
    with pytest.raises(ValueError, match="24 source pictures are in both splits"):
        list(imported_pairs(FrozenConfigDict(config_of(imported[:1])), rules, own))


def test_a_folder_counts_by_its_content(imported, tmp_path):
    config = FrozenConfigDict(config_of(imported))
    digest = imported_content(config, tmp_path)
    assert imported_content(FrozenConfigDict(config_of(imported[::-1])), tmp_path) == digest
    assert imported_content(FrozenConfigDict(config_of(imported[:1])), tmp_path) != digest
    assert imported_content(FrozenConfigDict(config_of(())), tmp_path) == "none"


def weights(folder):
    return {
        name: tensor
        for path in folder.glob("*.safetensors")
        for name, tensor in load_file(path).items()
    }


def test_a_judge_is_trained_on_imported_sets_alone(imported, tmp_path, capsys):
    """The stage `reward` needs no data, candidates or annotators of its own."""
    mesh = make_mesh(data=jax.device_count(), fsdp=1)
    config = config_of(imported)
    (outcome,) = run_chain(config, tmp_path, mesh, STAGES)
    assert outcome.ran and "48 of 96 imported pictures" in capsys.readouterr().out
    pairs = read_pairs(tmp_path / "reward" / "pairs.jsonl")
    counts = [sum(pair.folder == f"preferences-{place}" for pair in pairs) for place in (0, 1)]
    assert counts == [35, 18]
    table = json.loads((tmp_path / "reward" / "accuracy.json").read_text())
    held_out = [pair for pair in pairs if pair.split == "test"]
    assert table["step"] == 2 and sum(row["pairs"] for row in table["rows"]) == len(held_out) > 0
    start = weights(ROOT / "onereward_jax" / "mini" / "models" / "judge")
    trained = weights(tmp_path / "reward" / "judge")
    assert start.keys() == trained.keys()
    assert any((start[name] != trained[name]).any() for name in start)
    (again,) = run_chain(config, tmp_path, mesh, STAGES)
    assert not again.ran, "the folders are unchanged"


def test_the_command_line_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.reward.preferences: there is no folder"):
        check_imported(FrozenConfigDict(config_of((tmp_path / "nowhere",))))
    with pytest.raises(FileNotFoundError, match="is not a preferences folder"):
        check_imported(FrozenConfigDict(config_of((tmp_path,))))
