"""Keys, rates, sizes, ids, and a log that never holds what was asked."""

import asyncio
import base64
import logging
import signal
import subprocess
import sys

import httpx
import pytest
from tests.server.conftest import KEY, listening

from weft.cli import call
from weft.server import guard
from weft.server.app import create_app
from weft.server.served import Served

ROUTES = ["/metrics", "/v1/models", "/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/next", "/predict",
          "/explain", "/recommend", "/openapi.json", "/docs", "/", "/page.js", "/page.css", "/nothing"]  # fmt: skip
BODY = {"prompt": "The secret cat", "max_tokens": 2}


@pytest.fixture(scope="module")
def keyed(writer):
    with (
        listening(Served(writer, "writer"), keys=[KEY, "another key, of a friend"], rate=3) as address,
        httpx.Client(base_url=address) as client,
    ):
        yield client


def bearer(key):
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_but_health_is_closed(keyed, route):
    for headers in (
        {},
        bearer("wrong"),
        bearer(KEY + " "[:0] + "x"),
        {"authorization": KEY},
        {"authorization": "Basic !"},
    ):
        for method in ("GET", "POST"):
            answer = keyed.request(method, route, headers=headers)
            assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"
            assert "Bearer" in answer.headers["www-authenticate"]
    assert keyed.get("/healthz").json() == {"status": "ok"}


def test_a_rate_of_three_a_minute_belongs_to_each_key(keyed):
    basic = {"authorization": "Basic " + base64.b64encode(b"me:another key, of a friend").decode()}
    answers = [keyed.get("/v1/models", headers=bearer(KEY)) for _ in range(4)]
    assert [a.status_code for a in answers] == [200, 200, 200, 429]
    assert [a.headers["x-ratelimit-remaining-requests"] for a in answers] == ["2", "1", "0", "0"]
    assert 1 <= int(answers[3].headers["retry-after"]) <= 20
    assert answers[3].json()["error"]["code"] == "rate_limit_exceeded"
    assert keyed.get("/v1/models", headers=basic).status_code == 200, "a browser's password is a key too"


def test_without_a_key_only_this_machine_s_own_names_are_answered(address):
    for host, status in (("localhost:80", 200), ("[::1]", 200), ("evil.example", 421)):
        assert httpx.get(address + "/healthz", headers={"host": host}).status_code == status


def test_a_request_has_an_id_and_its_line_of_log_nothing_of_what_was_asked(address, caplog):
    caplog.set_level(logging.DEBUG)
    given = httpx.post(address + "/v1/completions", json=BODY, headers={"x-request-id": "mine-1"})
    made = httpx.post(
        address + "/v1/completions?secret", json=BODY | {"model": "secret"}, headers={"x-request-id": "a b"}
    )
    assert given.headers["x-request-id"] == "mine-1" and made.headers["x-request-id"].startswith("req-")
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("weft")]
    assert any("mine-1 POST /v1/completions 200" in line for line in ours)
    assert not any("secret" in line for line in ours)


def test_an_unexpected_error_says_where_and_not_what(caplog):
    async def broken(scope, receive, send):
        raise KeyError("the secret prompt")

    async def ask():
        transport = httpx.ASGITransport(guard.Guard(broken, create_app([]).metrics, [], None, False))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.post("/predict")

    answer = asyncio.run(ask())
    assert answer.status_code == 500 and "secret" not in answer.text + caplog.text
    assert "KeyError at test_guard.py" in caplog.text and answer.headers["x-request-id"] in caplog.text


def test_a_body_that_is_too_large_is_refused_while_it_comes(address, monkeypatch):
    monkeypatch.setattr(guard, "MOST_BYTES", 1000)

    def parts():
        yield b'{"prompt": "'
        for _ in range(100):
            yield b"a" * 100

    answer = httpx.post(address + "/v1/completions", content=parts(), headers={"content-type": "application/json"})
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "too_large"


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000, b'{"prompt": "a"'])
def test_what_is_no_json_is_refused(address, content):
    answer = httpx.post(address + "/v1/completions", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]["type"] == "invalid_request_error"
    text = httpx.post(address + "/v1/completions", content=b'{"prompt": "a"}', headers={"content-type": "text/plain"})
    assert text.status_code == 400, "a form of another site cannot ask"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "needs a key"),
        (["--host", "example.org"], "needs a key"),
        (["--rate", "0"], "--rate"),
        (["--queue", "0"], "--queue"),
        (["--keys", "absent"], "--keys"),
    ],
)
def test_the_command_refuses_what_is_not_safe(arguments, said, writer, capsys, monkeypatch):
    monkeypatch.delenv("WEFT_API_KEY", raising=False)
    assert call(["serve", str(writer), *arguments]) in (1, 2)
    assert said in capsys.readouterr().err
    monkeypatch.setenv("WEFT_API_KEY", "short")
    assert call(["serve", str(writer)]) == 2 and "16 letters" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_ends_by_a_signal_once_all_is_answered(writer):
    command = [sys.executable, "-m", "weft", "serve", str(writer), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = next(line for line in process.stderr if "page:" in line).split()[1]
        body = BODY | {"max_tokens": 100, "stream": True, "temperature": 0}
        with httpx.stream("POST", address + "v1/completions", json=body, timeout=60) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: {")
            process.send_signal(signal.SIGTERM)
            assert "data: [DONE]" in list(lines)
        assert "stopped; all that was asked is answered" in process.stderr.read()
    assert process.returncode == 0
