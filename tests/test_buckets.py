"""Pictures of several shapes: sizes, homogeneous batches, and a whole run on somebody's folder."""

import collections
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from ml_collections import FrozenConfigDict
from PIL import Image

import onereward_jax
from onereward_jax.annotation import Candidate, PreferenceStore
from onereward_jax.annotation.picture_digests import pixel_digest
from onereward_jax.chain.stage import StageContext
from onereward_jax.common.config_files import load_config
from onereward_jax.common.user_errors import WAITING, WaitingForPeople
from onereward_jax.data.aspect_buckets import bucket_sizes, nearest_bucket
from onereward_jax.data.folder_source import FolderSource
from onereward_jax.data.mixing import Mixing, mixed_rows
from onereward_jax.data.pipeline import eval_batches, sizes_of, to_batch, to_sample, train_batches
from onereward_jax.data.row_files import METADATA
from onereward_jax.data.shard_writer import write_triplets
from onereward_jax.data.triplets import Triplets
from onereward_jax.parallel import make_mesh
from onereward_jax.reward import JudgeView
from onereward_jax.reward.judge_loader import read_reward_model
from onereward_jax.stages import annotate
from onereward_jax.stages.candidate_plans import plan_candidates
from onereward_jax.stages.collect_pairs import collect_pairs, own_pairs, picture_folders
from onereward_jax.stages.edits_of_pairs import edits_of_pairs
from onereward_jax.stages.pair_source import PairSource, task_shares
from onereward_jax.stages.preference_stores import STORE
from onereward_jax.tasks import TASKS, Task

ROOT = pathlib.Path(onereward_jax.__file__).parents[1]
JUDGE = ROOT / "onereward_jax" / "mini" / "models" / "judge"
SIZE, RATIOS = 64, (1.0, 1.5)
SQUARE, WIDE = (64, 64), (48, 80)
SHAPES = {"square": (40, 40), "wide": (60, 40)}
"""(width, height) of the files."""

COUNTS = {
    (Task.FILL, "square"): 6,
    (Task.FILL, "wide"): 2,
    (Task.EXTEND_WITH_PROMPT, "square"): 2,
    (Task.EXTEND_WITHOUT_PROMPT, "wide"): 2,
    (Task.REMOVAL, "square"): 2,
    (Task.REMOVAL, "wide"): 4,
}
"""Of each split."""


