"""The routes, one request at a time, without a network."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from server_fakes import FakeJudge, parts, sound

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from judge.server import Settings, create_app
from peav.errors import UserError


@contextmanager
def running(judge=None, **settings):
    """A client of an application with a model."""
    app = create_app(lambda: judge or FakeJudge(), Settings(**settings))
    with TestClient(app, raise_server_exceptions=False) as client:
        for _ in range(200):
            if client.get("/readyz").status_code == 200:
                break
            time.sleep(0.01)
        client.root = Path(app.state.service._root.name)
        yield client


@pytest.fixture(scope="module")
def client():
    with running() as client:
        yield client


@pytest.fixture(autouse=True)
def nothing_is_left(request):
    yield
    if "client" in request.fixturenames:
        assert not list(request.getfixturevalue("client").root.iterdir())


def test_a_score_has_all_fields_and_null_for_what_is_not_measured(client):
    answer = client.post("/v1/score", **parts(prompt="guitar"))
    assert answer.status_code == 200
    assert answer.json() == {
        "prompt": "guitar", "overall": pytest.approx(0.25, abs=1e-4), "recall": None, "precision": None,
        "faithfulness": None, "similarity": 0.06, "presence": None, "notes": ["resampled the target"],
    }  # fmt: skip


def test_a_curve_comes_on_request(client):
    request = parts()
    request["data"]["curve"] = "true"
    curve = client.post("/v1/score", **request).json()["curve"]
    assert curve == {"step": 1.0, "overall": [pytest.approx(0.25, abs=1e-4), None], "recall": [2.0, None],
                     "precision": [3.0, None], "faithfulness": [4.0, None]}  # fmt: skip
    request["data"]["curve"] = "perhaps"
    refused(client.post("/v1/score", **request), 422, "true or false")


def test_not_a_number_is_null(client):
    assert client.post("/v1/score", **parts(sound(0.0))).json()["similarity"] is None


def test_a_ranking_is_best_first_and_names_what_was_sent(client):
    files = [("mixture", sound()), *(("targets", (f"{level}.wav", sound(level))) for level in (0.1, 0.4, 0.2))]
    answer = client.post("/v1/rank", files=files, data={"prompt": "guitar"}).json()
    assert [(row["rank"], row["index"], row["name"]) for row in answer["ranking"]] == [
        (1, 1, "0.4.wav"), (2, 2, "0.2.wav"), (3, 0, "0.1.wav"),
    ]  # fmt: skip
    best = answer["ranking"][0]
    assert best["notes"] == ["resampled target 2"] and best["ranked_by"] == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG"])
def test_formats_are_known_by_their_content(client, format):
    same = sound(0.25, format=format)
    assert client.post("/v1/score", **parts(same, mixture=same)).status_code == 200


def refused(answer, status: int, says: str = "") -> dict:
    """The error of an answer that must be a refusal that gives nothing away."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["request_id"] == answer.headers["x-request-id"]
    assert says in error["message"]
    for secret in (tempfile.gettempdir(), "judge-", "Traceback", "site-packages", ".py"):
        assert secret not in answer.text
    return error


