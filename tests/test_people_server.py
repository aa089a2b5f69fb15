"""The annotation server against requests that no page of ours makes: it refuses them, in words."""

import contextlib
import json
import os
import sqlite3

import httpx
import pytest
import sqlalchemy as sa
from web_annotators import (
    AB,
    SET,
    Browser,
    served,
    settings_of,
    token_of,
    write_comparisons,
    write_gold,
    write_questions,
)

from onereward_jax.annotation.answers import read_answers
from onereward_jax.annotation.server import AnswerDatabase, annotators, revoke
from onereward_jax.annotation.server.question_files import read_questions
from onereward_jax.annotation.server.tables import APPEND_ONLY
from onereward_jax.annotation.web_settings import WebSettings, database_url
from onereward_jax.tasks import Task


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    write_questions(folder, 2, task=Task.FILL)
    write_comparisons(folder, 4)
    (folder / "secret.txt").write_text("secret")
    return folder


@pytest.fixture(scope="module")
def server(workdir):
    with served(workdir, logins_per_minute=5, writes_per_minute=1000) as running:
        yield running


@pytest.fixture(scope="module")
def ann(workdir, server):
    return Browser(server.address, token_of(workdir, "ann"))


def audit(workdir, where="1"):
    with contextlib.closing(sqlite3.connect(workdir / "people" / "people.sqlite")) as opened:
        return opened.execute(f"SELECT action, annotator FROM audit WHERE {where}").fetchall()


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


def test_only_a_token_opens_the_server_and_only_an_admins_opens_the_admin_page(
    workdir, server, ann
):
    stranger = httpx.Client(base_url=server.address)
    item = ann.next()
    picture = item["pictures"][0]
    for path in ("/api/session", picture, "/api/admin/summary", "/api/admin/export?set=questions"):
        assert stranger.get(path).status_code == 401
    for path in ("/api/admin/summary", "/api/admin/export?set=questions"):
        assert error(ann.http.get(path)) == (403, "only admins may see this")
    lea = Browser(server.address, token_of(workdir, "lea", admin=True))
    assert lea.http.get("/api/admin/summary").status_code == 200
    assert ann.http.get(picture).headers["content-type"] == "image/png"
    assert ann.http.get(picture).headers["cache-control"].startswith("private")
    # Neither numbers of candidates nor names of triplets are in what the page gets.
    told = json.dumps({key: value for key, value in item.items() if key != "item"})
    assert "train/" not in told and ".png" not in told
    for name in ("/docs", "/redoc", "/openapi.json"):
        assert ann.http.get(name).status_code == 404


def test_wrong_tokens_are_counted_per_address_and_written_down(workdir):
    with served(workdir, logins_per_minute=3) as server:
        token = token_of(workdir, "max")
        stranger = httpx.Client(base_url=server.address)
        for wrong in ("", "1", "1-", f"{token}x", token.replace("-", "0-", 1), "x" * 200, "²-x"):
            code, sentence = error(stranger.post("/api/login", json={"token": wrong}))
            assert code in (401, 429) and "link" in sentence
        assert code == 429
        assert stranger.post("/api/login", json={"token": token}).status_code == 429
    refused = audit(workdir, "action = 'refused login'")
    assert len(refused) == 3


def test_a_cookie_is_not_for_scripts_or_other_sites_and_a_revoked_token_ends_it(workdir, server):
    eve = Browser(server.address, token := token_of(workdir, "eve"))
    cookie = httpx.post(f"{server.address}/api/login", json={"token": token}).headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Secure" not in cookie
    item = eve.next()
    token_of(workdir, "eve")  # a new token ends the former and its logins
    assert eve.http.get("/api/session").status_code == 401
    assert eve.put(item, item["dimensions"][0], best=0, worst=1).status_code == 401
    eve = Browser(server.address, token_of(workdir, "eve"))
    assert eve.http.post("/api/logout").status_code == 204
    assert eve.http.get("/api/session").status_code == 401
    eve = Browser(server.address, token := token_of(workdir, "eve"))
    with contextlib.closing(AnswerDatabase(settings_of(workdir).database)) as database:
        revoke(database, "eve")
        (found,) = [one for one in annotators(database) if one.name == "eve"]
        assert found.revoked
        with pytest.raises(ValueError, match="there is no annotator 'nobody'"):
            revoke(database, "nobody")
    assert eve.http.get("/api/session").status_code == 401
    code, _ = error(httpx.post(f"{server.address}/api/login", json={"token": token}))
    assert code == 401
    assert [action for action, _ in audit(workdir, "annotator = 'eve'")][-2:] == [
        "revoke", "refused login"
    ]  # fmt: skip


