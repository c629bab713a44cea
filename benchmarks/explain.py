"""Rows explained per CPU second, and how faithfully, beside shap, lime and captum at equal questions to the model.

    uv run python benchmarks/explain.py text --rows 12
    uv run python benchmarks/explain.py adult --rows 40

``text``: MiniLM fine-tuned to tell from a review whether the article is recommended; reviews of 60 to 120 words.
``adult``: the census table. The peers ask the same model in float32 through the same two functions: words left out of
a text, or values replaced by the typical ones, in batches of 64. Weft asks as often as they, until it is sure (its
default), and less often, to see how many questions it needs to be as faithful. Faithfulness: the mean log odds while
parts are taken away, most telling first (deletion: lower is better), and while they are put in (insertion: higher is
better), asked in float32. Of few players ``off_exact``: the distance to the exact Shapley values (root mean square,
out of the row's largest). One JSON line a method. Needs one thread: the ratios are of CPU seconds.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shap
import torch
from captum.attr import KernelShap, ShapleyValueSampling
from lime.lime_text import LimeTextExplainer

import weft
from machine import DATA, minilm
from weft.data.table import Table
from weft.features.batching import collate
from weft.features.ragged import take
from weft.preprocess.clean import CleanBatch
from weft.results.explain import methods, sampling, shapley, why
from weft.results.explain.game import Games
from weft.runs.run import Run

BATCH = 64
Explainer = Callable[[Callable[[np.ndarray], np.ndarray], int, int], np.ndarray]


def text_run(folder: Path) -> tuple[Run, pa.Table]:
    table = pq.read_table(DATA / "clothing_reviews.parquet", columns=["review_text", "recommended_ind", "split"])
    train = table.filter(pc.equal(table["split"], "train")).slice(0, 3_000)
    run = weft.train(
        train.select(["review_text", "recommended_ind"]), "recommended_ind", folder, quiet=True,
        model={"from": minilm()}, training={"epochs": 1}, results={"baselines": False},
    )  # fmt: skip
    test = table.filter(pc.equal(table["split"], "test"))
    words = pc.list_value_length(pc.split_pattern(pc.fill_null(test["review_text"], ""), " "))
    chosen = pc.and_(pc.greater_equal(words, 60), pc.less_equal(words, 120))
    return run, test.filter(chosen).select(["review_text"])


def adult_run(folder: Path) -> tuple[Run, pa.Table]:
    table = pq.read_table(DATA / "adult.parquet")
    run = weft.train(
        table, "income", folder, quiet=True, data={"split": {"column": "split"}}, results={"baselines": False}
    )
    return run, table.filter(pc.equal(table["split"], "test"))


def asked_plainly(games: Games, row: int) -> Callable[[np.ndarray], np.ndarray]:
    """The game of a row as a peer would ask it: float32, batches of 64 padded as they come."""

    def value(present: np.ndarray) -> np.ndarray:
        found = []
        for start in range(0, len(present), BATCH):
            part = list(np.asarray(present[start : start + BATCH]) > 0.5)
            rows = np.full(len(part), row)
            codes = games.players.codes(rows, part)
            picked = {c: {n: take(a, np.arange(len(part))) for n, a in f.items()} for c, f in codes.items()}
            output = games.model.predict(collate(picked, len(part))).cpu().numpy()
            found.append(games._score(rows, output))
        return np.concatenate(found)

    return value


def lime_words(value: Callable[[np.ndarray], np.ndarray], players: int, questions: int) -> np.ndarray:
    """LIME over as many different words; what stays of the text is what the masks say."""
    names = [f"w{i}" for i in range(players)]
    place = {n: i for i, n in enumerate(names)}

    def classify(texts: list[str]) -> np.ndarray:
        present = np.zeros((len(texts), players))
        for i, text in enumerate(texts):
            present[i, [place[w] for w in text.split()]] = 1
        z = value(present)
        return np.stack([-z, z], axis=1)

    explainer = LimeTextExplainer(split_expression=r"\s+", random_state=0)
    done = explainer.explain_instance(
        " ".join(names), classify, labels=(1,), num_features=players, num_samples=questions
    )
    found = np.zeros(players)
    for word, weight in done.as_list(label=1):
        found[place[word]] = weight
    return found


def by_captum(method: type, name: str) -> Explainer:
    def explain(value: Callable[[np.ndarray], np.ndarray], players: int, questions: int) -> np.ndarray:
        samples = questions if name == "kernel" else max(1, questions // (players + 1))
        given = {"n_samples": samples, "perturbations_per_eval": BATCH}
        done = method(lambda x: torch.from_numpy(value(x.numpy()))).attribute(
            torch.ones(1, players), baselines=torch.zeros(1, players), **given
        )
        return done[0].numpy().astype(np.float64)

    return explain


PEERS: dict[str, Explainer] = {
    "shap permutation": lambda value, players, questions: shap.PermutationExplainer(value, np.zeros((1, players)))(
        np.ones((1, players)), max_evals=max(questions, 2 * players + 1), batch_size=BATCH, silent=True
    ).values[0],
    "shap kernel": lambda value, players, questions: shap.KernelExplainer(value, np.zeros((1, players))).shap_values(
        np.ones((1, players)), nsamples=questions, silent=True
    )[0],
    "lime": lime_words,
    "captum kernel": by_captum(KernelShap, "kernel"),
    "captum sampling": by_captum(ShapleyValueSampling, "sampling"),
}


def faithfulness(games: Games, row: int, shares: np.ndarray) -> tuple[float, float]:
    """Means of the log odds while parts go, and while they come, the most telling first."""
    rank = np.argsort(np.argsort(-shares, kind="stable"))
    steps = np.arange(len(shares) + 1)[:, None]
    present = np.concatenate([rank >= steps, rank < steps])
    rows = np.full(len(present), row)
    said = games._score(rows, games._predict(rows, list(present), exact=True))
    gone, come = np.split(said, 2)
    return float(gone.mean()), float(come.mean())


Told = dict[str, tuple[list[np.ndarray], float, float]]
"""Of each method the shares of every row, CPU seconds for all, questions a row."""


def ours(run: Run, clean: CleanBatch, questions: int) -> Told:
    one = CleanBatch(clean.rows[:1], {n: a.slice(0, 1) for n, a in clean.columns.items()}, [])
    why.explain(run.columns, run.model, one, evaluations=128)  # what a first call costs is not counted
    ways = [("weft shap", 0.0, "shap", questions)]
    ways.append(("weft shap, stops when sure", sampling.SURE, "shap", why.EVALUATIONS))
    least = 2 * max(len(p) for p in Games(run.columns, run.model, clean).players.rows)
    ways += [(f"weft shap, {n} questions", 0.0, "shap", n) for n in (32, 64, 128, 256, 384) if least < n < questions]
    ways += [("weft lime", 0.0, "lime", questions), ("weft gradient", 0.0, "gradient", questions)]
    told: Told = {}
    for name, sure, method, asked in ways:
        methods.owen = functools.partial(sampling.owen, sure=sure)
        started = time.process_time()
        done = why.explain(run.columns, run.model, clean, method, evaluations=asked, changes=False)
        told[name] = [e.shares for e in done], time.process_time() - started, done[0].evaluations
        methods.owen = sampling.owen
    return told


def theirs(games: Games, questions: int) -> Told:
    told: Told = {}
    for name, peer in PEERS.items():
        peer(lambda present: present @ np.arange(8.0), 8, 64)  # what a first call costs is not counted
        asked, started, shares = [0], time.process_time(), []
        for r, players in enumerate(games.players.rows):
            value = asked_plainly(games, r)

            def counted(
                present: np.ndarray, value: Callable[[np.ndarray], np.ndarray] = value, asked: list[int] = asked
            ) -> np.ndarray:
                asked[0] += len(present)
                return value(present)

            shares.append(np.asarray(peer(counted, len(players), questions), np.float64))
        told[name] = shares, time.process_time() - started, asked[0] / len(games.players.rows)
        print(json.dumps({"method": name, "cpu_seconds": round(told[name][1], 1)}), file=sys.stderr, flush=True)
    return told


def measure(work: str, run: Run, table: pa.Table, rows: int, questions: int) -> None:
    clean = next(iter(run._predictor(False).clean(Table.of(table.slice(0, rows)))))
    games = Games(run.columns, run.model, clean)
    told = ours(run, clean, questions) | theirs(games, questions)
    random = np.random.default_rng(0)
    told["random order"] = [random.random(len(p)) for p in games.players.rows], 0.0, 0
    few = max(map(len, games.players.rows)) <= 14
    exact = [shapley.exact(games.game(r), len(p)).values for r, p in enumerate(games.players.rows)] if few else None
    for name, (shares, seconds, asked_a_row) in told.items():
        curves = np.array([faithfulness(games, r, s) for r, s in enumerate(shares)])
        off = [np.sqrt(((s - e) ** 2).mean()) / np.abs(e).max() for s, e in zip(shares, exact or [], strict=False)]
        print(json.dumps({
            "benchmark": "explain", "work": work, "method": name, "rows": rows, "questions": round(float(asked_a_row)),
            "cpu_seconds_a_row": round(seconds / rows, 4),
            "ratio_to_weft": round(seconds / told["weft shap"][1], 2),
            "ratio_to_default": round(seconds / told["weft shap, stops when sure"][1], 2),
            "deletion": round(float(curves[:, 0].mean()), 3), "insertion": round(float(curves[:, 1].mean()), 3),
            "off_exact": round(float(np.mean(off)), 4) if few else None,
            "players": round(float(np.mean([len(p) for p in games.players.rows])), 1), "torch": torch.__version__,
        }), flush=True)  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("work", choices=["text", "adult"])
    arguments.add_argument("--rows", type=int, default=12)
    arguments.add_argument("--questions", type=int, default=512)
    arguments.add_argument("--run", type=Path, help="a run made before, instead of training one")
    given = arguments.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        make = {"text": text_run, "adult": adult_run}[given.work]
        run, table = make(given.run or Path(folder) / "run") if given.run is None else _made(given)
        measure(given.work, run, table, given.rows, given.questions)


def _made(given: argparse.Namespace) -> tuple[Run, pa.Table]:
    kept, weft.train = weft.train, lambda *_, **__: weft.load(given.run)
    try:
        return {"text": text_run, "adult": adult_run}[given.work](given.run)
    finally:
        weft.train = kept


if __name__ == "__main__":
    main()
