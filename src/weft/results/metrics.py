"""Metrics with bootstrap intervals (Efron 1979); where every row is right or every row wrong, Wilson's.

Every metric is a function of row weights, so that one resample is one vector of counts and nothing is
sorted twice. Names and definitions are scikit-learn's, against which they are tested.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

ECE_BINS = 15
Weighted = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def interval(self, form: str) -> str:
        """The interval in words, its ends written in ``form``."""
        if not np.isfinite(self.low):
            return "no 95 % interval: not one row is wrong"
        return f"95 % interval {self.low:{form}} to {self.high:{form}}"

    def to_dict(self) -> dict[str, float | None]:
        """As JSON, which has no NaN: what cannot be told is None."""
        found = {"value": self.value, "low": self.low, "high": self.high}
        return {k: v if np.isfinite(v) else None for k, v in found.items()}


UNKNOWN = Estimate(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Metric:
    """How a metric is named and shown to a person."""

    key: str
    title: str
    meaning: str
    higher_is_better: bool
    percent: bool = False
    share: bool = False
    """A share of the rows, each right or wrong."""


METRICS = {m.key: m for m in (
    Metric("accuracy", "Accuracy", "share of rows where the predicted class is the true one", True, True, True),
    Metric("auc", "AUC", "chance that a row of the class is ranked above one that is not; 0.5 is guessing", True),
    Metric("f1", "F1", "balance of finding the class and not crying wolf; 1 is perfect", True),
    Metric("balanced_accuracy", "Balanced accuracy", "accuracy with every class counted alike", True, True),
    Metric("log_loss", "Log loss", "surprise at the truth, in nats a row; 0 is certainty of the truth", False),
    Metric("ece", "Calibration error", "gap between stated and true probability (15 bins)", False, True),
    Metric("micro_f1", "F1 of all labels", "balance of finding the labels and not crying wolf, over all cells", True),
    Metric("macro_f1", "F1 a label", "as before, each label counted alike however rare", True),
    Metric("subset_accuracy", "All labels right",
           "share of rows whose labels are exactly the true ones", True, True, True),
    Metric("average_precision", "Average precision",
           "how well each label's rows are ranked first; mean of the labels", True),
    Metric("mae", "MAE", "mean distance from the truth, in the target's unit", False),
    Metric("rmse", "RMSE", "as MAE, with large errors counted more", False),
    Metric("bits_per_byte", "Bits per byte", "bits that a byte of text costs; 8 is knowing nothing", False),
    Metric("bits_per_letter", "Bits per letter", "bits that a letter of text costs", False),
    Metric("nats_per_letter", "Nats per letter", "the same in natural units, as training losses are", False),
    Metric("perplexity", "Perplexity", "tokens between which the model hesitates on average", False),
    Metric("masked_perplexity", "Masked perplexity", "tokens between which it hesitates where one is hidden", False),
    Metric("r2", "R²", "share of the target's variation that is explained; 0 is the mean", True),
    Metric("bleu", "BLEU", "words and phrases shared with the reference; 100 is the same text", True),
    Metric("chrf", "chrF", "letters in a row shared with the reference; 100 is the same text", True),
    Metric("rouge1", "ROUGE-1", "words (Chinese: characters) shared with the reference", True, True),
    Metric("rouge2", "ROUGE-2", "pairs of neighbours shared with the reference", True, True),
    Metric("rougeL", "ROUGE-L", "longest common sequence with the reference", True, True),
    Metric("rougeLsum", "ROUGE-Lsum", "as ROUGE-L, line by line", True, True),
    Metric("exact_match", "Exact match", "share of answers that are a reference, but for articles", True, True, True),
    Metric("answer_f1", "Answer F1", "words (Chinese: characters) shared with the best reference", True, True),
    Metric("answer_f1_given", "F1 where there is one", "answer F1 of the questions that have an answer", True, True),
    Metric("no_answer", "Silence where there is none", "share of the others that are left unanswered", True, True),
    Metric("recall_at_1", "Recall at 1", "share of queries whose text is the nearest of all", True, True, True),
    Metric("recall_at_5", "Recall at 5", "share of queries whose text is among the nearest five", True, True, True),
    Metric("recall_at_10", "Recall at 10", "share of queries whose text is among the nearest ten", True, True, True),
    Metric("mrr", "MRR", "mean of 1 / the place of the right one; 1 is always first", True),
    Metric("hit_at_1", "Hits at 1", "share of users whose next item is ranked first of all", True, True, True),
    Metric("hit_at_10", "Hits at 10", "share of users whose next item is among the first ten", True, True, True),
    Metric("ndcg_at_10", "NDCG at 10", "as hits at 10, where a later place counts less", True),
    Metric("coverage", "Coverage", "share of the catalogue that is recommended to anyone", True, True),
    Metric("popularity", "Popularity",
           "share of the catalogue that is less popular than what is recommended", False, True),
    Metric("exposure", "Recommended", "share of the recommended places that its items have", True, True),
    Metric("had_next", "Had next", "share of what users truly had next that is of the group", True, True),
    Metric("offered", "In the catalogue", "share of all items that is of the group", True, True),
    Metric("base_rate", "Truly so", "share of rows that truly are of the class looked for", True, True, True),
    Metric("selection_rate", "Selected", "share of rows that are given the class looked for", True, True, True),
    Metric("tpr", "Found", "share of those truly so that are selected (true positive rate)", True, True, True),
    Metric("fpr", "Wrongly selected", "share of the others selected too (false positive rate)", False, True, True),
    Metric("calibration", "Leaning", "mean probability given, less the share that is so; 0 is right", False, True),
    Metric("declined", "Declined", "share of rows that are not answered", False, True, True),
    Metric("label_accuracy", "Labels right", "share of a row's labels, there or not, that are right", True, True),
    Metric("bias", "Bias", "mean of what is said minus what is true, in the target's unit; 0 is right", False),
    Metric("mean_truth", "Truly", "mean of what is true, in the target's unit", True),
    Metric("mean_answer", "Answer", "mean of what is said, in the target's unit", True),
    Metric("gini", "Gini", "0: all items are recommended alike; 1: one item always", False),
)}  # fmt: skip


def class_metrics(probabilities: np.ndarray, target: np.ndarray, positive: int | None) -> dict[str, Weighted]:
    """Metrics of probabilities [N, C] against class codes [N]; ``positive`` is the class of F1 and AUC when C = 2."""
    n, classes = probabilities.shape
    guess = probabilities.argmax(axis=1)
    right = (guess == target).astype(np.float64)
    surprise = -np.log(np.clip(probabilities[np.arange(n), target], 1e-15, 1))
    metrics: dict[str, Weighted] = {"accuracy": mean_of(right)}
    if classes == 2:
        p = 1 if positive is None else positive
        metrics["auc"] = auc(probabilities[:, p], target == p)
        metrics["f1"] = _f1(guess == p, target == p)
    else:
        present = [c for c in range(classes) if 0 < (target == c).sum() < n]
        curves = [auc(probabilities[:, c], target == c) for c in present]
        scores = [_f1(guess == c, target == c) for c in range(classes) if ((target == c) | (guess == c)).any()]
        metrics["auc"] = lambda w: float(np.mean([a(w) for a in curves])) if curves else float("nan")
        metrics["f1"] = lambda w: float(np.mean([s(w) for s in scores]))
    recalls = [(target == c).astype(np.float64) for c in range(classes) if (target == c).any()]
    metrics["balanced_accuracy"] = lambda w: float(
        np.nanmean([_ratio(float((w * m * right).sum()), float((w * m).sum())) for m in recalls])
    )
    metrics["log_loss"] = mean_of(surprise)
    metrics["ece"] = _ece(probabilities.max(axis=1), right)
    return metrics


def number_metrics(prediction: np.ndarray, target: np.ndarray) -> dict[str, Weighted]:
    """MAE, RMSE and R² of numbers [N]."""
    error = prediction.astype(np.float64) - target
    squared, absolute = error**2, np.abs(error)

    def r2(w: np.ndarray) -> float:
        mean = np.average(target, weights=w)
        spread = float((w * (target - mean) ** 2).sum())
        return 1 - float((w * squared).sum()) / spread if spread > 0 else float("nan")

    return {"mae": mean_of(absolute), "rmse": lambda w: float(np.sqrt(np.average(squared, weights=w))), "r2": r2}


def with_intervals(metrics: dict[str, Weighted], rows: int, seed: int = 0, width: int = 1) -> dict[str, Estimate]:
    """Each metric with its 2.5 and 97.5 percentiles over resamples of the rows (1,000; fewer for big tables).

    ``width``: numbers that a metric reads of each row.
    """
    drawn = _resampled(lambda w: [metric(w) for metric in metrics.values()], rows, seed, width)
    return {name: _settled(name, _estimate(values), rows) for name, values in zip(metrics, drawn.T, strict=True)}


def _resampled(figures: Callable[[np.ndarray], list[float]], rows: int, seed: int, width: int = 1) -> np.ndarray:
    """Figures [1 + repeats, K] of the rows themselves and of resamples of them."""
    repeats = int(np.clip(2e7 / max(rows * width, 1), 200, 1000))
    random = np.random.default_rng(seed)
    drawn = (np.bincount(random.integers(0, rows, rows), minlength=rows).astype(np.float64) for _ in range(repeats))
    return np.array([figures(w) for w in chain([np.ones(rows)], drawn)])


def share(hits: float, rows: int) -> Estimate:
    """A share of rows with Wilson's score interval (1927), which holds near 0 and 1 too."""
    if not rows:
        return UNKNOWN
    z, p = 1.959964, hits / rows
    middle = (p + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * float(np.sqrt(p * (1 - p) / rows + z * z / (4 * rows * rows)))
    return Estimate(p, max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half)))


