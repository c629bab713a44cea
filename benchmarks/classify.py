"""Texts of uneven length classified by MiniLM, beside the libraries that people run it with.

    uv run --group bench python benchmarks/classify.py [--rows 20000] [--rounds 3] [--ways ...]

One JSON line. Every way turns the same texts (titles and reviews of clothes, at most 256 tokens) into one of six
departments, tokens included: Weft by ``run.predict`` of a run trained on 12,000 other rows, early where its easy rows
leave it (``weft export --to early``), the others by the mean of MiniLM's states and a logistic regression of the same
rows, the pipeline of Hugging Face by its own kind of classifier. ``rates``: rows a second and a CPU second, all ways in
turn. ``equal``: share of labels that are those of the same model in float32. ``peak_gb``: of each way in a process
that opens what is prepared (a run, a graph, a regression) and reads, libraries included.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from machine import DATA, in_turn, machine, minilm, peak_gb, peaks

LONGEST = 256
BATCH = 32
Labels = Callable[[list[str]], list[str]]
States = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Ids and mask [B, T] -> states of the last layer [B, T, D]."""


def rows_of(made_up: bool) -> tuple[list[str], list[str]]:
    """Texts and their departments, in a fixed random order."""
    if made_up:
        return [("a red dress " if i % 2 else "blue jeans that fit ") * (1 + i % 7) for i in range(200)], [
            "dresses" if i % 2 else "bottoms" for i in range(200)
        ]
    table = pq.read_table(DATA / "clothing_reviews.parquet").to_pylist()
    found = []
    for row in table:
        if row["department_name"]:
            found += [(text, row["department_name"]) for text in (row["title"], row["review_text"]) if text]
    order = np.random.default_rng(0).permutation(len(found))
    return [found[i][0] for i in order], [found[i][1] for i in order]


