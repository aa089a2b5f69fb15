"""Who gets which question: leases, overlap, gold questions, fifty annotators at once.

On SQLite and on PostgreSQL.
"""

import collections
import concurrent.futures
import contextlib

import pytest
import sqlalchemy as sa
from postgresql_server import new_database
from web_annotators import (
    SET,
    Browser,
    served,
    token_of,
    write_gold,
    write_questions,
)

from onereward_jax.annotation.server import AnswerDatabase, stored_answers
from onereward_jax.annotation.server.question_files import read_questions
from onereward_jax.annotation.server.tables import LEASES
from onereward_jax.annotation.web_settings import database_url
from onereward_jax.tasks import Task


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    """The URL of an empty database."""
    if request.param == "sqlite":
        return database_url("", tmp_path)
    return new_database(request.getfixturevalue("postgresql"))


@contextlib.contextmanager
def people(workdir, database, *names, **settings):
    """A server, and a browser per annotator."""
    with served(workdir, database=database, **settings) as server:
        yield [Browser(server.address, token_of(workdir, name, database)) for name in names]


def expire(url):
    """All leases end now."""
    with contextlib.closing(AnswerDatabase(url)) as database, database.writing() as connection:
        connection.execute(sa.update(LEASES).values(expires_at=0.0))


def question_numbers(*items):
    return [int(item["item"].rpartition("-")[2]) for item in items]


def answers_of(workdir, url):
    with contextlib.closing(AnswerDatabase(url)) as database:
        return stored_answers(database, SET, read_questions(workdir / SET / "questions.jsonl"))


def test_a_reload_and_a_second_tab_get_the_same_question_and_others_the_next(tmp_path, database):
    write_questions(tmp_path, 3)
    with people(tmp_path, database, "ann", "ben") as (ann, ben):
        first = ann.next()
        tab = Browser(str(ann.http.base_url), token := token_of(tmp_path, "cem", database))
        assert tab.next()["item"] != first["item"]
        again = Browser(str(ann.http.base_url), token)
        assert again.next() == tab.next() | {"lease_expires": again.next()["lease_expires"]}
        assert ann.next()["pictures"] == first["pictures"]  # in the same order
        assert question_numbers(first, tab.next(), ben.next()) == [0, 1, 2]
        dan = Browser(str(ann.http.base_url), token_of(tmp_path, "dan", database))
        assert dan.next() is None and dan.session()["sets"][0]["left_for_me"] == 0


def test_a_lease_expires_unless_it_is_renewed_and_is_lost_once_another_has_it(tmp_path, database):
    write_questions(tmp_path, 1, task=Task.FILL)
    with people(tmp_path, database, "ann", "ben", lease_minutes=1.0) as (ann, ben):
        item = ann.next()
        assert ann.put(item, "structure", best=0, worst=1).status_code == 200
        assert ben.next() is None
        expire(database)
        # Late, but nobody has asked for it: ann goes on.
        assert ann.http.post(f"/api/items/{item['item']}/lease").status_code == 200
        assert ben.next() is None
        expire(database)
        assert ben.next()["item"] == item["item"]
        lost = ann.put(item, "consistency", best=0, worst=1)
        assert lost.status_code == 409 and "others have it now" in lost.json()["error"]
        assert ann.http.post(f"/api/items/{item['item']}/lease").status_code == 409
        assert ann.next() is None
        # Her answer is kept, and counts.
        assert ann.http.get(f"/api/items/{item['item']}").json()["answers"].keys() == {"structure"}
        ben.work()
        expire(database)
        assert ann.next() is None
        assert ann.put(item, "consistency", best=0, worst=1).status_code == 409
    found = answers_of(tmp_path, database)
    assert collections.Counter(one.annotator for one in found.given) == {"ann": 1, "ben": 4}


def test_a_question_left_for_later_comes_last_unless_another_has_it_by_then(tmp_path, database):
    write_questions(tmp_path, 3)
    with people(tmp_path, database, "ann", "ben", "cem") as (ann, ben, cem):
        first = ann.next()
        second = ann.next(first["item"])
        assert question_numbers(first, second, ben.next()) == [0, 1, 2]
        ann.answer(second)
        assert cem.next() is None
        assert ann.next(second["item"])["item"] == first["item"]
        expire(database)
        assert cem.next()["item"] == first["item"]
        assert ann.put(first, "removal_quality", best=1, worst=0).status_code == 409
        assert question_numbers(ann.next()) == [2]


def test_a_page_that_asks_ahead_twice_gets_one_question_and_each_keeps_its_number(
    tmp_path, database
):
    write_questions(tmp_path, 3)
    with people(tmp_path, database, "ann", "ben") as (ann, ben):
        first = ann.next()
        ann.answer(first)
        ahead = [ann.next(first["item"]) for _ in range(2)]
        assert ahead[0]["item"] == ahead[1]["item"] and ahead[0]["number"] == 2
        assert ann.http.get(f"/api/items/{first['item']}").json()["number"] == 1
        last = ben.next()
        assert question_numbers(first, *ahead, last) == [0, 1, 1, 2]
        assert (last["number"], last["total"]) == (1, 3)


