"""The benchmarks beside other libraries run to their line of JSON, at a tiny size; what they time is not looked at."""

import importlib
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import weft

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def ran(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(FOLDER))

    def run(name: str, *arguments: str) -> list[dict]:
        monkeypatch.setattr("sys.argv", [name, *arguments])
        importlib.import_module(name).main()
        lines = capsys.readouterr().out.splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    return run


def test_writers(ran):
    ways = ["weft muon", "weft adamw", "nanogpt bfloat16, plain attention", "trainer sdpa"]
    (found,) = ran("train_writer", "--rows", "1", "--steps", "1", "--rounds", "1", "--learn", "20", "--made-up", "6000",
                   "--ways", *ways)  # fmt: skip
    assert list(found["rates"]) == ways and list(found["learnt"]) == [ways[2], ways[0]]
    # one sentence again and again: whoever learns anything is far below the 2.2 nats of its letters
    assert all(way["valid_nats"] < 1.8 for way in found["learnt"].values())


def test_readers(ran):
    (found,) = ran("train_reader", "--rows", "96", "--rounds", "1", "--made-up")
    assert found["rates"]["weft"]["accuracy"] > 0.95 and len(found["rates"]) == 4


def test_classification(ran):
    (found,) = ran("classify", "--rows", "60", "--learn", "60", "--rounds", "1", "--made-up", "--ways", "weft",
                   "weft early", "torch bfloat16, token budgets", "pipeline in batches of 32")  # fmt: skip
    assert min(found["equal"].values()) >= 0.995 and min(found["accuracy"].values()) >= 0.95


def test_tokens(ran):
    (found,) = ran("tokenise", "--megabytes", "0.5", "--rounds", "1")
    assert found["equal"]


def test_limited_compute(ran):
    (found,) = ran("limited", "reviews", "--rounds", "1", "--made-up", "--ways", "all four")
    assert found["trained"] < 1e6 and found["accuracy"] > 0.95


def test_fewer_bits(ran, shared):
    shared("banking77_train.csv")
    reader, writer = ran("fewer_bits", "--smoke", "--minutes", "0.02")
    assert list(reader["points"]) == list(writer["points"]) and reader["labels_equal"]["int8"] > 0.9


def test_students(ran, shared):
    shared("banking77_train.csv")
    shared("clinc150.parquet")
    (found,) = ran("distil", "banking", "--seeds", "0", "--ways", "more", "--smoke")
    assert found["parameters"]["taught"] < found["parameters"]["teacher"] and found["kept"] > 0.5
    assert found["interval"][0] <= found["gain"] <= found["interval"][1]


def test_on_any_machine_what_a_gpu_would_do(ran):
    found = {line["work"]: line for line in ran("gpu", "--tiny", "--rows", "2", "--rounds", "1")}
    assert list(found) == ["train", "generate", "classify"] and found["generate"]["equal_first_tokens"]


def test_writing(ran):
    tiny = ("--batches", "2", "--layers", "2", "--width", "192", "--tokens", "4", "--rounds", "1")
    (found,) = ran("writing", "--kinds", "float32", *tiny)
    assert found["equal"]["transformers"] == 1.0  # llama.cpp takes part where it is installed


@pytest.mark.parametrize(("work", "target"), [("text", "recommended_ind"), ("adult", "income")])
def test_explanations(ran, shared, tmp_path, work, target):
    file = shared({"text": "clothing_reviews.parquet", "adult": "adult.parquet"}[work])
    columns = ["review_text", target] if work == "text" else None
    weft.train(
        pq.read_table(file, columns=columns).slice(0, 300), target, tmp_path / "run", quiet=True,
        model={"width": 16, "layers": 1, "copies": 1}, training={"epochs": 1}, results={"baselines": False},
    )  # fmt: skip
    lines = ran("explain", work, "--rows", "1", "--questions", "130" if work == "text" else "40",
                "--run", str(tmp_path / "run"))  # fmt: skip
    found = {line["method"]: line for line in lines}
    assert {"weft shap", "weft shap, stops when sure", "shap permutation", "lime", "captum kernel"} <= set(found)
    best = found["weft shap"]["insertion"] - found["weft shap"]["deletion"]
    assert best > found["random order"]["insertion"] - found["random order"]["deletion"]