class Tokens:
    """MiniLM's own tokenizer; batches of like length."""

    def __init__(self) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(Path(minilm()) / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(LONGEST)

    def ids(self, texts: list[str]) -> list[list[int]]:
        return [e.ids for e in self.tokenizer.encode_batch_fast(texts)]

    def batches(self, ids: list[list[int]], budget: int | None = None) -> Iterator[np.ndarray]:
        """Places sorted by length: 32 a batch, or as many as ``budget`` tokens hold."""
        order = np.argsort([len(i) for i in ids], kind="stable")
        start = 0
        while start < len(order):
            end = start + BATCH
            if budget:
                end = start + 1
                while end < len(order) and (end - start + 1) * len(ids[order[end]]) <= budget:
                    end += 1
            yield order[start:end]
            start = end

    @staticmethod
    def padded(ids: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        width = max(map(len, ids))
        found, mask = np.zeros((len(ids), width), np.int64), np.zeros((len(ids), width), np.int64)
        for place, row in enumerate(ids):
            found[place, : len(row)], mask[place, : len(row)] = row, 1
        return found, mask


class Head:
    """A logistic regression on the means of MiniLM's states, kept in a file."""

    def __init__(self, file: Path, means: Callable[[], np.ndarray], labels: list[str]):
        if not file.exists():
            from sklearn.linear_model import LogisticRegression

            fitted = LogisticRegression(C=10, max_iter=500).fit(means(), labels)
            weight, bias = fitted.coef_, fitted.intercept_
            if len(bias) == 1:  # of two classes it keeps the second's alone
                weight, bias = np.concatenate([-weight, weight]), np.concatenate([-bias, bias])
            np.savez(file, weight=weight, bias=bias, classes=fitted.classes_)
        stored = np.load(file)
        self.weight, self.bias, self.classes = stored["weight"], stored["bias"], stored["classes"]

    def __call__(self, vectors: np.ndarray) -> list[str]:
        return self.classes[(vectors @ self.weight.T + self.bias).argmax(axis=1)].tolist()


def by_states(states: States, tokens: Tokens, budget: int | None = None) -> Callable[[list[str]], np.ndarray]:
    """Texts -> mean of the states of each [N, D]."""

    def means(texts: list[str]) -> np.ndarray:
        ids = tokens.ids(texts)
        found = np.empty((len(ids), 384), np.float32)
        for places in tokens.batches(ids, budget):
            read, mask = tokens.padded([ids[i] for i in places])
            out = states(read, mask)
            found[places] = (out * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
        return found

    return means


def transformers_model() -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(minilm()).eval()


def torch_states(bfloat16: bool) -> States:
    import torch

    model = transformers_model()
    model = model.bfloat16() if bfloat16 else model

    def states(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            found = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).last_hidden_state
        return found.float().numpy()

    return states


def openvino_states(kind: str, folder: Path) -> States:
    import openvino

    file = folder / "openvino.xml"
    if not file.exists():
        import torch

        ids = torch.ones(2, 8, dtype=torch.int64)
        model = openvino.convert_model(transformers_model(), example_input={"input_ids": ids, "attention_mask": ids})
        openvino.save_model(model, file, compress_to_fp16=False)
    model = openvino.Core().read_model(file)
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    settings = {"INFERENCE_PRECISION_HINT": kind, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.compile_model(model, "CPU", settings)
    return lambda ids, mask: compiled({"input_ids": ids, "attention_mask": mask})[0]


def onnx_states(folder: Path) -> States:
    import onnxruntime

    if not (folder / "int8.onnx").exists():
        make_onnx(folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    session = onnxruntime.InferenceSession(str(folder / "int8.onnx"), options, ["CPUExecutionProvider"])
    return lambda ids, mask: session.run(["states"], {"ids": ids, "mask": mask})[0]


def make_onnx(folder: Path) -> None:
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    ids = torch.ones(2, 8, dtype=torch.int64)
    axes = {"ids": {0: "rows", 1: "tokens"}, "mask": {0: "rows", 1: "tokens"}, "states": {0: "rows", 1: "tokens"}}

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = transformers_model()

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=ids, attention_mask=mask).last_hidden_state

    torch.onnx.export(
        States(), (ids, ids), str(folder / "model.onnx"), input_names=["ids", "mask"],
        output_names=["states"], dynamic_axes=axes, dynamo=False,
    )  # fmt: skip
    quantize_dynamic(folder / "model.onnx", folder / "int8.onnx", weight_type=QuantType.QInt8)


def ctranslate2_means(tokens: Tokens, folder: Path) -> Callable[[list[str]], np.ndarray]:
    import ctranslate2

    model = folder / "ctranslate2"
    if not model.exists():
        ctranslate2.converters.TransformersConverter(minilm()).convert(str(model), quantization="int8")
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    encoder = ctranslate2.Encoder(str(model), device="cpu", compute_type="int8", intra_threads=threads)

    def means(texts: list[str]) -> np.ndarray:
        ids = tokens.ids(texts)
        found = np.empty((len(ids), 384), np.float32)
        for places in tokens.batches(ids):
            some = [ids[i] for i in places]
            states = np.array(encoder.forward_batch(some).last_hidden_state)
            mask = tokens.padded(some)[1]
            found[places] = (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
        return found

    return means


def weft_labels(early: bool, texts: list[str], labels: list[str], folder: Path, most: float) -> tuple[Labels, Labels]:
    """Labels by a run trained on these rows, and by the same run in float32; ``early``: its easy rows leave it."""
    import weft
    from weft.inference import predict

    whole, small = folder / "run", folder / "early"
    if not whole.exists():
        pq.write_table(pa.table({"text": texts, "label": labels}), folder / "rows.parquet")
        weft.train(
            folder / "rows.parquet", "label", whole, quiet=True, model={"from": minilm()},
            features={"text": {"type": "text", "max_tokens": LONGEST}}, training={"epochs": 1},
            results={"baselines": False, "explain": "off"},
        )  # fmt: skip
    if early and not small.exists():
        from weft.early import export_early

        print(json.dumps(export_early(whole, small, most)), file=sys.stderr)
    run = weft.load(small if early else whole)

    def said(some: list[str]) -> list[str]:
        return run.predict(pa.table({"text": some})).column("prediction").to_pylist()

    def exact(some: list[str]) -> list[str]:
        wide, predict.WIDE = predict.WIDE, 1 << 30
        try:
            return weft.load(whole).predict(pa.table({"text": some})).column("prediction").to_pylist()
        finally:
            predict.WIDE = wide

    return said, exact


def pipeline_labels(batch: int) -> Labels:
    from transformers import AutoTokenizer, BertForSequenceClassification, logging, pipeline

    logging.set_verbosity_error()
    model = BertForSequenceClassification.from_pretrained(minilm(), num_labels=6).eval()
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    asked = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu", batch_size=batch)
    return lambda texts: [a["label"] for a in asked(texts, truncation=True, max_length=LONGEST)]


def sentence_means() -> Callable[[list[str]], np.ndarray]:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    reader = Transformer(minilm(), max_seq_length=LONGEST)
    model = SentenceTransformer(modules=[reader, Pooling(384)], device="cpu").bfloat16()
    return lambda texts: model.encode(texts, batch_size=BATCH, convert_to_tensor=True).float().numpy()


WAYS = ["weft", "weft early", "openvino bfloat16", "torch bfloat16, token budgets", "sentence-transformers bfloat16",
        "onnxruntime int8", "ctranslate2 int8", "pipeline", "pipeline in batches of 32"]  # fmt: skip


def build(
    name: str, texts: list[str], labels: list[str], folder: Path, most: float
) -> tuple[Labels, Labels | None]:  # fmt: skip
    """A way, and the same model in float32 where there is one; what is prepared lies in a folder."""
    if name.startswith("weft"):
        return weft_labels(name == "weft early", texts, labels, folder, most)
    if name.startswith("pipeline"):
        return pipeline_labels(BATCH if "32" in name else 1), None
    tokens = Tokens()

    def exact(some: list[str]) -> np.ndarray:
        return by_states(torch_states(False), tokens)(some)

    head = Head(folder / "head.npz", lambda: exact(texts), labels)
    means = {
        "openvino bfloat16": lambda: by_states(openvino_states("bf16", folder), tokens),
        "torch bfloat16, token budgets": lambda: by_states(torch_states(True), tokens, 1_024),
        "sentence-transformers bfloat16": sentence_means,
        "onnxruntime int8": lambda: by_states(onnx_states(folder), tokens),
        "ctranslate2 int8": lambda: ctranslate2_means(tokens, folder),
    }[name]()
    return lambda some: head(means(some)), lambda some: head(exact(some))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="*", default=WAYS)
    parser.add_argument("--learn", type=int, default=12_000)
    parser.add_argument("--made-up", action="store_true")
    parser.add_argument("--alone")
    parser.add_argument("--folder", type=Path, help="where what is prepared lies, or is put")
    given = parser.parse_args()
    texts, labels = rows_of(given.made_up)
    first, rest = given.learn, texts[given.learn : given.learn + given.rows]
    folder, most = given.folder or Path(tempfile.mkdtemp()), 50.0 if given.made_up else 0.5
    folder.mkdir(exist_ok=True)
    if given.alone:
        build(given.alone, texts[:first], labels[:first], folder, most)[0](rest)
        print(json.dumps({"peak_gb": peak_gb()}))
        return
    built = {name: build(name, texts[:first], labels[:first], folder, most) for name in given.ways}

    def way(labels_of: Labels) -> Callable[[], float]:
        return lambda: len(labels_of(rest))

    rates = in_turn({name: way(said) for name, (said, _) in built.items()}, given.rounds)
    truth = np.array(labels[first : first + len(rest)])
    equal, right = {}, {}
    for name, (said, exact) in built.items():
        if exact is not None:
            ours = np.array(said(rest))
            equal[name] = round(float(np.mean(ours == np.array(exact(rest)))), 4)
            right[name] = round(float(np.mean(ours == truth)), 4)
    sizes = [len(i) for i in Tokens().ids(rest)]
    mean = round(float(np.mean(sizes)), 1)
    print(json.dumps({
        "benchmark": "classify", "rows": len(rest), "tokens": {"mean": mean, "max": max(sizes)},
        "rates": rates, "equal": equal, "accuracy": right,
        "peak_gb": {} if given.made_up else peaks(
            __file__, given.ways, "--rows", "1000", "--learn", str(first), "--folder", str(folder)
        ),
        **machine("transformers", "openvino", "onnxruntime", "ctranslate2", "sentence-transformers"),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