def test_gold_questions_are_for_everyone_and_others_for_as_many_as_the_overlap_says(
    tmp_path, database
):
    write_questions(tmp_path, 12)
    write_gold(tmp_path / "gold.jsonl", [3, 4, 5])
    names = ("ann", "ben", "cem")
    settings = dict(overlap=2, gold=tmp_path / "gold.jsonl", gold_every=3)
    with people(tmp_path, database, *names, **settings) as browsers:
        orders = [[int(name[-5:]) for name in browser.work()] for browser in browsers]
    gold = [[place for place, n in enumerate(order) if n in (3, 4, 5)] for order in orders]
    # One in three, until all nine others are taken; then the rest.
    assert gold[0] == gold[1] == [2, 5, 8]
    assert [n for n in orders[0] if n not in (3, 4, 5)] == [0, 1, 2, 6, 7, 8, 9, 10, 11]
    assert sorted(orders[2]) == [3, 4, 5]  # all others have two annotators
    counts = collections.Counter(one.digest for one in answers_of(tmp_path, database).given)
    assert sorted(counts.values()) == [2] * 9 + [3] * 3


def test_fifty_annotators_at_once_answer_every_question_as_often_as_asked(tmp_path, database):
    write_questions(tmp_path, 24, task=Task.FILL)
    overlap, names = 3, [f"annotator {number}" for number in range(50)]
    with (
        people(tmp_path, database, *names, overlap=overlap) as browsers,
        concurrent.futures.ThreadPoolExecutor(len(names)) as threads,
    ):
        done = list(threads.map(Browser.work, browsers))
    begun = collections.Counter(item for items in done for item in items)
    assert len(begun) == 24 and set(begun.values()) == {overlap}
    assert all(len(set(items)) == len(items) for items in done)
    found = answers_of(tmp_path, database)
    assert len(found.given) == 24 * 4 * overlap and not found.elsewhere
    counts = collections.Counter((one.digest, one.dimension) for one in found.given)
    assert set(counts.values()) == {overlap} and len(counts) == 96


def test_many_tabs_of_one_annotator_at_once_get_one_question(tmp_path, database):
    write_questions(tmp_path, 20)
    with (
        people(tmp_path, database, "ann") as (ann,),
        concurrent.futures.ThreadPoolExecutor(16) as threads,
    ):
        items = list(threads.map(lambda _: ann.next()["item"], range(32)))
        assert len(set(items)) == 1
        # The same save from all of them, and different ones: one answer each time.
        item = ann.next()
        saves = threads.map(
            lambda n: ann.put(item, "removal_quality", "same-key", best=n % 3, worst=3), range(16)
        )
        assert {one.status_code for one in saves} == {200}
        saves = threads.map(
            lambda n: ann.put(item, "removal_quality", best=n % 3, worst=3), range(16)
        )
        assert {one.status_code for one in saves} == {200}
    assert len(answers_of(tmp_path, database).given) == 1


def test_questions_that_change_are_served_and_answers_return_with_them(
    tmp_path, database, monkeypatch
):
    monkeypatch.setattr("onereward_jax.annotation.server.question_files.LOOK_SECONDS", 0.0)
    write_questions(tmp_path, 2)
    path = tmp_path / SET / "questions.jsonl"
    before = path.read_bytes()
    with people(tmp_path, database, "ann") as (ann,):
        ann.work()
        path.unlink()
        assert ann.next() is None and ann.session()["sets"][0]["total"] == 0
        write_questions(tmp_path, 1, candidates=3)
        assert answers_of(tmp_path, database).answered == 0
        assert len(answers_of(tmp_path, database).elsewhere) == 2
        assert len(ann.work()) == 1
        path.write_bytes(before)
        assert ann.next() is None
        assert ann.session()["sets"][0] | {"title": ""} == {
            "set": SET, "title": "", "total": 2, "answered_by_me": 2, "left_for_me": 0
        }  # fmt: skip
        assert answers_of(tmp_path, database).answered == 2


def test_two_runs_that_share_a_database_serve_their_own_questions(tmp_path, database):
    for name, count in (("one", 3), ("two", 2)):
        write_questions(tmp_path / name, count)  # the same pictures: the same questions
    with (
        people(tmp_path / "one", database, "ann") as (ann,),
        people(tmp_path / "two", database, "ben") as (ben,),
    ):
        assert question_numbers(ann.next(), ben.next()) == [0, 1]
        assert [browser.session()["sets"][0]["total"] for browser in (ann, ben)] == [3, 2]
        assert len(ben.work()) == 1


def test_a_revoked_annotator_frees_what_was_begun(tmp_path, database):
    from onereward_jax.annotation.server import revoke

    write_questions(tmp_path, 1)
    with people(tmp_path, database, "ann", "ben") as (ann, ben):
        ann.next()
        assert ben.next() is None
        with contextlib.closing(AnswerDatabase(database)) as opened:
            revoke(opened, "ann")
        assert ben.next() is not None


def test_other_dimensions_of_a_question_ask_only_those_who_lack_an_answer(tmp_path, database):
    write_questions(tmp_path, 1, task=Task.FILL)
    file = tmp_path / SET / "questions.jsonl"
    four = file.read_text()
    for lines, left in ((3, 1), (2, 0), (3, 0), (4, 1)):
        file.write_text("".join(four.splitlines(keepends=True)[:lines]))
        with people(tmp_path, database, "ann") as (ann,):
            assert ann.session()["sets"][0]["left_for_me"] == left, lines
            if left:
                ann.work()
