"""Two hundred clients at once: some leave half-way, some read slowly, for some the model fails; no request is lost."""

import asyncio
import threading
import time

import httpx
import pytest
import torch
from tests.server.conftest import listening
from tests.writers import byte_level, untrained

from weft.models.stored import save_language_model
from weft.server.served import Served

CLIENTS = 200


@pytest.fixture(scope="module")
def fragile(tmp_path_factory):
    """A model that fails once it reads the letter z, and never ends a text."""
    folder = tmp_path_factory.mktemp("runs") / "fragile"
    folder.mkdir()
    model = untrained("transformer", ends=())
    with torch.no_grad():
        bad = byte_level().encode("z").ids[0]
        model.table.weight[bad] = torch.nan
        model.output.weight[bad] = 0  # the most probable token is another
    save_language_model(model, folder, byte_level())
    return folder


def figures(text):
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}


async def one(client, number):
    """What became of a client: its kind and its text."""
    kind = ("whole", "stream", "leaves", "slow", "fails")[number % 5]
    body = {"prompt": f"The {number} cat{'z' if kind == 'fails' else ''}", "max_tokens": 12, "temperature": 0}
    if kind in ("whole", "fails"):
        answer = await client.post("/v1/completions", json=body)
        return kind, answer.status_code, answer.json()
    found = ""
    async with client.stream(
        "POST", "/v1/completions", json=body | {"stream": True, "max_tokens": 100 if kind == "leaves" else 12}
    ) as answer:
        async for line in answer.aiter_lines():
            found += line + "\n"
            if kind == "leaves" and found.count("data:") > 2:
                break
            if kind == "slow":
                await asyncio.sleep(0.01)
    return kind, answer.status_code, found


def test_two_hundred_clients(fragile):
    with listening(Served(fragile, "fragile")) as address:

        async def all_at_once():
            limits = httpx.Limits(max_connections=CLIENTS)
            async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as client:
                return await asyncio.gather(*(one(client, i) for i in range(CLIENTS)))

        before = threading.active_count()
        found = asyncio.run(all_at_once())
        with httpx.Client(base_url=address, timeout=60) as client:
            told = figures(client.get("/metrics").text)
            for number in (0, 35, 195):  # bit for bit what it is when nobody else asks
                alone = client.post(
                    "/v1/completions", json={"prompt": f"The {number} cat", "max_tokens": 12, "temperature": 0}
                )
                assert alone.json()["choices"] == found[number][2]["choices"]
        for kind, status, answer in found:
            if kind == "fails":
                assert status == 500 and "finite" in answer["error"]["message"]
            elif kind == "whole":
                assert status == 200 and answer["usage"]["completion_tokens"] == 12
            else:
                assert status == 200 and (kind == "leaves") != answer.endswith("data: [DONE]\n\n")
        assert told['weft_running{model="fragile"}'] == told['weft_waiting{model="fragile"}'] == 0
        # those who left did not have their hundred tokens written: 40 of 40 would make 4,000
        assert told['weft_tokens_total{kind="written"}'] < 120 * 12 + 40 * 60
        assert threading.active_count() <= before + 40, "threads of the pool that prepares requests, and no more"


def test_a_full_queue_says_when_to_come_again_and_a_stop_finishes_what_runs(fragile):
    body = {"prompt": "The cat", "max_tokens": 60, "temperature": 0}
    with listening(Served(fragile, "fragile"), queue=1) as address:

        async def many():
            async with httpx.AsyncClient(base_url=address, timeout=120) as client:
                return await asyncio.gather(*(client.post("/v1/completions", json=body | {"n": 16}) for _ in range(8)))

        found = asyncio.run(many())
        full = [a for a in found if a.status_code == 503]
        assert 0 < len(full) < 8 and {a.status_code for a in found} == {200, 503}
        assert full[0].headers["retry-after"] == "1" and full[0].json()["error"]["code"] == "overloaded"
        answers = []
        last = threading.Thread(
            target=lambda: answers.append(httpx.post(address + "/v1/completions", json=body | {"n": 4}, timeout=60))
        )
        last.start()
        while not httpx.get(address + "/metrics").text.count('weft_running{model="fragile"} 4.0'):
            time.sleep(0.005)
    # the server was told to stop while four texts were being written
    last.join()
    assert [c["finish_reason"] for c in answers[0].json()["choices"]] == ["length"] * 4
    with pytest.raises(httpx.ConnectError):
        httpx.get(address + "/healthz")