def test_one_browser_may_be_logged_in_to_two_servers_of_a_machine(workdir, ann, tmp_path):
    write_questions(tmp_path, 1)
    with served(tmp_path) as other:
        ben = Browser(other.address, token_of(tmp_path, "ben"))
        for cookie in ann.http.cookies.jar:  # they have the same host
            ben.http.cookies.jar.set_cookie(cookie)
        assert ben.session()["name"] == "ben" and len(ben.http.cookies.jar) == 2


def test_writes_need_the_csrf_token_our_origin_and_our_host_name(server, ann):
    path, body = f"/api/sets/{SET}/next", {"after": None}
    for token in ("", "x", "é"):
        headers = {"X-CSRF-Token": token.encode()}
        code, sentence = error(ann.http.post(path, json=body, headers=headers))
        assert (code, sentence) == (403, "the page is out of date: load it again")
    for origin in ("https://evil.example", "null", server.address + "0", "http://localhost"):
        assert ann.http.post(path, json=body, headers={"Origin": origin}).status_code == 403
    other = {"Sec-Fetch-Site": "cross-site"}
    assert ann.http.post(path, json=body, headers=other).status_code == 403
    ours = {"Origin": server.address, "Sec-Fetch-Site": "same-origin"}
    assert ann.http.post(path, json=body, headers=ours).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "10.0.0.1", "", "[", "a:b:c"):
        assert ann.http.get("/api/session", headers={"Host": host}).status_code == 400
    assert ann.http.get("/api/session", headers={"Host": "localhost:1"}).status_code == 200


