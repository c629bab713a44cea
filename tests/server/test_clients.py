"""The clients that people have, as they are installed."""

import json
import subprocess

import llm
import numpy as np
import openai
import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from llm.default_plugins.openai_models import Chat, Completion
from pydantic import BaseModel, Field, SecretStr

KEY = "none"


@pytest.fixture(scope="module")
def client(address):
    with openai.OpenAI(base_url=address + "/v1", api_key=KEY, max_retries=0) as found:
        yield found


class Mood(BaseModel):
    """An answer in a form."""

    good: bool
    score: int = Field(ge=0, le=9)


def test_openai_completes_and_streams(client):
    assert "writer" in [m.id for m in client.models.list()]
    settings = {"model": "writer", "prompt": "The cat", "max_tokens": 12, "seed": 4, "logprobs": 2}
    whole = client.completions.create(**settings)
    streamed = list(client.completions.create(**settings, stream=True))
    assert whole.choices[0].text == "".join(c.choices[0].text for c in streamed)
    assert len(whole.choices[0].logprobs.tokens) == whole.usage.completion_tokens <= 12


def test_openai_chats_streams_and_parses_a_form(client):
    messages = [{"role": "user", "content": "How is it?"}]
    settings = {"model": "writer", "messages": messages, "seed": 1, "max_tokens": 30}
    whole = client.chat.completions.create(**settings)
    streamed = list(client.chat.completions.create(**settings, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in streamed if c.choices)
    assert text == whole.choices[0].message.content and streamed[-1].usage == whole.usage
    form = client.chat.completions.parse(model="writer", messages=messages, response_format=Mood, max_tokens=80, seed=1)
    assert isinstance(form.choices[0].message.parsed, Mood)


def test_openai_embeds_in_base64_by_itself(client):
    found = client.embeddings.create(model="writer", input=["The cat", "花"])
    plain = client.embeddings.create(model="writer", input=["The cat", "花"], encoding_format="float")
    np.testing.assert_array_equal([d.embedding for d in found.data], np.float32([d.embedding for d in plain.data]))


def test_openai_names_the_field_that_is_wrong(client):
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model="writer", prompt="a", logit_bias={"1": 5})
    assert error.value.param == "logit_bias"
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="absent", prompt="a")


def test_langchain(address):
    settings = {"base_url": address + "/v1", "api_key": SecretStr(KEY), "model": "writer", "max_retries": 0}
    chat = ChatOpenAI(**settings, max_tokens=20, temperature=0)  # type: ignore[call-arg]
    messages = [SystemMessage("Short."), HumanMessage("How?")]
    assert "".join(c.text for c in chat.stream(messages)) == chat.invoke(messages).text
    form = ChatOpenAI(**settings, seed=1, max_tokens=80).with_structured_output(Mood)  # type: ignore[call-arg]
    assert isinstance(form.invoke("How?"), Mood)
    assert isinstance(OpenAI(**settings, max_tokens=5, seed=1).invoke("The cat"), str)
    embeddings = OpenAIEmbeddings(**settings, check_embedding_ctx_length=False)
    assert len(embeddings.embed_query("The cat")) == 24


def test_llm(address, monkeypatch, tmp_path):
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    settings = {"model_id": "weft", "model_name": "writer", "api_base": address + "/v1"}
    for kind in (Chat, Completion):
        model = kind(**settings)
        model.key = KEY
        for stream in (True, False):
            answer = model.prompt("How?", stream=stream, max_tokens=8)
            assert isinstance(answer, llm.Response) and isinstance(answer.text(), str)
            assert answer.usage().output is None or answer.usage().output <= 8


def test_curl(address):
    body = json.dumps({"prompt": "The cat", "max_tokens": 4, "stream": True, "seed": 4})
    command = ["curl", "-sNf", address + "/v1/completions", "-H", "content-type: application/json", "-d", body]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert said.count("data: {") > 1 and said.endswith("data: [DONE]\n\n")