WAV, FLAC = sound(seconds=1.0), sound(seconds=1.0, format="FLAC")
BROKEN = {
    "empty": (b"", "is empty"),
    "truncated wav": (WAV[: len(WAV) // 2], "truncated"),
    "truncated flac": (FLAC[: len(FLAC) // 2], "the target"),
    "header only": (WAV[:44], "the target"),
    "half a header": (WAV[:20], "the target"),
    "text": (b"not a sound at all, but renamed to wav\n" * 9, "is not audio"),
    "huge header": (WAV[:4] + b"\xff\xff\xff\x7e" + WAV[8:40] + b"\xf0\xff\xff\x7e" + WAV[44:], "truncated"),
    "nan": (sound(float("nan"), subtype="FLOAT"), "not a number"),
    "rate of nothing": (WAV[:24] + b"\0\0\0\0" + WAV[28:], "the target"),
    "playlist": (b"#EXTM3U\nfile:///etc/passwd\n", "is not audio"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_sounds_are_told_apart_by_role_and_never_a_500(client, kind):
    content, says = BROKEN[kind]
    files = {"mixture": ("mix.wav", WAV), "target": ("../a.wav", content)}
    refused(client.post("/v1/score", files=files, data={"prompt": "guitar"}), 422, says)


def test_lengths_that_do_not_agree_speak_of_roles(client):
    error = refused(client.post("/v1/score", **parts(sound(seconds=0.1))), 422)
    assert error["message"].startswith("the mixture lasts longer than the target;")


FORMS = {
    "no prompt": ({"files": {"mixture": WAV, "target": WAV}}, 422, "'prompt' is missing"),
    "empty prompt": (parts(prompt="  "), 422, "prompt is empty"),
    "long prompt": (parts(prompt="a" * 501), 422, "501 characters"),
    "endless prompt": (parts(prompt="a" * 5_000), 422, "too long"),
    "no target": ({"files": {"mixture": WAV}, "data": {"prompt": "x"}}, 422, "'target' is missing"),
    "two": ({"files": [("mixture", WAV), ("mixture", WAV)]}, 422, "more than once"),
    "unknown": ({"files": {"stem": WAV}}, 422, "field 'stem' is unknown"),
    "json": ({"json": {"prompt": "x"}}, 415, "multipart/form-data"),
    "nothing": ({}, 415, "multipart/form-data"),
    "no boundary": ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
    "wrong boundary": (
        {"content": b"--a\r\n\r\n", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400, "boundary",
    ),
    "cut": (
        {"content": b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nx',
         "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400, "ends before",
    ),
    "bytes": (
        {"content": b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\xff\r\n--b--\r\n',
         "headers": {"content-type": "multipart/form-data; boundary=b"}}, 422, "UTF-8",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORMS)
def test_forms_that_do_not_hold_what_is_needed(client, kind):
    request, status, says = FORMS[kind]
    refused(client.post("/v1/score", **request), status, says)


def test_too_many_targets():
    with running(targets=2) as client:
        refused(client.post("/v1/rank", files=[("targets", WAV)] * 3), 422, "more than 2 times")


def test_limits_on_size_length_and_what_a_small_file_unpacks_to():
    bomb = sound(0.0, seconds=20.0, format="FLAC")
    assert len(bomb) < 50_000
    with running(upload_bytes=50_000, seconds=30.0, decoded_bytes=100_000) as client:
        refused(client.post("/v1/score", **parts(WAV * 4)), 413, "larger than 50000 bytes")
        refused(client.post("/v1/score", **parts(bomb)), 413, "the target: unpacks to more than")
        assert client.post("/v1/score", **parts()).status_code == 200
    with running(seconds=0.5) as client:
        refused(client.post("/v1/score", **parts(WAV)), 413, "the target: lasts longer than 0.5 s")


def test_token():
    with running(token="open-sesame") as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic open-sesame"},
                        {"authorization": "Bearer"}, {"authorization": "Bearer öpen".encode("latin-1")}):  # fmt: skip
            answer = client.post("/v1/score", headers=headers, **parts())
            refused(answer, 401)
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert client.get("/metrics", headers=headers).status_code == 401
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        right = {"authorization": "bearer open-sesame"}
        assert client.post("/v1/score", headers=right, **parts()).status_code == 200
        assert client.get("/metrics", headers=right).status_code == 200


def test_a_fault_of_the_judge_is_a_500_that_tells_only_the_log(client, caplog):
    with caplog.at_level(logging.INFO, "judge.server"):
        error = refused(client.post("/v1/score", **parts(prompt="bug")), 500)
    assert "secret" not in json.dumps(error)
    failed = next(record for record in caplog.records if record.getMessage() == "failed")
    assert "a secret about" in failed.fields["traceback"] and failed.fields["request_id"] == error["request_id"]


def test_request_ids_are_kept_if_sane_and_the_log_has_one_line_each(client, caplog):
    with caplog.at_level(logging.INFO, "judge.server"):
        for given in ("abc-1.2_3", "a b", "x" * 65, 'x","status":"200', "é".encode("latin-1")):
            answer = client.post("/v1/score", headers={"x-request-id": given}, **parts())
            same = answer.headers["x-request-id"] == given
            assert same == (given == "abc-1.2_3")
    lines = [record.fields for record in caplog.records if record.getMessage() == "request"]
    assert len(lines) == 5 and lines[0]["request_id"] == "abc-1.2_3"
    line = lines[0]
    assert (line["method"], line["path"], line["status"], line["batch"]) == ("POST", "/v1/score", 200, 1)
    assert line["received"] > 3_000 and line["sent"] > 50 and 0 < line["seconds"] < 10


def test_a_record_becomes_one_line_of_json():
    from judge.server.observe import JsonLines

    record = logging.LogRecord("judge.server", logging.INFO, "", 0, "request", (), None)
    record.fields = {"path": "/a\nb", "status": 200}
    line = JsonLines().format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert (found["event"], found["level"], found["path"], found["status"]) == ("request", "info", "/a\nb", 200)
    assert found["time"].endswith("Z")


def test_before_the_model_is_loaded_and_while_stopping():
    judge = FakeJudge()
    judge.hold.clear()

    def load():
        judge.hold.wait(10)
        return judge

    app = create_app(load, Settings())
    with TestClient(app) as client:
        assert client.get("/healthz").status_code == 200
        refused(client.get("/readyz"), 503, "loading")
        answer = client.post("/v1/score", **parts())
        refused(answer, 503, "loading")
        assert int(answer.headers["retry-after"]) > 0
        judge.hold.set()
        for _ in range(200):
            if client.get("/readyz").status_code == 200:
                break
            time.sleep(0.01)
        assert client.post("/v1/score", **parts()).status_code == 200
        app.state.service.is_draining = True
        refused(client.get("/readyz"), 503, "stopping")
        refused(client.post("/v1/score", **parts()), 503, "stopping")
        assert client.get("/healthz").status_code == 200
        folder = Path(app.state.service._root.name)
        assert folder.is_dir()
    assert not folder.exists()


def test_a_model_that_cannot_be_loaded_is_remembered():
    told = []

    def load():
        raise UserError("no such model")

    app = create_app(load, Settings(), lambda: told.append(True))
    with TestClient(app) as client:
        for _ in range(200):
            if told:
                break
            time.sleep(0.01)
        assert client.get("/readyz").status_code == 503
    assert told and str(app.state.service.failure) == "no such model"


def test_metrics_add_up(client):
    def counters():
        lines = [line for line in client.get("/metrics").text.splitlines() if not line.startswith("#")]
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}

    before = counters()
    client.post("/v1/score", **parts())
    client.post("/v1/score", **parts(b"broken"))
    client.get("/some/guess")
    after = counters()

    def grown(name):
        return after[name] - before.get(name, 0)

    assert grown('judge_requests_total{path="/v1/score",method="POST",status="200"}') == 1
    assert grown('judge_requests_total{path="/v1/score",method="POST",status="422"}') == 1
    assert grown('judge_requests_total{path="other",method="GET",status="404"}') == 1
    assert grown('judge_request_seconds_count{path="/v1/score"}') == 2
    assert grown('judge_request_seconds_bucket{path="/v1/score",le="+Inf"}') == 2
    assert grown("judge_questions_total") == 1 and after["judge_ready"] == 1 and after["judge_pending_requests"] == 0


def test_unknown_routes_and_methods_have_the_same_shape(client):
    refused(client.get("/nowhere"), 404)
    answer = client.get("/v1/score")
    refused(answer, 405)
    assert answer.headers["allow"] == "POST"


def test_the_document_has_examples_that_fit_its_schemas_and_a_page_without_a_network(client):
    import jsonschema_rs

    document = client.get("/openapi.json").json()
    checked = 0
    for methods in document["paths"].values():
        for operation in methods.values():
            for response in operation["responses"].values():
                content = response.get("content", {}).get("application/json", {})
                if "example" in content:
                    jsonschema_rs.validate(content["schema"], content["example"])
                    checked += 1
    assert checked >= 20
    page = client.get("/docs").text
    for words in ("POST /v1/score", "POST /v1/rank", "curl -F mixture=@mix.wav", "429", "faithfulness"):
        assert words in page
    assert "<script" not in page and "http://" not in page.replace("http://127.0.0.1:8000", "") and "//cdn" not in page


@pytest.mark.parametrize("settings", [
    {"port": 70_000}, {"pending": 0}, {"timeout": 0.0}, {"seconds": float("nan")}, {"token": ""}, {"token": "a b"},
    {"token": "é"},
])  # fmt: skip
def test_settings_that_let_nothing_through(settings):
    with pytest.raises(UserError):
        Settings(**settings)


@pytest.mark.parametrize("host,local", [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)])
def test_who_can_connect(host, local):
    assert Settings(host=host).is_local is local
