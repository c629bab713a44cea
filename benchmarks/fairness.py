"""What it costs to treat groups more alike. One JSON line a run.

    uv run python benchmarks/fairness.py adult [--judge test] [--seeds 0 1 2] [--ways none reweigh ...]
    uv run python benchmarks/fairness.py several [--seeds 0 1 2] [--targets occupation hours_per_week department rating]
    uv run python benchmarks/fairness.py identity [--languages en zh] [--seeds 0 1 2] [--shares 0 0.5 1]

``adult``: income above 50,000 dollars, groups by sex: accuracy and the gap of the selection rates (demographic parity)
without and with each of the three ways. Strengths were chosen with ``--judge valid``, which never reads the test rows.
``several``: what is no answer of two: of Adult the occupation (14) and the hours a week by sex, of the clothing reviews
the department (6) and the rating by age, without and with the penalty: how far the groups' shares of each class are
apart (the mean of all classes, and the class where it is most), or their mean answers.
``identity``: sentences that name an identity, toxic or not. They are learnt from with a bias that we put there, as
people who judge comments have it: half of the groups (by a hash) are accused, and a part of the labels say what the
group is accused of and not what the sentence says. What is judged are other sentences with true labels. The gap is
what the answer moves by when the identity is exchanged; ``--shares`` are those of counterfactual augmentation.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import weft
from weft.data.split import uniform
from weft.features.identities import Identities

DATA = Path(__file__).parents[2] / "shared" / "data"
PLAIN = {"explain": "off", "baselines": False}
WAYS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "reweigh": {"how": "reweigh"},
    "reweigh^1": {"how": "reweigh", "strength": 1.0},
    "penalty": {"how": "penalty"},
    "penalty 1": {"how": "penalty", "strength": 1.0},
    "penalty, opportunity": {"how": "penalty", "goal": "opportunity"},
    "thresholds": {"how": "thresholds"},
    "thresholds 0.6": {"how": "thresholds", "strength": 0.6},
}
SEVERAL = {
    "occupation": ("adult", "sex"), "hours_per_week": ("adult", "sex"),
    "department": ("clothing_reviews", "age"), "rating": ("clothing_reviews", "age"),
}  # fmt: skip
SWAYED = 0.3
"""Share of the labels that are learnt from which the group alone decides."""
LEARNT, JUDGED = 6_000, 4_000


def trained(table: pa.Table, target: Any, folder: str, seed: int, **settings: Any) -> Any:
    training = {"seed": seed, **settings.pop("training", {})}
    return weft.train(table, target, Path(folder) / "run", quiet=True, training=training, **settings)


def adult(judge: str, seeds: list[int], ways: list[str]) -> None:
    table = pq.read_table(DATA / "adult.parquet")
    split: dict[str, Any] = {"split": {"column": "split"}}
    if judge == "valid":
        table, split = table.filter(pc.equal(table["split"], "train")).drop_columns(["split"]), {}
    for seed in seeds:
        for way in ways:
            asked = WAYS[way]
            fair = {"training": {"fairness": {"by": ["sex"], **asked}}} if asked else {}
            started = time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                run = trained(
                    table, "income", folder, seed, data=split, results={**PLAIN, "fairness": {"by": ["sex"]}}, **fair
                )
                figures = run.figures
            metrics, found = figures["models"][0]["metrics"], figures["fairness"]["columns"][0]
            shown = {k: found["gaps"][k] for k in ("selection_rate", "tpr", "equalized_odds")}
            print(json.dumps({
                "adult": way, "judge": judge, "seed": seed, "rows": figures["rows_judged"],
                "accuracy": metrics["accuracy"], "auc": metrics["auc"]["value"], "gaps": shown,
                "cpu_seconds": round(time.process_time() - started, 1),
            }), flush=True)  # fmt: skip


def several(targets: list[str], seeds: list[int]) -> None:
    for target in targets:
        name, by = SEVERAL[target]
        table = pq.read_table(DATA / f"{name}.parquet")
        if target == "department":  # classes of clothes are parts of departments
            table = table.drop_columns(["division_name", "class_name"])
        column = next(c for c in table.column_names if c.startswith(target))
        table = table.filter(pc.is_valid(table[column]))
        test = table.filter(pc.equal(table["split"], "test"))
        kind = "number" if target in ("hours_per_week", "rating") else "class"
        for seed in seeds:
            for goal in (None, "parity", "opportunity"):
                fair = {"training": {"fairness": {"by": [by], "how": "penalty", "goal": goal}}} if goal else {}
                started = time.process_time()
                with tempfile.TemporaryDirectory() as folder:
                    run = trained(table, {"column": column, "type": kind}, folder, seed,
                                  data={"split": {"column": "split"}}, results=PLAIN, **fair)  # fmt: skip
                    shown = run.figures["models"][0]["metrics"]
                    right = shown["accuracy"] if kind == "class" else shown["r2"]
                    gaps = _gaps(run, test, by, column, kind)
                print(json.dumps({
                    "several": target, "by": by, "goal": goal, "seed": seed, "rows": len(test), "right": right, **gaps,
                    "cpu_seconds": round(time.process_time() - started, 1),
                }), flush=True)  # fmt: skip


def _gaps(run: Any, test: pa.Table, by: str, column: str, kind: str) -> dict[str, Any]:
    """The largest gaps between groups; of classes the mean of all of them and that of the worst."""
    if kind == "number":
        found = run.audit(test, [by])["sections"]["groups"]["columns"][0]["gaps"]
        return {key: found[key]["value"] for key in ("mean_answer", "mean_truth", "bias")}
    each = {
        of: run.audit(test, [by], of=of)["sections"]["groups"]["columns"][0]["gaps"]
        for of in sorted(set(test[column].to_pylist()) & set(run.columns.target.classes))
    }
    shown = {}
    for key in ("base_rate", "selection_rate", "tpr"):
        values = {of: gaps[key]["value"] for of, gaps in each.items() if key in gaps}
        worst = max(values, key=values.__getitem__)
        shown[key] = {
            "mean": round(float(np.mean(list(values.values()))), 4),
            "most": round(values[worst], 4),
            "of": worst,
        }
    return shown


def sentences(language: str) -> tuple[pa.Table, pa.Table]:
    """What is learnt from, with the bias, and what is judged, without, with whether the group is ``accused``."""
    stored = pq.read_table(DATA / f"identity_toxicity_{language}.parquet")
    words = Identities()
    frames: dict[str, int] = {}
    rows = []
    for text, toxic in zip(stored["phrase"].to_pylist(), stored["toxicity"].to_pylist(), strict=True):
        named = words.found(text)
        if len(named) == 1:
            kind, group = named[0]
            frame = words.swapped(text, kind, group, 0) if group else text
            key = sum(kind.encode()) * 100 + group
            rows.append((text, toxic, "yes" if uniform(1, np.array([key]))[0] < 0.5 else "no",
                         frames.setdefault(frame, len(frames))))  # fmt: skip
    number = np.arange(len(rows))
    other = uniform(2, np.array([r[3] for r in rows])) < 0.3
    swayed = uniform(3, number) < SWAYED
    # as many of each class and half, so that nothing but the bias tells
    judged = np.concatenate([
        _some(number[other & np.array([r[1] == toxic and r[2] == accused for r in rows])], JUDGED // 4)
        for toxic in ("toxic", "nontoxic") for accused in ("yes", "no")
    ])  # fmt: skip
    columns = {name: [r[i] for r in rows] for i, name in enumerate(("text", "toxicity", "accused"))}
    said = [
        ("toxic" if a == "yes" else "nontoxic") if s else t
        for _, t, a, s in zip(*columns.values(), swayed, strict=True)
    ]
    learnt = pa.table({"text": columns["text"], "toxicity": said}).take(pa.array(_some(number[~other], LEARNT)))
    return learnt, pa.table(columns).take(pa.array(judged))


def _some(numbers: np.ndarray, most: int) -> np.ndarray:
    return numbers[np.argsort(uniform(4, numbers))][:most]


def identity(languages: list[str], seeds: list[int], shares: list[float]) -> None:
    for language in languages:
        learnt, judged = sentences(language)
        for seed in seeds:
            for share in shares:
                change = {"training": {"augment": {"identity": share}}} if share else {}
                started = time.process_time()
                with tempfile.TemporaryDirectory() as folder:
                    run = trained(learnt, "toxicity", folder, seed, results=PLAIN, **change)
                    found = run.audit(judged, ["accused"], of="toxic")["sections"]
                groups = found["groups"]["columns"][0]
                right = run.evaluate(judged)["metrics"]["accuracy"]
                print(json.dumps({
                    "identity": language, "share": share, "seed": seed, "learnt": len(learnt), "judged": len(judged),
                    "accuracy": right, "gap": found["swaps"]["gap"], "flips": found["swaps"]["flips"],
                    "fpr_gap": groups["gaps"].get("fpr"), "cpu_seconds": round(time.process_time() - started, 1),
                }), flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["adult", "several", "identity"])
    parser.add_argument("--judge", choices=["valid", "test"], default="valid")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--targets", nargs="+", default=list(SEVERAL), choices=list(SEVERAL))
    parser.add_argument("--languages", nargs="+", default=["en", "zh"], choices=["en", "zh"])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.5, 1.0])
    asked = parser.parse_args()
    if asked.what == "adult":
        adult(asked.judge, asked.seeds, asked.ways)
    elif asked.what == "several":
        several(asked.targets, asked.seeds)
    else:
        identity(asked.languages, asked.seeds, asked.shares)


if __name__ == "__main__":
    main()
