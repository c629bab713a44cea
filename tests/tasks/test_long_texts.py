"""Texts longer than what is read of them are said, with the setting that reads them whole."""

import re

import numpy as np
import pyarrow as pa

import weft


def heard(capsys, folder, words, features):
    random = np.random.default_rng(0)
    texts = [" ".join(f"word{k}" for k in random.integers(0, 30, words)) for _ in range(60)]
    table = pa.table({"text": texts, "answer": random.choice(["yes", "no"], 60)})
    weft.train(table, "answer", folder, features=features, model={"width": 16, "layers": 1},
               training={"epochs": 1}, results={"baselines": False, "explain": "off"})  # fmt: skip
    return capsys.readouterr().err


def test_texts_that_lose_their_end_are_said_until_they_are_read(tmp_path, capsys):
    assert "are longer than" not in heard(capsys, tmp_path / "short", 20, {})
    said = heard(capsys, tmp_path / "cut", 260, {})
    assert "100% of the texts are longer than 160 tokens" in said
    advice = int(re.search(r"max_tokens: (\d+)", said)[1])
    assert advice >= 260
    whole = heard(capsys, tmp_path / "whole", 260, {"text": {"type": "text", "max_tokens": advice}})
    assert "are longer than" not in whole
