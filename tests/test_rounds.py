"""Rounds: their stages, what makes them stale, who makes which candidate, who is asked."""

import collections
import dataclasses
import json
import pathlib

import numpy as np
import pytest
from ml_collections import FrozenConfigDict
from PIL import Image
from test_annotate_stage import COUNT, SIZE, context_of, write_run

import onereward_jax
from onereward_jax.annotation import PreferenceStore
from onereward_jax.annotation.picture_digests import pixel_digest
from onereward_jax.annotation.web_settings import sets_in
from onereward_jax.chain import fingerprints
from onereward_jax.chain.rounds import in_round
from onereward_jax.chain.staleness import Action, compare, identity, reads_of, stage_inputs
from onereward_jax.common.config_files import load_config
from onereward_jax.common.user_errors import WaitingForPeople
from onereward_jax.data.triplets import Triplets
from onereward_jax.stages import annotate
from onereward_jax.stages.candidate_editors import POLICY, editor_of
from onereward_jax.stages.candidate_plans import plan_candidates
from onereward_jax.stages.own_stages import stages_of
from onereward_jax.stages.preference_stores import STORE
from onereward_jax.tasks import TASKS

ROOT = pathlib.Path(onereward_jax.__file__).parents[1]
LETTERS = {Action.UNCHANGED: ".", Action.GOES_ON: "+", Action.STARTS_OVER: "!"}
NAMES = """data embed candidates annotate reward rl candidates-2 annotate-2 reward-2 rl-2
    candidates-3 annotate-3 reward-3 rl-3 evaluate export""".split()


def mini(**fields):
    config = load_config(f"{ROOT}/configs/mini.py")
    with config.unlocked(), config.ignore_type():
        config.update_from_flattened_dict(
            {name.replace("__", "."): value for name, value in fields.items()}
        )
    return config


def inputs(config, workdir):
    """Name -> (stage, its config), and the inputs of each, as `chain.runner` finds them."""
    config, stages = stages_of(config)
    config, found, identities = FrozenConfigDict(config), {}, {}
    present = (stage for stage in stages if stage.name in config.stages)
    table = {stage.name: (stage, stage.configured(config)) for stage in present}
    for name, (stage, own) in table.items():
        earlier = {one: identities[one] for one in reads_of(stage, own) if one in identities}
        found[name] = stage_inputs(stage, own, workdir, earlier)
        identities[name] = identity(stage, own, found[name])
    return table, found


def verdicts(then, config, workdir):
    """A letter per stage: unchanged, goes on, starts over; "n": it is new."""
    table, now = inputs(config, workdir)
    return "".join(
        LETTERS[compare(stage, own, then[name], now[name]).action] if name in then else "n"
        for name, (stage, own) in table.items()
    )


def test_a_changed_field_reruns_its_round_and_later_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprints, "of_model", lambda folder: "model")
    table, then = inputs(mini(rounds=3), tmp_path)
    assert list(table) == NAMES
    #          round 1  2     3     evaluate, export
    expected = {
        "..|..!!|!!!!|!!!!|!!": {"reward__batch_size": 4},
        "..|..+!|!!!!|!!!!|!!": {"reward__steps": 1000},
        "..|...+|!!!!|!!!!|!!": {"rl__steps": 1000},
        "..|....|+!!!|!!!!|!!": {"later_rounds__train": 100},
        "..|....|!!!!|!!!!|!!": {"later_rounds__from_policy": 1},
        "..|....|..+!|!!!!|!!": {"later_rounds__reward_steps": 1000},
        "..|....|...+|!!!!|!!": {"later_rounds__rl_steps": 1000},
        "..|....|..!!|!!!!|!!": {"later_rounds__judge": "last"},
        "..|....|...!|!!!!|!!": {"later_rounds__rl": "base"},
    }
    for verdict, fields in (
        *expected.items(),
        ("..|....|..!!|!!!!|!!", {"later_rounds__share": 0.5}),
    ):
        assert verdicts(then, mini(rounds=3, **fields), tmp_path) == verdict.replace("|", ""), (
            fields
        )
    # The half that nobody set is two of four; one more round leaves the earlier ones as they are.
    assert verdicts(then, mini(rounds=3, later_rounds__from_policy=2), tmp_path) == "." * 16
    _, one = inputs(mini(), tmp_path)
    assert verdicts(one, mini(rounds=2), tmp_path) == "." * 6 + "nnnn" + "!!"


def test_each_stage_reads_its_round_and_the_last_policy(tmp_path):
    config, stages = stages_of(mini(rounds=3, later_rounds__judge="last"))
    config = FrozenConfigDict(config)
    table = {stage.name: stage for stage in stages}

    def read(name):
        return set(reads_of(table[name], table[name].configured(config)))

    assert read("candidates-3") == {"data", "embed", "rl-2"}
    assert read("annotate-3") == {"data", "candidates-3"}
    pairs = {in_round(name, n) for name in ("candidates", "annotate") for n in (1, 2, 3)}
    assert read("reward-3") == {"data", "reward-2"} | pairs
    assert read("rl-3") >= {"data", "embed", "reward-3", "rl-2"}
    assert read("evaluate") >= {"rl-3", "annotate-3", "reward", "reward-2", "reward-3"}
    assert read("export") == {"data", "reward-3", "rl-3", "evaluate"}
    last = table["reward-3"].configured(config)
    assert last.models.judge == "stage:reward-2/judge"
    seeds = {table[in_round("rl", n)].configured(config).seed for n in (1, 2, 3)}
    assert len(seeds) == 3 and last.seed == config.seed