def test_pages_may_load_nothing_from_elsewhere(server):
    for path in ("/", "/api/session", "/nothing"):
        headers = httpx.get(server.address + path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy and "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


def test_the_headers_of_pictures_do_not_tell_when_they_were_made(workdir, ann):
    item = ann.next()
    for number, path in enumerate(sorted((workdir / SET).rglob("*.png"))):
        os.utime(path, (1.7e9 + 60 * number, 1.7e9 + 60 * number))
    answers = [ann.http.get(path) for path in (item["image"], *item["pictures"])]
    assert {one.headers["last-modified"] for one in answers} == {"Sat, 01 Jan 2000 00:00:00 GMT"}
    assert all(one.headers["etag"].strip('"') in one.url.path for one in answers)


def test_no_path_of_a_client_reaches_the_disk(workdir, server, ann):
    names = [
        *("..%2f..%2fsecret.txt", "%2e%2e/secret.txt", "../secret.txt", "..\\secret.txt"),
        *("/etc/passwd", "%2fetc%2fpasswd", "....//secret.txt", "%0a", "%00", "x" * 5000),
        *("app.py", "__init__.py", "people.sqlite", "questions.jsonl", "image.png", "~"),
        str(workdir / "secret.txt"),
    ]
    for name in names:
        for top in ("/pictures/", "/guideline-pictures/", "/", "/api/items/"):
            path = httpx.URL(server.address).copy_with(raw_path=(top + name).encode())
            answer = ann.http.get(path)
            assert answer.status_code == 404, (top, name)
            assert "secret" not in answer.text and "root:" not in answer.text
    bad = workdir / "bad" / "questions.jsonl"
    bad.parent.mkdir()
    (line, *_) = (workdir / SET / "questions.jsonl").read_text().splitlines()
    for picture in ("../secret.txt", str(workdir / "secret.txt"), "a/../../secret.txt"):
        bad.write_text(json.dumps(json.loads(line) | {"mask": picture}))
        with pytest.raises(ValueError, match="questions.jsonl, line 1 .* is outside"):
            read_questions(bad)


def test_bodies_that_are_large_or_wrong_are_refused_in_one_sentence(server, ann):
    item = ann.next()
    first = item["dimensions"][0]
    path = f"/api/items/{item['item']}/answers/{first}"
    for content in (b"x" * 20_000, iter([b"x" * 9_000, b"x" * 9_000])):
        code, sentence = error(ann.http.put(path, content=content))
        assert (code, sentence) == (413, "a request may have 16384 bytes at most")
    good = {"best": 0, "worst": 1, "seconds": 1.0, "key": "12345678"}
    wrong = [
        *({"best": 4}, {"best": -1}, {"best": 1}, {"best": None}, {"best": "0"}, {"best": 0.5}),
        *({"best": True}, {"usable": True}, {"seconds": -1}, {"seconds": "nan"}, {"key": ""}),
        {"key": "a null: \0"},  # PostgreSQL stores none
    ]
    for change in wrong:
        code, sentence = error(ann.http.put(path, json=good | change))
        assert code == 400 and "\n" not in sentence, change
    for body in (
        b"",
        b"[]",
        b"{",
        b"\xff",
        json.dumps({**good, "best": None} | {"worst": None})[:-9],
    ):
        assert error(ann.http.put(path, content=body))[0] == 400
    del good["worst"]
    assert error(ann.http.put(path, json=good)) == (400, "best and worst must be given")
    assert error(ann.put(item, "overall", best=0, worst=1))[0] == 400
    assert error(ann.put({"item": "questions.nothing"}, first, best=0, worst=1))[0] == 404
    other = f"{SET}.fill-4-00001"  # a question that ann has not begun
    assert other != item["item"]
    assert error(ann.put({"item": other}, first, best=0, worst=1)) == (
        409, "this question was not given to you"
    )  # fmt: skip
    assert error(ann.http.get(f"/api/items/{other}"))[0] == 403
    assert ann.http.get(f"/api/items/{item['item']}").json()["answers"] == {}


def test_an_annotator_who_answers_too_fast_is_slowed_down(workdir):
    with served(workdir, writes_per_minute=4) as server:
        tim = Browser(server.address, token_of(workdir, "tim"))
        codes = [tim.http.post(f"/api/sets/{AB}/next", json={}).status_code for _ in range(6)]
        assert codes == [200] * 4 + [429] * 2
        assert tim.session()["name"] == "tim"


def test_answers_are_kept_in_candidates_whatever_positions_were_shown(tmp_path):
    write_questions(tmp_path, 3, task=Task.FILL)
    write_comparisons(tmp_path, 4)
    with served(tmp_path) as server:
        ann = Browser(server.address, token_of(tmp_path, "ann", admin=True))
        shown = {}
        for name in (SET, AB):
            item = ann.next(set_name=name)
            while item is not None:
                pictures = [ann.http.get(path).content for path in item["pictures"]]
                shown[item["item"]] = (name, pictures, ann.answer(item), item["kind"])
                item = ann.next(item["item"], name)
        assert {kind for *_, kind in shown.values()} == {"best_worst", "better", "usable"}
        for name in (SET, AB):
            questions = read_questions(tmp_path / name / "questions.jsonl")
            exported = ann.http.get(f"/api/admin/export?set={name}")
            assert "attachment" in exported.headers["content-disposition"]
            (tmp_path / "answers.jsonl").write_text(exported.text)
            found = read_answers(tmp_path / "answers.jsonl", questions)
            assert found.answered == sum(len(one.dimensions) for one in questions)
            of_digest = {one.digest: one for one in questions}
            for answer in found.given:
                _, pictures, said, _ = shown[f"{name}.{answer.digest}"]
                said = said[answer.dimension]
                assert answer.usable == said.get("usable")
                for number, position in (
                    (answer.best, said.get("best")), (answer.worst, said.get("worst"))
                ):  # fmt: skip
                    assert (number is None) == (position is None)
                    if number is not None:
                        file = tmp_path / name / of_digest[answer.digest].candidates[number]
                        assert file.read_bytes() == pictures[position]
    orders = [tuple(pictures) for _, pictures, *_ in shown.values() if len(pictures) == 4]
    assert len(set(orders)) == len(orders)


def test_a_repeated_save_does_nothing_and_a_change_is_kept_in_the_trail(tmp_path):
    write_questions(tmp_path, 1)
    with served(tmp_path) as server:
        ann = Browser(server.address, token_of(tmp_path, "ann"))
        item = ann.next()
        assert ann.put(item, "removal_quality", "first-save", best=0, worst=1).json() == {
            "saved": True, "answered": 1
        }  # fmt: skip
        ann.put(item, "removal_quality", "second-save", best=2, worst=1)
        ann.put(item, "removal_quality", "first-save", best=0, worst=1)  # a late retry
        path = f"/api/items/{item['item']}"
        assert ann.http.get(path).json()["answers"] == {"removal_quality": {"best": 2, "worst": 1}}
        assert ann.session()["sets"][0]["left_for_me"] == 0
        undo = f"{path}/answers/removal_quality?key="
        assert ann.http.delete(undo + "first-undo").json() == {"saved": True, "answered": 0}
        ann.put(item, "removal_quality", "third-save", best=2, worst=0)
        late = ann.http.delete(undo + "first-undo").json()  # another tab sends it again
        assert late == {"saved": True, "answered": 1}
        assert ann.http.delete(undo + "second-undo").json() == {"saved": True, "answered": 0}
        assert ann.http.get(path).json()["answers"] == {}
        assert ann.session()["sets"][0]["left_for_me"] == 1
        assert ann.next()["item"] == item["item"]
    actions = [action for action, _ in audit(tmp_path)]
    assert actions == ["token", "login", "lease", *["answer"] * 2, "undo", "answer", "undo"]


def test_the_audit_trail_can_only_grow(tmp_path, postgresql):
    from postgresql_server import new_database

    for url in (database_url("", tmp_path), new_database(postgresql)):
        token_of(tmp_path, "ann", url)
        with contextlib.closing(AnswerDatabase(url)) as database:
            for statement in (
                "UPDATE audit SET annotator = 'eve'",
                "DELETE FROM audit",
                *(["TRUNCATE audit"] if url.startswith("postgresql") else []),
            ):
                with pytest.raises(sa.exc.DBAPIError, match=APPEND_ONLY):
                    with database.writing() as connection:
                        connection.execute(sa.text(statement))
            with database.reading() as connection:
                assert connection.execute(sa.text("SELECT count(*) FROM audit")).scalar() == 1


def test_databases_that_cannot_be_used_are_named(tmp_path):
    (tmp_path / "text.sqlite").write_text("this is no database " * 100)
    for url, message in (
        ("nonsense", "'nonsense' is no SQLAlchemy URL"),
        ("mysql://a@b/c", "mysql://a@b/c is neither SQLite nor PostgreSQL"),
        ("sqlite://", "names no file"),
        (f"sqlite:///{tmp_path}/text.sqlite", "cannot be opened: file is not a database"),
        ("postgresql://me:pass@/x?host=/nowhere", r"me:\*\*\*@/x.* cannot be opened: connection"),
    ):
        with pytest.raises(ValueError, match=message) as told:
            AnswerDatabase(url)
        assert "pass@" not in str(told.value)
    with pytest.raises(ValueError, match="a database cannot be in a bucket"):
        database_url("gs://bucket/people.sqlite", tmp_path)


def test_the_summary_counts_what_was_said(tmp_path):
    write_questions(tmp_path, 6)
    write_gold(tmp_path / "gold.jsonl", [0, 1], best=0)
    settings = dict(overlap=2, gold=tmp_path / "gold.jsonl", gold_every=2)
    with served(tmp_path, **settings) as server:
        ann = Browser(server.address, token_of(tmp_path, "ann", admin=True))
        ben = Browser(server.address, token_of(tmp_path, "ben"))
        for who in (ann, ben):
            item = who.next()
            while item is not None:  # ann always says the first picture shown, ben never differs
                said = {"best": 0, "worst": 1} if who is ann else {"best": None, "worst": None}
                assert who.put(item, "removal_quality", **said).status_code == 200
                item = who.next(item["item"])
        found = ann.http.get("/api/admin/summary").json()
    one, two = found["annotators"]
    assert (one["name"], one["answers"], one["items"], one["share_none"]) == ("ann", 6, 6, 0.0)
    assert one["position_bias"] == {"first_best": [1.0, 0.0, 0.0, 0.0], "counts": [6, 0, 0, 0]}
    assert one["gold"]["asked"] == 2 and two["gold"] == {"right": 0, "asked": 2}
    assert two["share_none"] == 1.0 and two["median_seconds"] == 1.5
    (cell,) = found["dimensions"]
    assert (cell["answers"], cell["share_none"], cell["gold_asked"]) == (12, 0.5, 4)
    assert cell["alpha"] < 0.0  # they never agree
    assert found["sets"][SET]["finished"] == 6 and found["sets"][SET]["answers"] == 12
    assert sum(one["answers"] for one in found["throughput"]) == 12


def test_a_public_server_is_reached_by_addresses_in_digits_and_its_own_names(tmp_path):
    from onereward_jax.annotation.server import traffic_warning
    from onereward_jax.annotation.server.protection import Hosts

    local = settings_of(tmp_path)
    assert traffic_warning(local) == ""
    public = settings_of(tmp_path, host="0.0.0.0")
    assert "not encrypted" in traffic_warning(public)
    hosts = Hosts(public)
    assert hosts.allow("10.1.2.3:8000") and hosts.allow("[2001:db8::1]:8000")
    assert not hosts.allow("evil.example:8000")
    proxied = settings_of(tmp_path, host="0.0.0.0", url="https://label.example.org")
    assert isinstance(proxied, WebSettings) and traffic_warning(proxied) == ""
    hosts = Hosts(proxied)
    assert hosts.allow("label.example.org")
    assert hosts.same_origin("https://label.example.org", "label.example.org")
    assert not hosts.same_origin("http://label.example.org", "label.example.org")
