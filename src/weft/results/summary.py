"""The figures of a run: the model beside its baselines, each with an interval, and a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from weft.features.targets import ClassTarget, LabelsTarget, NumberTarget, Target
from weft.results import baselines
from weft.results.baselines import Baseline
from weft.results.beside import Judged
from weft.results.metrics import METRICS, Estimate, difference, reliability
from weft.results.outcomes import Outcomes, in_unit

SHOWN = {
    "class": ("accuracy", "auc", "f1", "balanced_accuracy", "log_loss", "ece"),
    "labels": ("micro_f1", "macro_f1", "subset_accuracy", "average_precision"),
    "number": ("mae", "rmse", "r2"),
}
VERDICT_KEYS = {"class": ("accuracy", "log_loss"), "labels": ("micro_f1", "macro_f1"), "number": ("mae", "rmse")}
CURVE_POINTS = 60


def judge(key: str, title: str, said: Outcomes, note: str = "", seconds: float = 0.0) -> Judged:
    return Judged.of(key, title, said.metrics(), len(said), note, seconds, said.width)


def train_baselines(
    types: Mapping[str, str], train: Mapping[str, pa.Array], train_truth: np.ndarray, test: Mapping[str, pa.Array],
    target: Target,
) -> list[Baseline]:  # fmt: skip
    """Trivial, linear and boosted trees, on raw columns; outputs in the target's own unit."""
    classes = len(target.classes) or None
    truth = in_unit(target, train_truth) if isinstance(target, NumberTarget) else train_truth
    rows = len(next(iter(test.values())))
    found = [
        baselines.trivial(truth, rows, classes),
        baselines.linear(types, train, truth, test, classes),
        baselines.boosted_trees(types, train, truth, test, classes),
    ]
    return [b for b in found if b is not None]


def positive_class(target: Target, wanted: str | None) -> int | None:
    """Of two classes the one that is looked for: as said, or the rarer."""
    if not isinstance(target, ClassTarget) or len(target.classes) != 2:
        return None
    if wanted is not None:
        return target.classes.index(wanted)
    return int(np.argmin(target.counts)) if target.counts[0] != target.counts[1] else 1


Said = tuple[str, dict[str, Any]]
"""A sentence as a phrase and what fills it, so that a report can be written in another language."""


_NOT_SURELY = (
    "The model is not surely better than {title}: the columns tell little about '{target}', or there are too few rows."
)
_WINS = "It is better than the best simple model ({title}) by {size} in {metric}."
_SIMPLE_WINS = "The best simple model ({title}) is better by {size} in {metric}. It is cheaper as well: use it."
_BESIDE = "in {metric} beside the best simple model ({title}), which on {rows:,} test rows is within chance."
_WITHIN_CHANCE = {
    1: f"It is ahead by {{size}} {_BESIDE}", 0: f"It is level {_BESIDE}", -1: f"It is behind by {{size}} {_BESIDE}",
}  # fmt: skip


def in_english(said: Sequence[Said]) -> list[str]:
    return [phrase.format(**values) for phrase, values in said]


