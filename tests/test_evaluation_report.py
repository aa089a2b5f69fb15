"""The report: one page that loads nothing, and the same figures as JSON."""

import dataclasses
import html
import html.parser
import json
import math

import numpy as np
import pytest

from onereward_jax.evaluation import Comparison, ImageMetrics, JudgeAccuracy, Verdict, good_same_bad
from onereward_jax.evaluation.gains_by_dimension import Gain, gains
from onereward_jax.evaluation.judge_calibration import (
    AgreedShare,
    LabelPoint,
    Share,
    calibration,
)
from onereward_jax.evaluation.picture_table import GAP, HEADER, LABEL
from onereward_jax.evaluation.policy_against_base import RightOnPolicy
from onereward_jax.evaluation.report import (
    Agreed,
    ByPeople,
    Curve,
    GridRow,
    JudgeTrust,
    ReportInputs,
    RoundRow,
    remarks,
    write_report,
)
from onereward_jax.evaluation.report.picture_sheet import COLUMNS, picture_sheet
from onereward_jax.evaluation.usability import UsableVote, usability
from onereward_jax.stages.rl import sample_grid
from onereward_jax.tasks import DIMENSIONS, TASKS, Dimension, Task


def synthetic_inputs(title: str = "Policy <mini> & base") -> ReportInputs:
    """A full report of invented figures."""
    rng = np.random.default_rng(0)
    steps = np.arange(0, 400, 4)
    keys = [(task, dimension) for task in TASKS for dimension in DIMENSIONS[task]]

    def curve(start, end, noise):
        rise = start + (end - start) * (1 - np.exp(-steps / 120))
        return Curve(steps, rise + rng.normal(0, noise, len(steps)))

    def picture(*shape):
        return rng.integers(0, 256, (16, 16, *shape), dtype=np.uint8)

    verdicts = rng.choice(list(Verdict), (len(TASKS), 80), p=[0.5, 0.35, 0.15])
    comparisons = [
        Comparison(f"t{i}", task, Verdict(v))
        for task, row in zip(TASKS, verdicts)
        for i, v in enumerate(row)
    ]
    return ReportInputs(
        title=title,
        rewards={key: curve(rng.uniform(0.3, 0.5), rng.uniform(0.7, 0.9), 0.05) for key in keys},
        gsb={"policy (EMA) vs base, by the oracle": good_same_bad(comparisons)},
        gains={
            key: Gain(80, 0.7, 0.5, 0.62, 0.1, 0.14) if key[0] is Task.FILL else Gain(80, 0.4)
            for key in keys
        },
        judge={
            key: JudgeAccuracy(200, rng.uniform(0.7, 0.9), rng.uniform(0.6, 0.8), 0.031, 0.2)
            for key in keys
        },
        monitors={
            "saturation (chroma)": curve(20, 24, 0.4),
            "edge density": curve(0.2, 0.26, 0.01),
            "drift outside the mask (ΔE)": curve(8, 5, 0.4),
            "share at zero gradient": curve(0.01, 0.3, 0.02),
        },
        conflicts={task.title: {"structure, consistency": curve(0.2, -0.3, 0.1)} for task in TASKS},
        metrics={
            editor: {
                task: ImageMetrics(5.2, 22.0, 0.2, psnr, 0.6, 1.3, -0.02, truths=1)
                for task in TASKS
            }
            for editor, psnr in (("base", 14.2), ("policy", 17.9))
        },
        grids={
            task: [
                GridRow(f"prompt {i} of {task.title}", picture(3), picture(), *(picture(3),) * 3)
                for i in range(2)
            ]
            for task in TASKS
        },
        about={"base": "FLUX.1-Fill", "policy": "the moving average after 400 steps"},
        triplets=dict.fromkeys(TASKS, (80, 80)),
        agreement={key: Agreed(2, 40, 0.8, 0.6, Share(30, 0.85)) for key in keys},
        trust=JudgeTrust(
            calibration(np.linspace(0.5, 0.99, 200), 1.0 * (np.arange(200) % 4 > 0)),
            [AgreedShare(40, 0.9, "all agree"), AgreedShare(10, 0.6, "fewer agree")],
            [LabelPoint(200, 0.6 + 0.1 * n, 100 * 2**n, 30 * 2**n, 50) for n in range(3)],
        ),
        people=by_people(comparisons),
        rounds=[RoundRow(1, 800, 0.8), RoundRow(2, 1600, 0.82, RightOnPolicy(90, 0.7, 0.6, 0.5))],
        on_policy={"the judge, by people": {key: RightOnPolicy(30, 0.8, 0.6, 0.5) for key in keys}},
        settings={"rl": {"steps": 400, "learning_rate": 1e-5}, "tasks": ["fill"], "note": None},
    )