def write_folder(folder, prompt="a red apple"):
    """A folder of blocks of colour on noise, some wider than high."""
    rng, rows = np.random.default_rng(0), []
    for split in ("train", "test"):
        for (task, shape), count in COUNTS.items():
            for number in range(count):
                name = f"{split}-{task}-{shape}-{number}"
                width, height = SHAPES[shape]
                pixels = rng.integers(0, 255, (height // 4, width // 4, 3), np.uint8)
                picture = Image.fromarray(pixels).resize((width, height))
                picture.save(folder / f"{name}.png")
                mask = Image.new("L", (width, height))
                mask.paste(255, (width // 2, 8, width // 2 + 16, 30))
                mask.save(folder / f"{name}-mask.png")
                row = {"image": f"{name}.png", "mask": f"{name}-mask.png", "task": task.value}
                rows.append(row | {"split": split, "prompt": prompt})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def triplets(folder, tmp_path_factory):
    written = tmp_path_factory.mktemp("data")
    write_triplets(written, FolderSource(folder, SIZE, RATIOS))
    return Triplets(written, "train")


def take(batches, count):
    return [next(batches) for _ in range(count)]


def size_of(batch):
    return batch["image"].shape[1:3]


def test_buckets_have_about_the_pixels_of_the_square_and_sides_that_tokens_fit_into():
    sizes = bucket_sizes(1024, (1.0, 4 / 3, 3 / 4, 16 / 9, 9 / 16))
    assert sizes[0] == (1024, 1024)
    assert sizes[1] == sizes[2][::-1] and sizes[3] == sizes[4][::-1]
    for height, width in sizes:
        assert height % 16 == width % 16 == 0
        assert abs(height * width / 1024**2 - 1) < 0.02
    assert bucket_sizes(SIZE, RATIOS) == (SQUARE, WIDE)
    assert bucket_sizes(SIZE, (1.0, 1.01)) == (SQUARE,)


@pytest.mark.parametrize(
    ("size", "ratios", "message"),
    [
        (40, (1.0,), "multiple of 16"),
        (32, (), "aspect_ratios is empty"),
        (32, (1.0, -2.0), "-2.0 is not a positive number"),
        (32, (float("nan"),), "nan is not a positive number"),
        (32, (50.0,), "50.0 is too extreme for image_size 32"),
    ],
)
def test_buckets_that_cannot_be_are_refused(size, ratios, message):
    with pytest.raises(ValueError, match=message):
        bucket_sizes(size, ratios)


def test_a_picture_goes_where_least_is_cut_off():
    sizes = bucket_sizes(1024, (1.0, 1.5, 2 / 3))
    found = [nearest_bucket(size, sizes) for size in ((700, 720), (600, 900), (4000, 1000))]
    assert found == [sizes[0], sizes[1], sizes[2]]


def test_files_are_cropped_to_their_bucket_and_stored_with_their_size(triplets):
    assert set(map(tuple, triplets.sizes.tolist())) == {SQUARE, WIDE}
    for row, size in enumerate(triplets.sizes):
        example = triplets[row]
        assert example["image"].shape == example["target"].shape == (*size, 3)
        assert example["mask"].shape == (*size, 1)
        assert 0 < (example["mask"] > 0).mean() < 0.5
        wide = "-wide-" in example["photo"]
        assert tuple(size) == (WIDE if wide else SQUARE)
    assert sizes_of(triplets) == [SQUARE, WIDE]


class Blank:
    """Triplets whose pictures are not worth reading, fifty for each of some others."""

    def __init__(self, triplets):
        self.tasks, self.sizes = np.tile(triplets.tasks, 50), np.tile(triplets.sizes, (50, 1))

    def __len__(self):
        return len(self.tasks)

    def with_task(self, task):
        return np.flatnonzero(self.tasks == TASKS.index(task)).astype(np.int32)

    def __getitem__(self, index):
        blank = np.zeros((*self.sizes[index], 3), np.uint8)
        known = {"image": blank, "target": blank, "mask": blank[..., :1]}
        return known | {"prompt": "", "has_target": True}


@pytest.mark.parametrize("task_per", ["sample", "iteration"])
def test_batches_are_of_one_size_and_tasks_come_as_often_as_they_should(triplets, task_per):
    triplets = Blank(triplets)
    batches = take(train_batches(triplets, 4, 0, mixing=Mixing(task_per=task_per)), 1500)
    drawn = collections.Counter()
    for batch in batches:
        assert (triplets.sizes[batch["index"]] == size_of(batch)).all()
        assert task_per == "sample" or len(set(batch["task"])) == 1
        drawn.update((TASKS[task], size_of(batch)) for task in batch["task"])
    of_task = collections.Counter()
    for (task, _), count in COUNTS.items():
        of_task[task] += count
    for (task, shape), count in COUNTS.items():
        expected = Mixing().probabilities[task] * count / of_task[task]
        share = drawn.pop((task, SQUARE if shape == "square" else WIDE)) / 6000
        assert share == pytest.approx(expected, abs=0.03)
    assert not drawn


def test_processes_share_the_size_of_a_batch(triplets):
    whole = take(train_batches(triplets, 4, seed=2), 12)
    for rows in ([0, 1], [2, 3]):
        part = take(train_batches(triplets, 4, seed=2, rows=np.array(rows)), 12)
        for ours, theirs in zip(part, whole):
            np.testing.assert_array_equal(ours["index"], theirs["index"][rows])
            assert size_of(ours) == size_of(theirs)


def test_a_resumed_iterator_goes_on_with_the_same_sizes(triplets):
    batches = train_batches(triplets, 4, seed=3)
    take(batches, 5)
    state = batches.get_state()
    expected = [batch["index"].tolist() for batch in take(batches, 8)]
    resumed = train_batches(triplets, 4, seed=3)
    resumed.set_state(state)
    assert [batch["index"].tolist() for batch in take(resumed, 8)] == expected


def test_evaluation_reads_every_example_once_in_batches_of_one_size(triplets):
    seen = []
    for batch in eval_batches(triplets, 4):
        assert len(batch["index"]) == 4
        assert (triplets.sizes[batch["index"]] == size_of(batch)).all()
        seen += batch["index"][batch["valid"]].tolist()
    assert sorted(seen) == list(range(len(triplets)))


@pytest.fixture(scope="module")
def annotated(folder, tmp_path_factory):
    """A work folder with data, candidates and people's answers."""
    workdir = tmp_path_factory.mktemp("run")
    write_triplets(workdir / "data", FolderSource(folder, SIZE, RATIOS))
    rng, pictures = np.random.default_rng(0), workdir / "candidates"
    pictures.mkdir()
    with PreferenceStore(pictures / STORE) as store:
        for split in ("train", "test"):
            triplets = Triplets(workdir / "data", split)
            for row, name in enumerate(triplets.column("id")):
                for index in range(2):
                    picture = f"{split}-{name}-{index}.png"
                    pixels = rng.integers(0, 255, (*triplets.sizes[row], 3), np.uint8)
                    Image.fromarray(pixels).save(pictures / picture)
                    source = pixel_digest(triplets[row]["image"], triplets[row]["mask"])
                    settings = (2, 1.0, 1.0, "", 1.0, 0, 0.0, source, pixel_digest(pixels))
                    store.add_candidates([Candidate(f"{split}/{name}", index, picture, *settings)])
    with pytest.raises(WaitingForPeople):
        annotate.run(context_of(workdir))
    questions = workdir / "questions" / "questions.jsonl"
    lines = [json.loads(line) for line in questions.read_text().splitlines()]
    answers = workdir / "answers.jsonl"
    answers.write_text("\n".join(json.dumps(line | {"best": 1, "worst": 0}) for line in lines))
    (workdir / "annotate").mkdir()
    assert annotate.run(context_of(workdir, answers))["pairs"] == len(lines)
    return workdir


def context_of(workdir, answers="", stage="annotate"):
    config = {
        "annotate": {"by": "people", "path": str(answers), "enough": 1.0},
        "data": {"source": "folder", "path": ""},
        "reward": {
            "between": False,
            "consensus": "each",
            "undecided": "leave",
            "preferences": (),
            "held_out": 0.0,
            "validation": 0.0,
            "judge_share": 1.0,
        },
        "seed": 0,
        "stages": ("data", "candidates", "annotate", "reward"),
    }
    mesh = make_mesh(data=jax.device_count(), fsdp=1)
    return StageContext(stage, FrozenConfigDict(config), workdir, mesh)


def test_pairs_that_people_decided_come_in_batches_of_one_size(annotated):
    context = context_of(annotated, stage="reward")
    context.folder.mkdir()
    triplets = Triplets(annotated / "data", "train")
    judges = {size: read_reward_model(JUDGE, size, suffix_length=40) for size in sizes_of(triplets)}
    queries = {size: judge.queries for size, judge in judges.items()}
    labelled = collect_pairs(context)
    names = {split: Triplets(annotated / "data", split).column("id") for split in labelled}
    for split, found in labelled.items():  # of the triplets, whose pictures are in one split each
        assert {pair.source for pair in found} == set(names[split])
        assert {pair.split for pair in found} == {split}
    pairs = PairSource(labelled["train"], picture_folders(context), queries)
    mixing = Mixing(task_shares(pairs.tasks, "as_found"))
    drawn = mixed_rows(pairs.tasks, pairs.sizes, 4, 0, mixing)
    sizes = collections.Counter()
    for start in range(0, 400, 4):
        batch = [pairs[int(drawn[start + offset])] for offset in range(4)]
        (size,) = {pair["first"].shape[:2] for pair in batch}
        prefix = queries[size].layout.prefix_length
        assert {pair["query_prefix"].shape for pair in batch} == {(prefix,)}
        sizes[size] += 1
    share = (pairs.sizes == SQUARE).all(1).mean()
    assert sizes[SQUARE] / 100 == pytest.approx(share, abs=0.15)


def test_the_judge_sees_the_same_edit_in_training_as_in_rl(annotated):
    """Of somebody's own pictures; bit for bit, before the same function makes its pictures."""
    context, view = context_of(annotated, stage="reward"), JudgeView(crop=1.25, source="outlined")
    triplets, labelled = Triplets(annotated / "data", "train"), list(own_pairs(context))
    labelled = [pair for pair in labelled if pair.split == "train"]
    queries = {
        size: read_reward_model(JUDGE, size, suffix_length=40, view=view).queries
        for size in sizes_of(triplets)
    }
    edits = edits_of_pairs(context, labelled)
    pairs = PairSource(labelled, picture_folders(context), queries, edits)
    rows = {name: row for row, name in enumerate(triplets.column("id"))}
    for number, pair in enumerate(labelled):
        batch = to_batch([to_sample(triplets, rows[pair.source])])
        expected = view.inputs(batch["mask"][..., 0] > 0, batch["image"])
        assert expected.keys() == {"box", "source", "mask"}
        for name, values in expected.items():
            np.testing.assert_array_equal(pairs[number][f"query_{name}"], values[0])
        assert expected["box"][0].tolist() != [0, 0, *pair.size]


def planned(config, triplets):
    """The candidates of the training split."""
    return plan_candidates(FrozenConfigDict(config), "train", triplets)


@pytest.mark.parametrize(("tasks", "fills"), [("as_sampled", 4), ("evenly", 2)])
def test_candidates_are_planned_for_tasks_as_the_config_says(triplets, tasks, fills):
    whole = load_config(f"{ROOT}/configs/mini.py")
    config = whole.candidates
    config.update(train=8, tasks=tasks)
    others = dict(extend_with_prompt=0.125, extend_without_prompt=0.125, removal=0.25)
    whole.rl.task_probabilities.update(fill=0.5, **others)
    plans = list(planned(whole, triplets))
    counts = collections.Counter(TASKS[triplets.tasks[plan.row]] for plan in plans)
    assert counts[Task.FILL] == fills * config.count
    assert counts.total() == 8 * config.count


def test_a_row_put_in_front_changes_no_other_triplet_and_none_of_its_candidates(
    folder, triplets, tmp_path
):
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    lines = (folder / METADATA).read_text()
    first = json.loads(lines.split("\n")[0])
    (tmp_path / METADATA).unlink()
    (tmp_path / METADATA).write_text(json.dumps(first | {"prompt": "a pear"}) + "\n" + lines)
    write_triplets(tmp_path / "data", FolderSource(tmp_path, SIZE, RATIOS))
    longer = Triplets(tmp_path / "data", "train")
    assert longer.column("id")[1:] == triplets.column("id")
    config = load_config(f"{ROOT}/configs/mini.py")
    config.candidates.update(train=1000, tasks="as_sampled")
    before, after = (
        {plan.candidate for plan in planned(config, these)} for these in (triplets, longer)
    )
    assert len(after - before) == config.candidates.count and before < after


@pytest.mark.slow
def test_a_folder_of_several_shapes_goes_through_the_whole_method(tmp_path):
    """Every stage on somebody's pictures, judged by people."""
    pictures, workdir = tmp_path / "pictures", tmp_path / "run"
    pictures.mkdir()
    write_folder(pictures)

    def run(*flags, code=0):
        done = subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "onereward_jax.main",
                    "--config=configs/mini.py:smoke,folder",
                ),
                *(f"--workdir={workdir}", f"--config.data.path={pictures}"),
                f"--config.data.aspect_ratios={RATIOS}",
                *flags,
            ],
            cwd=ROOT,
            env=os.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    assert "questions are answered; waiting for the rest" in run(code=WAITING)
    questions = workdir / "questions" / "questions.jsonl"
    lines = [json.loads(line) for line in questions.read_text().splitlines()]
    for line in lines:
        for picture in (line["image"], line["mask"], *line["candidates"]):
            assert (questions.parent / picture).is_file()
    answers = tmp_path / "answers.jsonl"
    answered = [line | {"best": 1, "worst": 0, "annotator": "ann"} for line in lines]
    answers.write_text("\n".join(map(json.dumps, answered)))
    run(f"--config.annotate.path={answers}")

    rows = [json.loads(line) for line in (workdir / "rl" / "metrics.jsonl").open()]
    assert len(rows) == 4 and all(np.isfinite(row["loss"]) for row in rows)
    summary = json.loads((workdir / "evaluate" / "report" / "summary.json").read_text())
    assert list(summary["gsb"]) == ["by the judge it was trained against"]
    found = summary["gsb"]["by the judge it was trained against"]
    assert {task: sum(found[task][kind] for kind in ("good", "same", "bad")) for task in found} == {
        "fill": 8, "extend_with_prompt": 2, "extend_without_prompt": 2, "removal": 6
    }  # fmt: skip