def verdict(target: Target, ours: Judged, others: Sequence[Judged], rows: int) -> dict[str, Any]:
    """Who wins, by how much and how surely; what to use."""
    keys = VERDICT_KEYS[target.type]
    rivals = [o for o in others if o.key != "trivial"]
    trivial = next((o for o in others if o.key == "trivial"), None)
    said: list[Said] = []
    recommended, key, metric = ours.title, keys[0], METRICS[keys[0]]
    sign = 1 if metric.higher_is_better else -1
    gaps = {o.key: {k: difference(ours.metrics, o.metrics, k, rows) for k in keys} for o in others}
    if trivial is not None:
        gap = gaps["trivial"][key]
        if sign * gap.value <= 0 or gap.low <= 0 <= gap.high:
            said.append((_NOT_SURELY, {"title": _lower(trivial.title), "target": target.name}))
    if rivals:
        best = max(rivals, key=lambda o: sign * o.estimates[key].value)
        gap = gaps[best.key][key]
        ahead, sure = sign * gap.value, not gap.low <= 0 <= gap.high
        values = {
            "title": _lower(best.title), "size": _amount(metric.percent, abs(gap.value)),
            "metric": metric.title.lower(), "rows": rows,
        }  # fmt: skip
        recommended = ours.title if ahead > 0 and sure else best.title
        if sure:
            said.append((_WINS if ahead > 0 else _SIMPLE_WINS, values))
        else:
            said.append((_WITHIN_CHANCE[int(np.sign(ahead))], values))
            said.append(("The simple model is cheaper and easier to check: use it unless more data come.", {}))
    return {
        "lines": in_english(said), "said": said, "recommended": recommended,
        "differences": {o: {k: e.to_dict() for k, e in g.items()} for o, g in gaps.items()},
    }  # fmt: skip


def _lower(title: str) -> str:
    return title[0].lower() + title[1:]


def _amount(percent: bool, value: float) -> str:
    return f"{100 * value:.1f} points" if percent else f"{value:.4g}"


def curves(said: Outcomes) -> dict[str, Any]:
    """What the report draws: reliability and confusion of classes, predicted against true numbers."""
    if isinstance(said.target, LabelsTarget):
        return {}
    if isinstance(said.target, NumberTarget):
        step = max(1, len(said) // 400)
        pairs = zip(said.true_numbers[::step], said.output[::step], strict=True)
        return {"scatter": [[float(a), float(b)] for a, b in pairs]}
    found: dict[str, Any] = {"reliability": reliability(said.probabilities, said.truth)}
    if len(said.classes) <= 12:
        table = np.zeros((len(said.classes), len(said.classes)), int)
        np.add.at(table, (said.truth, said.given), 1)
        found["confusion"] = table.tolist()
    return found


def sentence(target: Target, ours: Judged, trivial: Judged | None, rows: int, tested: bool) -> list[Said]:
    """The result in words, with its interval and what guessing would give. ``tested``: on rows it never saw."""
    values: dict[str, Any] = {"rows": rows, "target": target.name}
    if isinstance(target, ClassTarget):
        a = ours.estimates["accuracy"]
        values |= {"value": a.value, "interval": a.interval(".1%"), **_ends(a, ".1%")}
        first = "the model named the right '{target}' in {value:.1%} ({interval})."
        guess = "Always answering the most frequent class would be right in {value:.1%}.", "accuracy"
    elif isinstance(target, LabelsTarget):
        f, exact = ours.estimates["micro_f1"], ours.estimates["subset_accuracy"]
        values |= {"value": f.value, "exact": exact.value, "interval": f.interval(".3f"), **_ends(f, ".3f")}
        first = (
            "the model gave the labels of '{target}' with an F1 of {value:.3f} ({interval}) and all of a row's labels "
            "right in {exact:.1%}."
        )
        guess = "Always the same labels would have {value:.3f}.", "micro_f1"
    else:
        m, r = ours.estimates["mae"], ours.estimates["r2"]
        values |= {"value": m.value, "interval": m.interval(".4g"), "r2": r.value, **_ends(m, ".4g")}
        first = "the model's '{target}' is off by {value:.4g} on average ({interval})"
        first += " and explains {r2:.0%} of the variation." if r.value == r.value else "."
        guess = "Always answering the mean would be off by {value:.4g}.", "mae"
    where = "On {rows:,} rows it never saw, " if tested else "On {rows:,} validation rows, which chose the best epoch, "
    said: list[Said] = [(where + first, values)]
    if trivial is not None:
        said.append((guess[0], {"value": trivial.estimates[guess[1]].value}))
    return said


def _ends(estimate: Estimate, form: str) -> dict[str, str]:
    return {k: f"{v:{form}}" if v == v else "–" for k, v in (("low", estimate.low), ("high", estimate.high))}