def test_what_rounds_need_is_told_in_one_sentence():
    with pytest.raises(ValueError, match="config.rounds is 2, but config.stages lacks annotate: "):
        stages_of(mini(rounds=2, stages=("data", "embed", "candidates", "reward", "rl")))
    config = FrozenConfigDict(mini(rounds=2, later_rounds__from_policy=5))
    with pytest.raises(ValueError, match="from_policy is 5, but config.candidates.count is 4"):
        list(plan_candidates(config, "train", Named(40), None, 2))


class Named(Triplets):
    """As many triplets of each task, without their pictures."""

    def __init__(self, count):
        self.tasks = np.repeat(np.arange(len(TASKS), dtype=np.int32), count)
        self.sizes = np.full((len(self.tasks), 2), SIZE, np.int32)
        self.name = "named"

    def column(self, name):
        return [f"{task}-{number}" for number, task in enumerate(self.tasks)]


def test_candidates_of_a_later_round_are_of_both_editors_and_of_other_triplets():
    """Half the triplets in each of two rounds are as many answers as one round has."""
    source = Named(40)

    def planned(number, **fields):
        config = FrozenConfigDict(mini(rounds=3, **fields))
        return [plan.candidate for plan in plan_candidates(config, "train", source, None, number)]

    def names(plans):
        return {one.triplet_id for one in plans}

    alone = planned(1, candidates__train=80)
    halves = [planned(n, candidates__train=40, later_rounds__train=40) for n in (1, 2)]
    assert len(alone) == sum(map(len, halves))
    assert names(alone) == names(halves[0]) | names(halves[1])
    assert not names(halves[0]) & names(halves[1])
    assert {editor_of(one.picture) for one in halves[0]} == {"base"}
    places = collections.Counter()
    by_triplet = collections.defaultdict(list)
    for one in halves[1]:
        by_triplet[one.triplet_id].append(editor_of(one.picture))
        places[one.index] += editor_of(one.picture) == POLICY
    assert {editors.count(POLICY) for editors in by_triplet.values()} == {2}
    assert min(places[index] for index in range(4)) >= 10  # of 40: no place is the policy's
    same = planned(2, candidates__train=40, later_rounds__triplets="same")
    assert names(same) == names(halves[0])
    assert not {one.noise_seed for one in same} & {one.noise_seed for one in halves[0]}
    # Once all are used, the first ones come again.
    again = planned(3, candidates__train=80, later_rounds__train=80)
    assert names(again) == names(alone)


def test_people_are_asked_blindly_about_a_later_round(tmp_path):
    first = write_run(tmp_path, range(3))
    workdir = first.workdir
    (workdir / "candidates").rename(workdir / "candidates-2")
    rng, made = np.random.default_rng(0), workdir / "candidates-2"
    with PreferenceStore(made / STORE) as store:
        drawn = store.candidates()
    (made / STORE).unlink()
    policy = {}
    with PreferenceStore(made / STORE) as store:
        for number, one in enumerate(drawn):
            pixels = rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8)
            by_policy = one.index == (number // COUNT) % COUNT  # not always the same place
            picture = f"{number}-policy.png" if by_policy else f"{number}.png"
            Image.fromarray(pixels).save(made / picture)
            changed = {"picture": picture, "digest": pixel_digest(pixels)}
            store.add_candidates([dataclasses.replace(one, **changed)])
            if by_policy:
                policy[one.triplet_id] = one.index
    context = dataclasses.replace(context_of(workdir), stage="annotate-2", round=2)
    (workdir / "annotate-2").mkdir()
    with pytest.raises(
        WaitingForPeople, match=r"^annotate: round 2: 0 of 18 questions .*questions-2"
    ):
        annotate.run(context)
    folder = workdir / "questions-2"
    assert not (workdir / "questions").exists()
    assert list(sets_in(workdir)) == ["questions", "questions-2", "questions-ab"]
    shown = [path for path in folder.rglob("*.png") if path.name[0].isdecimal()]
    assert len(shown) == len(drawn)
    assert len({path.stat().st_mtime_ns for path in shown}) == 1
    assert "policy" not in (folder / "questions.jsonl").read_text() + "".join(map(str, shown))
    lines = [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]
    for line in lines:  # the policy is always preferred
        best = policy[line["triplet"]]
        line |= {"best": best, "worst": 1 - best}
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = annotate.run(context)
    assert results["pairs"] == 18
    assert results["policy_better"] == "100.0 % (18 pairs with the base)"