def _settled(name: str, found: Estimate, rows: int) -> Estimate:
    """Every resample of rows that are all right is all right: that says nothing of the rows not seen.

    A share then has Wilson's interval; of a metric that is perfect and no share, nothing can be told.
    """
    if found.low < found.high:
        return found
    if METRICS[name].share and found.value in (0.0, 1.0):
        return share(found.value * rows, rows)
    best = 100.0 if name in ("bleu", "chrf") else 1.0
    perfect = METRICS[name].higher_is_better and bool(np.isclose(found.value, best))
    return replace(UNKNOWN, value=found.value) if perfect else found


def difference(ours: dict[str, Weighted], theirs: dict[str, Weighted], key: str, rows: int, seed: int = 0) -> Estimate:
    """Ours minus theirs on the same rows, with the interval of the difference (paired resamples)."""
    return _estimate(_resampled(lambda w: [ours[key](w) - theirs[key](w)], rows, seed)[:, 0])


def reliability(probabilities: np.ndarray, target: np.ndarray, bins: int = 10) -> list[dict[str, float]]:
    """Rows grouped by stated confidence: mean stated, share right, and how many, a bin."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == target
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {"stated": float(confidence[m].mean()), "right": float(right[m].mean()), "rows": int(m.sum())}
        for b in range(bins)
        if (m := place == b).any()
    ]


def _estimate(values: np.ndarray) -> Estimate:
    """Of the figure of the rows themselves, and of its resamples."""
    clean = values[1:][np.isfinite(values[1:])]
    low, high = np.quantile(clean, [0.025, 0.975]) if len(clean) else (float("nan"), float("nan"))
    return Estimate(float(values[0]), float(low), float(high))


def mean_of(values: np.ndarray, sizes: np.ndarray | float = 1.0) -> Weighted:
    """Mean of the rows' sums over all their parts, of which each row has ``sizes``."""
    return lambda w: _ratio(float((w * values).sum()), float((w * sizes).sum()))


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else float("nan")


def auc(score: np.ndarray, truth: np.ndarray) -> Weighted:
    """Area under the ROC curve with ties counted half (the Mann-Whitney statistic)."""
    _, place = np.unique(score, return_inverse=True)
    groups = int(place.max()) + 1 if len(place) else 0

    def area(w: np.ndarray) -> float:
        up = np.bincount(place, w * truth, groups)
        down = np.bincount(place, w * ~truth, groups)
        total = up.sum() * down.sum()
        return float((up * (np.cumsum(down) - down / 2)).sum() / total) if total > 0 else float("nan")

    return area


def _f1(guess: np.ndarray, truth: np.ndarray) -> Weighted:
    both, either = (guess & truth).astype(np.float64), guess.astype(np.float64) + truth
    return lambda w: _ratio(2 * float((w * both).sum()), float((w * either).sum()))


def _ece(confidence: np.ndarray, right: np.ndarray) -> Weighted:
    place = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    gap = confidence - right
    return lambda w: float(np.abs(np.bincount(place, w * gap, ECE_BINS)).sum() / w.sum())
