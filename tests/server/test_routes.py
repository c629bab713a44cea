"""What each route answers, beside transformers, the embedder, the run itself and what OpenAI's reference says."""

import base64
import json

import numpy as np
import pytest
import torch
from tests.tables import pictured
from tests.writers import TEXTS, byte_level
from transformers import AutoModelForCausalLM

from weft.errors import DataError
from weft.exchange import open_text_model
from weft.inference.embed import Embedder
from weft.server.served import Served


def post(ask, path, **body):
    answer = ask.post(path, json=body)
    return answer.status_code, answer.json()


def test_models_say_what_they_can(ask):
    found = {one["id"]: one for one in ask.get("/v1/models").json()["data"]}
    assert found["writer"]["can"] == ["completions", "next", "chat", "embeddings"]
    assert found["shop"]["can"] == ["predict", "explain"] and found["shop"]["columns"]["photo"] == {"type": "image"}
    assert found["shop"]["columns"]["colour"]["values"] == ["green", "red", "蓝"] or "蓝" in str(found["shop"])
    assert found["recommender"]["can"] == ["recommend", "predict", "explain"]


def test_log_probabilities_are_those_of_transformers(ask, writer):
    model = AutoModelForCausalLM.from_pretrained(writer).eval()
    status, answer = post(
        ask, "/v1/completions", prompt=TEXTS[0] * 2, max_tokens=4, temperature=0, echo=True, logprobs=3
    )
    choice = answer["choices"][0]
    told = choice["logprobs"]
    ids = byte_level(begin=True).encode(TEXTS[0] * 2).ids
    assert status == 200 and choice["text"].startswith(TEXTS[0] * 2) and len(told["tokens"]) == len(ids) + 4
    written = model.generate(torch.tensor([ids]), max_new_tokens=4, do_sample=False)[0].tolist()
    with torch.no_grad():
        expected = model(torch.tensor([written])).logits[0].log_softmax(dim=-1)
    assert told["token_logprobs"][0] is None
    assert told["token_logprobs"][1:] == pytest.approx(
        [float(expected[i, written[i + 1]]) for i in range(len(written) - 1)], abs=1e-3
    )
    top = expected[-2].topk(3).values.tolist()
    assert sorted(told["top_logprobs"][-1].values(), reverse=True) == pytest.approx(top, abs=1e-3)
    assert told["tokens"][1] == choice["text"][told["text_offset"][1] : told["text_offset"][2]] == "The"


def test_only_reading_a_prompt(ask):
    status, answer = post(ask, "/v1/completions", prompt="The cat", max_tokens=0, echo=True, logprobs=0)
    assert status == 200 and answer["choices"][0]["text"] == "The cat"
    assert answer["usage"]["completion_tokens"] == 0 and len(answer["choices"][0]["logprobs"]["tokens"]) > 1


def test_lists_and_samples_are_numbered_prompt_by_prompt(ask):
    ids = byte_level(begin=True).encode("She").ids
    settings = {"max_tokens": 8, "seed": 5, "temperature": 1.2}
    _, both = post(ask, "/v1/completions", prompt=["The cat", "She"], n=2, **settings)
    _, one = post(ask, "/v1/completions", prompt=ids, **settings)
    _, other = post(ask, "/v1/completions", prompt=[ids], **settings | {"seed": 6})
    assert [c["index"] for c in both["choices"]] == [0, 1, 2, 3]
    assert [both["choices"][i]["text"] for i in (2, 3)] == [one["choices"][0]["text"], other["choices"][0]["text"]]
    assert both["choices"][2]["text"] != both["choices"][3]["text"]


def test_a_stream_says_what_the_answer_says(ask):
    body = {"prompt": ["The cat", "花"], "max_tokens": 20, "seed": 1, "logprobs": 1, "stop": "e"}
    _, whole = post(ask, "/v1/completions", **body)
    streamed = ask.post("/v1/completions", json=body | {"stream": True, "stream_options": {"include_usage": True}})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    *events, last, done = [e.removeprefix("data: ") for e in streamed.text.strip().split("\n\n")]
    assert done == "[DONE]" and json.loads(last)["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    for choice in whole["choices"]:
        mine = [c for e in events for c in json.loads(e)["choices"] if c["index"] == choice["index"]]
        assert "".join(c["text"] for c in mine) == choice["text"]
        tokens = [t for c in mine if c["logprobs"] for t in c["logprobs"]["tokens"]]
        assert tokens == choice["logprobs"]["tokens"]
        assert [c["finish_reason"] for c in mine if c["finish_reason"]] == [choice["finish_reason"]]


def test_chat_fulfils_a_schema_in_the_words_of_the_template(ask):
    schema = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"],
              "additionalProperties": False}  # fmt: skip
    body = {
        "messages": [
            {"role": "system", "content": "Short."}, {"role": "user", "content": [{"type": "text", "text": "How?"}]},
        ],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        "seed": 2, "logprobs": True, "top_logprobs": 2,
    }  # fmt: skip
    status, answer = post(ask, "/v1/chat/completions", **body)
    choice = answer["choices"][0]
    assert status == 200 and json.loads(choice["message"]["content"])["mood"] in ("good", "bad")
    assert choice["finish_reason"] == "stop" and len(choice["logprobs"]["content"][0]["top_logprobs"]) == 2
    written = bytes(b for token in choice["logprobs"]["content"] for b in token["bytes"]).decode()
    assert written.startswith(choice["message"]["content"])