def by_people(comparisons) -> ByPeople:
    """Two editors, all dimensions of fill, and few votes of usability."""
    found, few = good_same_bad(comparisons), good_same_bad(comparisons[-5:])
    names = [*DIMENSIONS[Task.FILL], "overall"]
    votes = [UsableVote(f"t{number}", Task.FILL, number % 3 > 0) for number in range(60)]
    rare = [UsableVote("t0", Task.REMOVAL, True), UsableVote("t0", Task.REMOVAL, False)]
    return ByPeople(
        gsb={
            "policy": {(Task.FILL, str(name)): found[Task.FILL] for name in names},
            "shop": {(Task.REMOVAL, "overall"): few[Task.REMOVAL]},
        },
        usable={"base": usability(votes), "shop": usability(rare)},
    )


class _Page(html.parser.HTMLParser):
    """Collects what the page shows and what it would load."""

    VOID = {"meta", "img", "br"}

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.headings, self.images = [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.images += tag == "img"
        links = (attributes.get(name) for name in ("src", "href", "xlink:href", "data"))
        self.loads += [link for link in links if link and not link.startswith(("data:", "#"))]
        self.loads += [tag] * (tag in ("script", "link", "iframe"))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "new"
    inputs = synthetic_inputs()
    return inputs, write_report(folder, inputs)


def test_the_page_is_whole_and_loads_nothing(report):
    inputs, page = report
    text = page.read_text("utf-8")
    parsed = _Page(text)
    assert parsed.open == []
    assert parsed.loads == []
    assert "@import" not in text
    assert "url(http" not in text
    assert parsed.images == 5 * 2 * len(TASKS)
    assert len(parsed.headings) == 10
    assert "Policy &lt;mini&gt; &amp; base" in text
    assert text.count("<svg") == 5


def test_charts_take_the_colour_of_the_page(report):
    text = report[1].read_text("utf-8")
    assert "#010203" not in text
    assert "currentColor" in text


def test_the_summary_holds_every_figure(report):
    inputs, page = report
    summary = json.loads(page.with_name("summary.json").read_text("utf-8"))
    for (task, dimension), accuracy in inputs.judge.items():
        row = summary["judge"][task][dimension]
        assert row["accuracy"] == accuracy.accuracy
        assert 0.7 < row["paper_accuracy"] < 0.9
    for (task, dimension), curve in inputs.rewards.items():
        found = summary["rewards"][task][dimension]
        assert found["start"] == pytest.approx(curve.values[:10].mean())
        assert found["end"] == pytest.approx(curve.values[-10:].mean())
        assert np.array(found["points"]).shape == (len(curve.steps), 2)
    (gsb,) = summary["gsb"].values()
    assert gsb["fill"]["good"] + gsb["fill"]["same"] + gsb["fill"]["bad"] == 80
    trust = summary["trust"]
    assert trust["calibration"]["pairs"] == 200 and len(trust["calibration"]["bins"]) == 10
    assert [point["labels"] for point in trust["by_labels"]] == [100, 200, 400]
    assert summary["agreement"]["fill"]["structure"]["alone"] == {"pairs": 30, "accuracy": 0.85}
    assert [row["on_policy"] and row["on_policy"]["pairs"] for row in summary["rounds"]] == [
        None,
        90,
    ]
    found = summary["on_policy"]["the judge, by people"]
    assert found["overall"]["pairs"] == 30 * len(inputs.judge)
    assert found["removal"]["removal_quality"]["low"] < 0.8
    people = summary["people"]
    assert list(people["gsb"]["policy"]["fill"]) == [*DIMENSIONS[Task.FILL], "overall"]
    assert people["usable"]["base"]["fill"]["share"] == pytest.approx(40 / 60)
    assert people["usable"]["shop"]["removal"] == {"share": 0.5, "triplets": 1, "votes": 2}
    assert summary["metrics"]["policy"]["removal"]["psnr"] == 17.9
    assert summary["settings"]["rl"]["learning_rate"] == 1e-5


def test_the_same_inputs_give_the_same_bytes(report, tmp_path):
    inputs, page = report
    again = write_report(tmp_path, inputs)
    assert again == tmp_path / "index.html"
    files = ["index.html", "pictures.png", "summary.json"]
    assert sorted(file.name for file in tmp_path.iterdir()) == files
    for name in files:
        assert (tmp_path / name).read_bytes() == (page.parent / name).read_bytes()


def test_gains_are_told_by_task_and_dimension():
    rng, dimensions = np.random.default_rng(0), DIMENSIONS[Task.FILL]
    tasks = dict.fromkeys(range(40), Task.FILL) | {40: Task.REMOVAL, 41: Task.REMOVAL}
    quality = Dimension.REMOVAL_QUALITY
    preferences = {row: dict.fromkeys(dimensions, 0.25 + 0.5 * (row % 2)) for row in range(40)}
    preferences |= {40: {quality: 0.9}, 41: {quality: 0.7}}
    scores = {
        row: ({e: 0.6 + rng.normal(0, 0.05) for e in dimensions}, dict.fromkeys(dimensions, 0.5))
        for row in range(40)
    }
    scores |= {row: ({quality: 0.2}, {quality: 0.4}) for row in (40, 41)}
    found = gains(tasks, preferences, scores)
    assert set(found) == {(Task.FILL, e) for e in dimensions} | {(Task.REMOVAL, quality)}
    gain = found[Task.FILL, Dimension.STRUCTURE]
    assert gain.triplets == 40 and gain.preference == pytest.approx(0.5)
    assert gain.base == pytest.approx(0.5) and gain.policy == pytest.approx(0.6, abs=0.03)
    assert 0.07 < gain.low < gain.policy - gain.base < gain.high < 0.13
    worse = found[Task.REMOVAL, quality]
    assert (worse.triplets, worse.preference) == (2, pytest.approx(0.8))
    assert worse.policy - worse.base == pytest.approx(-0.2)
    assert (worse.low, worse.high) == (None, None) and worse.few  # two triplets tell little
    assert gains(tasks, preferences, {})[Task.REMOVAL, quality] == Gain(2, worse.preference)


def test_what_was_not_measured_is_left_out(tmp_path):
    empty = ReportInputs("Nothing yet", *({},) * 8)
    assert _Page(write_report(tmp_path, empty).read_text("utf-8")).headings == []

    unmeasured = Curve(np.arange(3), np.full(3, math.nan))
    page = write_report(
        tmp_path,
        ReportInputs("NaN", {(Task.FILL, DIMENSIONS[Task.FILL][0]): unmeasured}, *({},) * 7),
    )
    assert _Page(page.read_text("utf-8")).headings == ["Reward over training"]
    summary = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    assert summary["rewards"]["fill"]["structure"]["end"] is None
    assert summary["rewards"]["fill"]["structure"]["points"] == [[0, None], [1, None], [2, None]]


def task_report(gsb, rewards=None, **rest):
    """Only what a test is about."""
    nothing = dict.fromkeys(("gains", "judge", "monitors", "metrics", "grids", "settings"), {})
    return ReportInputs(title="t", gsb=gsb, rewards=rewards or {}, **nothing | rest)


def verdicts(good, same, bad, task=Task.REMOVAL):
    found = [Verdict.GOOD] * good + [Verdict.SAME] * same + [Verdict.BAD] * bad
    return good_same_bad(Comparison(str(i), task, v) for i, v in enumerate(found))


def test_opinions_that_contradict_each_other_are_told():
    better, worse, level = verdicts(60, 30, 10), verdicts(10, 70, 20), verdicts(34, 32, 34)
    (told,) = remarks(task_report({"by the judge": better, "by the oracle": worse}))
    assert told == (
        "Object removal: Good − Bad is +50.0 % by the judge, but -10.0 % by the oracle."
    )
    assert remarks(task_report({"by the judge": better, "by the oracle": better})) == []
    # neither is sure: 1 triplet more on this side or the other
    unsure = {"by the judge": verdicts(35, 31, 34), "by the oracle": verdicts(34, 31, 35)}
    assert remarks(task_report(unsure)) == [] == remarks(task_report({"by the judge": level}))

    falls = {
        (Task.REMOVAL, Dimension.REMOVAL_QUALITY): Curve(np.arange(20), np.linspace(0.6, 0.5, 20))
    }
    (told,) = remarks(task_report({"by people": better}, falls))
    assert "reward fell from 0.60 to 0.50 during training, although Good − Bad is +50.0" in told
    assert remarks(task_report({"by people": worse}, falls)) == []


def test_signs_of_reward_hacking_are_told():
    """A look that leaves its band from where it began, and a gap that is open at the end."""

    def told(name, start, end):
        curve = Curve(np.arange(20), np.linspace(start, end, 20))
        return remarks(dataclasses.replace(task_report({}), monitors={name: curve}))

    (warning,) = told("sharpness", 0.7, 1.0)
    assert "The sharpness of the policy's images" in warning and "from 0.71 to 0.99" in warning
    assert len(told("brightness", 1.0, 0.7)) == 1
    assert told("contrast", 0.6, 0.65) == [] == told("saturation", 0.5, 2.0)
    (warning,) = told("held_out_gap", 0.0, 0.2)
    assert "0.19 above the held-out judge's" in warning
    assert told("held_out_gap", 0.0, 0.08) == []


def test_small_data_is_told_and_grey(tmp_path):
    judge = {
        (Task.FILL, Dimension.STRUCTURE): JudgeAccuracy(1, 1.0, 1.0, 0.0, 0.0),
        (Task.REMOVAL, Dimension.REMOVAL_QUALITY): JudgeAccuracy(200, 0.99, 0.9, 0.0, 0.0),
    }
    triplets = dict.fromkeys(TASKS, (8, 0)) | {Task.FILL: (30, 1), Task.REMOVAL: (200, 150)}
    inputs = task_report(
        {"by the judge": verdicts(1, 0, 0, Task.FILL)}, judge=judge, triplets=triplets
    )
    told = "\n".join(remarks(inputs))
    assert "Not compared, because there are no held-out triplets: image extend with prompt" in told
    assert "Too few held-out triplets for a conclusion (grey): image fill (1)." in told
    assert "triplets: image fill 1 of 30, object removal 150 of 200" in told
    assert "fewer than 20 pairs in some dimensions of: image fill (grey)" in told
    text = write_report(tmp_path, inputs).read_text("utf-8")
    assert '<span class="few">100.0<small>1 pair</small></span>' in text
    assert '<span class="better">99.0</span><small>96–100</small>' in text
    assert all(remark in html.unescape(text) for remark in remarks(inputs))


def test_a_truth_stands_only_where_it_is_known(report, tmp_path):
    whole = report[0]

    def without(tasks):
        grids = {
            task: [dataclasses.replace(row, truth=None) for row in rows] if task in tasks else rows
            for task, rows in whole.grids.items()
        }
        bare = ImageMetrics(5.2, 22.0, 0.2)
        metrics = {
            editor: {task: bare if task in tasks else one for task, one in found.items()}
            for editor, found in whole.metrics.items()
        }
        return dataclasses.replace(whole, grids=grids, metrics=metrics)

    text = write_report(tmp_path / "some", without({Task.REMOVAL})).read_text("utf-8")
    assert "PSNR" in text and "image fill 1 of 1" in text and "object removal 0 of 1" in text
    assert text.count('alt="truth: ') == 2 * (len(TASKS) - 1)
    text = write_report(tmp_path / "none", without(set(TASKS))).read_text("utf-8")
    assert "PSNR" not in text and "chroma − truth" not in text and 'alt="truth: ' not in text
    assert "No triplet has a target" in text and "drift outside" in text
    assert _Page(text).open == [] and _Page(text).images == 4 * 2 * len(TASKS)


def test_smoothing_is_a_mean_of_measured_neighbours():
    curve = Curve(np.arange(5), np.array([0.0, 3.0, math.nan, 6.0, 0.0]))
    smooth = curve.smoothed(3)
    np.testing.assert_array_equal(smooth.steps, [0, 1, 3, 4])
    np.testing.assert_allclose(smooth.values, [1.5, 3.0, 3.0, 3.0])


def test_the_sheet_shows_every_picture_under_its_name():
    rng = np.random.default_rng(0)
    pictures = {
        name: rng.integers(0, 256, (64, 64) if name == "mask" else (64, 64, 3), np.uint8)
        for name in COLUMNS
    }
    row = GridRow(caption="a red apple", **pictures)
    sheet = picture_sheet({Task.REMOVAL: [row], Task.FILL: [row, row]})
    assert sheet.shape == (2 * HEADER + 2 * (128 + GAP + LABEL), 10 * (128 + GAP) + 3 * GAP, 3)
    found = [
        sheet[top : top + 128 : 2, left : left + 128 : 2]
        for top in (2 * HEADER, 2 * HEADER + 128 + GAP + LABEL)
        for left in range(0, 5 * (128 + GAP), 128 + GAP)
    ]
    for picture, name in zip(found, 2 * COLUMNS, strict=True):
        expected = pictures[name] if name != "mask" else pictures[name][..., None]
        np.testing.assert_array_equal(picture, np.broadcast_to(expected, picture.shape))


def test_a_sample_grid_of_a_training_has_headings_and_prompts():
    columns = {name: np.zeros((4, 16, 16, 3), np.float32) for name in ("source", "policy")}
    grid = sample_grid(200, columns, ["fill: a red apple", "removal: remove"])
    side = 128 + GAP
    assert grid.shape == (2 * HEADER + 2 * (side + LABEL), 2 * side, 3)
    assert (grid[2 * HEADER, 0] == 128).all()  # 0 of [-1, 1]
    written = (grid < 255).any(axis=-1)
    for top, left in ((0, 0), (HEADER, 0), (HEADER, side), (2 * HEADER + side - GAP, 0)):
        assert written[top : top + LABEL, left : left + 30].any()
