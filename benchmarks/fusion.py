"""What reading all columns of a row together is worth, and what it costs. One JSON line a figure.

    uv run python benchmarks/fusion.py clothing [--judge test] [--targets recommended rating department] [--seeds 0]
    uv run python benchmarks/fusion.py parts --rows 6000 [--seeds 0] [--ways picture+order+asked picture+order ...]
    uv run python benchmarks/fusion.py absent --rows 6000 [--ways adult clothing] [--shares 0 0.1 0.2]
    uv run python benchmarks/fusion.py documents [--rows 4000] [--reviews 10] [--ways cut whole "summary 16"]
    uv run python benchmarks/fusion.py cost

``clothing``: a target from the texts only, the table only and both, on the same rows; neither recommended nor rating is
ever an input of the other. ``parts``: a picture, a text and a question that only together say the answer. ``absent``:
what column dropout costs and gains. ``documents``: long texts of which every part counts. ``cost``: a step's time and
memory by length and number of columns. Choices are made with ``--judge valid``, which never reads the test rows.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

import weft
from weft.data.split import uniform
from weft.features.batching import Batch
from weft.features.codecs import NumberCodec, TextCodec
from weft.features.targets import ClassTarget
from weft.features.tokenizer import train_tokenizer
from weft.models.row import RowConfig, RowModel
from weft.models.transformer import TransformerConfig
from weft.results.metrics import class_metrics, number_metrics
from weft.runs.run import Run

DATA = Path(__file__).parents[2] / "shared" / "data"
RESAMPLES = 1_000
GARMENTS = {
    1: ("trousers", "a pair of pants"), 2: ("a pullover", "a jumper"), 3: ("a dress", "a gown"),
    7: ("sneakers", "trainers"), 8: ("a bag", "a handbag"),
}  # fmt: skip
PHRASES = ("I am looking for {}", "do you have {} in my size?", "please send me {}", "my order was {}, was it not?",
           "{}, please", "the label on the box says: {}")  # fmt: skip
QUESTIONS = {"shown": 0.25, "named": 0.25, "same": 0.35, "different": 0.15}
PARTS_RECIPE = {
    "model": {"width": 64}, "training": {"epochs": 10, "learning_rate": 1e-3, "batch_rows": 32},
}  # fmt: skip
PARTS = ["picture", "order", "asked", "picture+order", "picture+asked", "order+asked", "picture+order+asked"]
TEXTS = ["title", "review_text"]
TABLE = ["clothing_id", "age", "positive_feedback_count", "division_name", "department_name", "class_name"]
TARGETS = {
    "recommended": {"column": "recommended_ind"}, "rating": {"column": "rating", "type": "number"},
    "department": {"column": "department_name"},
}  # fmt: skip
# the item and its class would give the department away; here the opinions are columns of the table
OPINIONS = ["age", "positive_feedback_count", "division_name", "rating", "recommended_ind"]
INPUTS_OF = {
    target: {"text": TEXTS, "table": table, "both": TEXTS + table}
    for target, table in (("recommended", TABLE), ("rating", TABLE), ("department", OPINIONS))
}


def facts() -> dict[str, Any]:
    return {"threads": torch.get_num_threads(), "cores": os.cpu_count(), "torch": torch.__version__}


def clothing(judge: str) -> pa.Table:
    """The reviews with a column ``part``; of the official test rows nothing is left where ``judge`` is valid."""
    table = pq.read_table(DATA / "clothing_reviews.parquet")
    part = np.array(table["split"].to_pylist(), dtype=object)
    table = table.drop_columns(["split"])
    if judge == "valid":
        keep = part == "train"
        table, part = table.filter(pa.array(keep)), part[keep]
        part[uniform(11, np.arange(len(part))) < 0.2] = "test"
    return table.append_column("part", pa.array(part))


def trained(
    table: pa.Table, target: Any, inputs: list[str], seed: int, settings: dict[str, Any]
) -> tuple[Run, dict[str, Any]]:
    """A run on some columns of a table with a column ``part``, and the facts of its training."""
    column = target["column"]
    table = table.select([*inputs, column, "part"])
    training = {**settings.get("training", {}), "seed": seed}
    started, cpu = time.monotonic(), time.process_time()
    folder = Path(tempfile.mkdtemp()) / "run"
    run = weft.train(
        table, target, folder, quiet=True,
        **{
            "data": {"split": {"column": "part"}}, "results": {"baselines": False, "explain": "off"}, **settings,
            "training": training,
            "features": {n: f for n, f in settings.get("features", {}).items() if n in inputs},
        },
    )  # fmt: skip
    spent = {
        "seconds": round(time.monotonic() - started), "cpu_seconds": round(time.process_time() - cpu),
        "epochs": run.figures["model"]["epochs"], "parameters": run.figures["model"]["parameters"],
    }  # fmt: skip
    return run, spent


def answers(run: Any, rows: pa.Table) -> np.ndarray:
    """Probabilities [N, C] in the order of the classes, or numbers [N]."""
    found = run.predict(rows)
    classes = getattr(run.columns.target, "classes", None)
    if classes is None:
        return found["prediction"].to_numpy()
    return np.stack([found[f"probability of {c}"].to_numpy() for c in classes], axis=1)


def metrics_of(output: np.ndarray, truth: np.ndarray) -> dict[str, Callable[[np.ndarray], float]]:
    if output.ndim == 1:
        return number_metrics(output, truth)
    # the rarer class is looked for; AUC is the same for either
    return {k: v for k, v in class_metrics(output, truth, None).items() if k in ("accuracy", "auc", "log_loss")}


def estimates(outputs: dict[str, list[np.ndarray]], truth: np.ndarray, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """The mean over seeds of each metric and of each difference, with 95 % bootstrap intervals over the rows."""
    random = np.random.default_rng(0)
    n = len(truth)
    draws = [np.ones(n)] + [np.bincount(random.integers(0, n, n), minlength=n).astype(float) for _ in range(RESAMPLES)]
    table: dict[str, dict[str, np.ndarray]] = {}
    each: dict[str, dict[str, list[float]]] = {}
    for name, seeds in outputs.items():
        by_seed = [metrics_of(o, truth) for o in seeds]
        table[name] = {k: np.array([np.mean([m[k](w) for m in by_seed]) for w in draws]) for k in by_seed[0]}
        each[name] = {k: [round(m[k](draws[0]), 4) for m in by_seed] for k in by_seed[0]}

    def shown(values: np.ndarray) -> list[float]:
        return [round(float(v), 4) for v in (values[0], *np.quantile(values[1:], (0.025, 0.975)))]

    found = {name: {k: shown(v) for k, v in m.items()} for name, m in table.items()}
    for a, b in pairs:
        found[f"{a} - {b}"] = {k: shown(table[a][k] - table[b][k]) for k in table[a]}
    return {"estimates": found, "each_seed": each}


def run_clothing(judge: str, targets: list[str], inputs: list[str], seeds: list[int], settings: dict[str, Any]) -> None:
    whole = clothing(judge)
    for target in targets:
        table = whole.filter(whole[TARGETS[target]["column"]].is_valid())
        rows = table.filter(pa.array(np.array(table["part"].to_pylist()) == "test"))
        outputs: dict[str, list[np.ndarray]] = {}
        spent: dict[str, list[Any]] = {}
        for name in inputs:
            for seed in seeds:
                run, facts_of_it = trained(table, TARGETS[target], INPUTS_OF[target][name], seed, settings)
                outputs.setdefault(name, []).append(answers(run, rows))
                spent.setdefault(name, []).append(facts_of_it)
        truth = rows[TARGETS[target]["column"]].to_numpy(zero_copy_only=False)
        if outputs[inputs[0]][0].ndim == 2:
            truth = np.searchsorted(np.unique(truth.astype(str)), truth.astype(str))
        pairs = [("both", other) for other in inputs if other != "both" and "both" in inputs]
        print(
            json.dumps(
                {"benchmark": "fusion clothing", "target": target, "judge": judge, "rows": len(truth), "seeds": seeds,
                 "settings": settings, **estimates(outputs, truth, pairs), "spent": spent, **facts()}
            ), flush=True,
        )  # fmt: skip


def run_absent(tables: list[str], shares: list[float], seeds: list[int], rows: int, settings: dict[str, Any]) -> None:
    """What column dropout costs with all columns and gains without one, on validation rows: log loss with all columns,
    without each in turn, and without half of them."""
    for name in tables:
        if name == "adult":
            table = pq.read_table(DATA / "adult.parquet")
            table = table.filter(pa.array(np.array(table["split"].to_pylist()) == "train")).drop_columns(["split"])
            target, inputs = {"column": "income"}, [c for c in table.schema.names if c != "income"]
        else:
            table = clothing("valid").drop_columns(["part"])
            target, inputs = TARGETS["department"], INPUTS_OF["department"]["both"]
        draw = uniform(13, np.arange(len(table)))
        part = np.where(draw < 0.2, "test", np.where(draw < 0.2 + 0.8 * rows / len(table), "train", "left"))
        table = table.append_column("part", pa.array(part)).filter(pa.array(part != "left"))
        asked = table.filter(pa.array(np.array(table["part"].to_pylist()) == "test"))
        asked = asked.filter(asked[target["column"]].is_valid()).slice(0, 2_000)
        for seed in seeds:
            for share in shares:
                run, spent = trained(table, target, inputs, seed, {**settings, "training": {"column_dropout": share}})
                classes = run.columns.target.classes
                truth = np.array([classes.index(v) for v in asked[target["column"]].to_pylist()])

                def loss(without: list[str], run: Any = run, asked: pa.Table = asked, truth: Any = truth) -> float:
                    with warnings.catch_warnings(action="ignore"):
                        found = answers(run, asked.drop_columns(without))
                    return round(float(class_metrics(found, truth, None)["log_loss"](np.ones(len(truth)))), 4)

                each = {column: loss([column]) for column in inputs}
                halves = [np.random.default_rng(i).permutation(inputs)[::2].tolist() for i in range(8)]
                print(
                    json.dumps(
                        {"benchmark": "fusion absent", "table": name, "column_dropout": share, "seed": seed,
                         "settings": settings,
                         "rows": len(truth), "all": loss([]), "one_absent": round(float(np.mean([*each.values()])), 4),
                         "half_absent": round(float(np.mean([loss(h) for h in halves])), 4), "each": each,
                         "spent": spent, **facts()}
                    ), flush=True,
                )  # fmt: skip


def documents(judge: str, rows: int, reviews: int) -> pa.Table:
    """Long texts of about ``reviews`` clothing reviews, one after the other; asked is the mean of their ratings.

    Each review says a part of the answer, so what is not read costs. Documents of the parts are made of different
    reviews, whose ratings are drawn evenly: their mean would else vary little.
    """
    table = clothing(judge)
    part = np.array(table["part"].to_pylist(), dtype=object)
    part[(part == "train") & (uniform(12, np.arange(len(part))) < 0.15)] = "valid"
    texts = np.array(table["review_text"].to_pylist(), dtype=object)
    rating = table["rating"].to_numpy()
    made: dict[str, list[Any]] = {"document": [], "answer": [], "part": []}
    random = np.random.default_rng(3)
    for name, count in (("train", rows), ("valid", rows // 5), ("test", rows // 2)):
        mine = [np.flatnonzero((part == name) & (rating == r) & (texts != None)) for r in range(1, 6)]  # noqa: E711
        for _ in range(count):
            drawn = random.integers(0, 5, random.integers(reviews // 2, reviews + reviews // 2 + 1))
            picked = [random.choice(mine[r]) for r in drawn]
            made["document"].append("\n".join(texts[picked]))
            made["answer"].append(float(rating[picked].mean()))
            made["part"].append(name)
    return pa.table(made)


def run_documents(judge: str, seeds: list[int], rows: int, reviews: int, ways: list[str]) -> None:
    """A long text cut at the usual length, read whole by the backbone, and read ahead into summaries."""
    table = documents(judge, rows, reviews)
    asked = table.filter(pa.array(np.array(table["part"].to_pylist()) == "test"))
    truth = asked["answer"].to_numpy()
    longest = int(reviews * 1.5) * 90
    columns = {"cut": {}, "whole": {"max_tokens": longest, "summary": 0}}
    columns |= {f"summary {k}": {"max_tokens": longest, "summary": k} for k in (4, 16, 64)}
    for way in ways:
        for seed in seeds:
            settings = {"features": {"document": {"type": "text", **columns[way]}}, "training": {"epochs": 6}}
            run, spent = trained(table, {"column": "answer", "type": "number"}, ["document"], seed, settings)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            figures = estimates({way: [answers(run, asked)]}, truth, [])["estimates"]
            print(
                json.dumps({"benchmark": "fusion documents", "judge": judge, "rows": rows, "reviews": reviews,
                            "seed": seed, **figures, "spent": spent, "peak_gb": round(peak, 2), **facts()}), flush=True,
            )  # fmt: skip


def parts_of_an_order(rows: int, judged: int, judge: str) -> pa.Table:
    """A picture of five kinds of Fashion-MNIST, a text that names one of them, and a question about the two.

    The judged rows ask whether they are the same or whether they differ, each in half of the rows, and each text names
    what is in the picture in half of them: no part and no pair of parts says anything of the answer. The rows learnt
    from also ask what is shown and what is named, so that each part can be learnt for itself; and they ask more often
    whether the two are the same. Pictures of the judged rows are never learnt from.
    """
    data = np.load(DATA / "fashion_mnist.npz")
    random = np.random.default_rng(5)
    kept = np.flatnonzero(np.isin(data["y_train"], list(GARMENTS)))
    order = random.permutation(kept)
    x, y = data["x_train"][order], data["y_train"][order]
    new = np.flatnonzero(np.isin(data["y_test"], list(GARMENTS)))
    other = (data["x_test"][new], data["y_test"][new]) if judge == "test" else (x[-judged:], y[-judged:])
    watched = rows // 6
    taken = [("train", x[:rows], y[:rows]), ("valid", x[rows:][:watched], y[rows:][:watched])]
    taken.append(("test", *(a[:judged] for a in other)))
    made: dict[str, list[Any]] = {"picture": [], "order": [], "asked": [], "answer": [], "part": []}
    for part, pictures, classes in taken:
        for picture, shown in zip(pictures, classes, strict=True):
            named = shown if random.random() < 0.5 else random.choice([c for c in GARMENTS if c != shown])
            asked = random.choice(list(QUESTIONS), p=[0, 0, 0.5, 0.5] if part == "test" else list(QUESTIONS.values()))
            stream = io.BytesIO()
            Image.fromarray(picture).save(stream, "PNG")
            made["picture"].append(stream.getvalue())
            made["order"].append(random.choice(PHRASES).format(random.choice(GARMENTS[named])))
            made["asked"].append(asked)
            if asked in ("shown", "named"):
                made["answer"].append(GARMENTS[shown if asked == "shown" else named][0])
            else:
                made["answer"].append("yes" if (named == shown) == (asked == "same") else "no")
            made["part"].append(part)
    return pa.table(made)


def wilson(right: np.ndarray) -> dict[str, Any]:
    """The share of right answers with its 95 % interval (Wilson 1927)."""
    n, p, z = len(right), float(right.mean()), 1.96
    middle, width = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = ((middle + sign * width) / (1 + z**2 / n) for sign in (-1, 1))
    return {"accuracy": [round(v, 4) for v in (p, float(low), float(high))], "rows": n}


def run_parts(judge: str, seeds: list[int], rows: int, inputs: list[str], settings: dict[str, Any]) -> None:
    """Each part alone, each pair and all three."""
    table = parts_of_an_order(rows, 4_000, judge)
    asked = table.filter(pa.array(np.array(table["part"].to_pylist()) == "test"))
    columns = {"picture": {"type": "image", "size": 14}, "order": {"type": "text"}, "asked": {"type": "category"}}
    for names in inputs:
        for seed in seeds:
            chosen = {"features": columns, **PARTS_RECIPE, **settings}
            run, spent = trained(table, {"column": "answer"}, names.split("+"), seed, chosen)
            found = run.predict(asked)  # a model that is not told the question is still asked for yes or no
            yes = found["probability of yes"].to_numpy() > found["probability of no"].to_numpy()
            right = yes == (np.array(asked["answer"].to_pylist()) == "yes")
            figures = {names: wilson(right)}
            print(
                json.dumps({"benchmark": "fusion parts", "judge": judge, "rows": rows, "seed": seed,
                            "settings": settings, **figures, "spent": spent, **facts()}), flush=True,
            )  # fmt: skip


def cost_of(columns: int, length: int, summary: int, kind: str, rows: int = 8) -> dict[str, float]:
    """CPU seconds of a training step (median of 5, forward and backward) and the memory that it took, in its own
    process; ``rows`` rows of ``columns`` columns of random tokens or numbers, width 128, 2 layers, float32."""
    tokenizer = train_tokenizer(["a few words for a tokenizer"], lowercase=True)
    codecs: list[Any] = []
    batch: dict[str, dict[str, torch.Tensor]] = {}
    for i in range(columns):
        name = f"c{i}"
        if kind == "text":
            text = TextCodec(name)
            text.tokenizer = tokenizer
            codecs.append(text)
            tokens = torch.randint(0, tokenizer.get_vocab_size(), (rows, length), dtype=torch.int32)
            fields = {"tokens": tokens, "gram": torch.zeros(rows, 1, dtype=torch.int32), "weight": torch.zeros(rows, 1)}
        else:
            number = NumberCodec(name)
            number.edges = np.linspace(-2, 2, 33)
            codecs.append(number)
            fields = {"value": torch.randn(rows), "spike": torch.zeros(rows, dtype=torch.int32)}
        batch[name] = fields
    target = ClassTarget("y", ["a", "b"])
    target.counts = [1, 1]
    summaries = {c.name: summary for c in codecs} if summary else {}
    shape = TransformerConfig(width=128, layers=2, heads=4, ffn_width=256)
    model = RowModel(codecs, target, RowConfig(shape, 128, 0.0, linear=(), summaries=summaries)).train()
    data = Batch(batch, torch.zeros(rows, dtype=torch.int64), rows)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(6):
        started = time.process_time()
        model.loss(data).backward()
        times.append(time.process_time() - started)
        model.zero_grad()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"seconds": round(statistics.median(times[1:]), 3), "memory_mb": round(peak / 1e3)}


def run_cost() -> None:
    """How a step grows with the length of a column and with the number of columns, with and without summaries."""
    asked = [("text", 1, n, k) for n in (128, 256, 512, 1024, 2048, 4096) for k in (0, 16)]
    asked += [("text", n, 256, k) for n in (1, 2, 4, 8, 16) for k in (0, 16)]
    asked += [("number", n, 1, 0) for n in (8, 32, 128, 512)]
    for kind, columns, length, summary in asked:
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            found = alone.submit(cost_of, columns, length, summary, kind).result()
        print(
            json.dumps({"benchmark": "fusion cost", "kind": kind, "columns": columns, "length": length,
                        "summary": summary, "rows": 8, **found, **facts()}), flush=True,
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["clothing", "parts", "absent", "documents", "cost"])
    parser.add_argument("--rows", type=int, default=4_000)
    parser.add_argument("--reviews", type=int, default=10)
    parser.add_argument("--ways", nargs="+", help="which of the ways; default: all")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.0, 0.1, 0.2])
    parser.add_argument("--judge", choices=["valid", "test"], default="test")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--inputs", nargs="+", default=["text", "table", "both"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--settings", type=json.loads, default={}, help="more settings, as JSON")
    arguments = parser.parse_args()
    if arguments.what == "cost":
        run_cost()
        return
    if arguments.what == "absent":
        run_absent(arguments.ways or ["adult", "clothing"], arguments.shares, arguments.seeds, arguments.rows,
                   arguments.settings)  # fmt: skip
        return
    if arguments.what == "parts":
        run_parts(arguments.judge, arguments.seeds, arguments.rows, arguments.ways or PARTS, arguments.settings)
        return
    if arguments.what == "documents":
        run_documents(arguments.judge, arguments.seeds, arguments.rows, arguments.reviews,
                      arguments.ways or ["cut", "whole", "summary 16"])  # fmt: skip
        return
    run_clothing(arguments.judge, arguments.targets, arguments.inputs, arguments.seeds, arguments.settings)


if __name__ == "__main__":
    main()