def test_next_tokens_are_the_model_s_distribution(ask, writer):
    model = AutoModelForCausalLM.from_pretrained(writer).eval()
    _, answer = post(ask, "/next", prompt="The cat", count=5)
    with torch.no_grad():
        expected = model(torch.tensor([answer["ids"]])).logits[0, -1].softmax(dim=-1)
    assert [t["probability"] for t in answer["tokens"]] == pytest.approx(expected.topk(5).values.tolist(), abs=1e-5)
    assert answer["rest"] + sum(t["probability"] for t in answer["tokens"]) == pytest.approx(1)
    _, after = post(ask, "/next", prompt=[*answer["ids"], answer["tokens"][0]["id"]])
    assert after["text"].startswith("The cat") and after["ids"][-1] == answer["tokens"][0]["id"]


def test_vectors_are_those_of_the_embedder_in_both_forms(ask, writer):
    texts = ["The cat", "sat on the mat, and the dog", "花", "a b c"]
    expected, _ = Embedder(open_text_model(writer))(texts)
    _, found = post(ask, "/v1/embeddings", input=texts)
    _, coded = post(ask, "/v1/embeddings", input=texts, encoding_format="base64", model="writer")
    vectors = np.array([one["embedding"] for one in found["data"]], np.float32)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    read = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in coded["data"]]
    np.testing.assert_array_equal(np.array(read), vectors)
    assert found["usage"]["prompt_tokens"] == sum(len(byte_level(begin=True).encode(t).ids) for t in texts)


def as_json(rows):
    told = []
    for row in rows.to_pylist():
        row["when"] = None if row["when"] is None else str(row["when"])
        told.append({k: v for k, v in row.items() if k not in ("photo", "side", "bought")})
    return told


def test_predictions_are_those_of_the_run_and_a_bad_row_costs_only_itself(ask, table_run):
    table = pictured(30, seed=3).drop_columns(["photo"])
    rows = as_json(table)
    _, found = post(ask, "/predict", rows=rows)
    expected = table_run.predict(table.append_column("photo", [[None] * 30]), allow_missing=True).to_pylist()
    for mine, theirs in zip(found["predictions"], expected, strict=True):
        assert mine["prediction"] == theirs["prediction"]
        assert mine["probability of yes"] == pytest.approx(theirs["probability of yes"], abs=1e-6)
    status, some = post(ask, "/predict", rows=[rows[0], rows[1] | {"price": "cheap"}, rows[2]])
    assert status == 200 and "price" in some["predictions"][1]["error"]
    misspelt = {k.replace("price", "prices"): v for k, v in rows[0].items()}
    refused = post(ask, "/predict", rows=[misspelt])[1]["error"]["message"]
    assert "'price'" in refused and "send them as null" in refused and "--" not in refused
    assert post(ask, "/predict", rows=[rows[0] | {"price": None}])[0] == 200
    # bit for bit: a row's answer does not depend on those beside it
    assert some["predictions"][0] == found["predictions"][0] and some["predictions"][2] == found["predictions"][2]


def test_what_is_wrong_with_one_request_is_not_wrong_with_those_read_with_it(table_run):
    served, row = Served(table_run.path, "shop"), as_json(pictured(1))[0]
    good, wrong, other = served.predict([[row], [row | {"photo": 5}], [row | {"photo": None}, {"price": 3}]])
    assert good == served.predict([[row]])[0] and len(other) == 2
    assert isinstance(wrong, DataError) and "photo" in str(wrong)


def test_pictures_come_as_base64_and_never_as_paths(ask, table_run, tmp_path):
    from PIL import Image

    file = tmp_path / "photo.png"
    Image.fromarray(np.full((8, 8), 200, np.uint8)).save(file)
    row = as_json(pictured(1))[0]
    data = "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
    _, with_one = post(ask, "/predict", rows=[row | {"photo": data}])
    _, without = post(ask, "/predict", rows=[row | {"photo": None}])
    assert with_one["predictions"][0]["probability of yes"] != without["predictions"][0]["probability of yes"]
    status, refused = post(ask, "/predict", rows=[row | {"photo": str(file)}])
    assert status == 400 and "photo" in refused["error"]["message"]


def test_explanations_are_those_of_the_run(ask, table_run):
    table = pictured(2, seed=4).drop_columns(["photo"])
    _, found = post(ask, "/explain", rows=as_json(table)[:1], method="gradient")
    why = found["explanations"][0]
    expected = table_run.explain(table.slice(0, 1).append_column("photo", [[None]]), "gradient")[0]
    assert {p["shown"] for p in why["players"]} == {p.shown for p in expected.players}
    assert sum(why["columns"].values()) == pytest.approx(float(expected.shares.sum()), abs=1e-4)
    assert why["told"]["zh"] and why["told"]["en"]
    status, wrong = post(ask, "/explain", rows=as_json(table), of="maybe")
    assert status == 400 and "maybe" in wrong["error"]["message"]


def test_a_recommendation_is_explained_by_the_items_before_it(ask, ranking_run):
    status, found = post(ask, "/explain", rows=[{"item": ["i1", "i2"]}], model="recommender")
    expected = ranking_run.explain({"item": [["i1", "i2"]]})[0]
    assert status == 200 and found["explanations"][0]["answer"] == expected.answer
    assert [p["share"] for p in found["explanations"][0]["players"]] == pytest.approx(
        expected.shares.tolist(), abs=1e-5
    )
    assert post(ask, "/explain", rows=[{}], prompt="a")[0] == 400
    assert "rows" in post(ask, "/explain", prompt="a", model="shop")[1]["error"]["message"]


def test_recommendations_are_those_of_the_run(ask, ranking_run):
    _, known = post(ask, "/recommend", user="u3", k=3, taken=True)
    assert [(i["item"], i["score"]) for i in known["items"]] == [
        (i["item"], pytest.approx(i["score"], abs=1e-6)) for i in ranking_run.recommend("u3", 3, True)
    ]
    _, unseen = post(ask, "/recommend", history=["i1", {"item": "i2", "time": 3}], k=2, taken=False)
    assert len(unseen["items"]) == 2 and not {"i1", "i2"} & {i["item"] for i in unseen["items"]}
    for body in ({}, {"user": "u1", "history": []}, {"user": "nobody"}):
        assert post(ask, "/recommend", **body)[0] == 400


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/completions", {"prompt": "a", "logit_bias": {"1": 2}}, "logit_bias"),
        ("/v1/completions", {"prompt": "a", "best_of": 2}, "best_of"),
        ("/v1/completions", {"prompt": "a", "suffix": "b"}, "suffix"),
        ("/v1/completions", {"prompt": "a", "frequency_penalty": 0.5}, "frequency_penalty"),
        ("/v1/completions", {"prompt": "a", "temperature": "warm"}, "temperature"),
        ("/v1/completions", {"prompt": "a", "stream_options": {}}, "stream_options"),
        ("/v1/completions", {"max_tokens": 3}, "prompt"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "tools": []}, "tools"),
        ("/v1/chat/completions", {"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role"),
        ("/v1/embeddings", {"input": "a", "dimensions": 3}, "dimensions"),
        ("/predict", {"rows": [{}], "top": 3}, "top"),
    ],
)
def test_what_is_not_supported_is_refused_by_its_name(ask, path, body, field):
    status, answer = post(ask, path, **body)
    assert status == 400 and answer["error"]["param"] == field
    assert post(ask, path, **body)[1]["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/completions", {"prompt": "a " * 200}, "128"),
        ("/v1/completions", {"prompt": "ab " * 2_000_000}, "6,000,000 letters"),
        ("/v1/completions", {"prompt": [9999]}, "9999"),
        ("/v1/completions", {"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ("/v1/completions", {"prompt": "\ud800"}, "surrogate"),
        ("/v1/chat/completions", {"messages": [{"role": "assistant", "content": "a"}]}, "user"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}],
         "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "thing"}}}}, "thing"),
        ("/predict", {"rows": [{"colours": "red"}]}, "colour"),
        ("/predict", {"rows": [{"colour": "red"}, {"colours": "red"}]}, "Did you mean 'colours'"),
        ("/explain", {"rows": [{"colour": "red"}, {"colours": "red"}]}, "Did you mean 'colours'"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_says_why(ask, path, body, said):
    answer = ask.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code == 400 and said in answer.json()["error"]["message"]


def test_a_body_without_its_header_is_told_which(ask):
    answer = ask.post("/predict", content='{"rows": [{}]}', headers={"content-type": "text/plain"})
    assert answer.status_code == 400 and "content-type: application/json" in answer.json()["error"]["message"]


def test_a_run_that_cannot_do_it_is_not_found(ask):
    status, answer = post(ask, "/v1/completions", prompt="a", model="shop")
    assert status == 404 and answer["error"]["code"] == "model_not_found" and "writer" in answer["error"]["message"]
    assert "Did you mean 'writer'" in post(ask, "/v1/completions", prompt="a", model="writers")[1]["error"]["message"]
