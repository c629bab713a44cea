"""What looks wrong with the data itself: the columns of a table, how its parts differ, and labels that may be wrong.

All figures are of at most ``MOST_ROWS`` rows of each part, drawn at random; of a text its letters are counted, of a
list its items.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import chdtri

from weft.data.split import NAMES, TRAIN
from weft.preprocess.duplicates import Said
from weft.preprocess.ingest import CleanRows
from weft.results.alone import stands_out

MOST_ROWS = 50_000
_AT_ONCE = 2_048
MISSING, ALIKE, LOPSIDED, DIFFERENT, LEAST = 0.2, 0.99, 3.0, 0.9, 50
"""Shares of missing and of equal cells, skewness, share and number of different words, from which on it is said."""
FEW = 20
"""Training rows of a class below which it is spoken of."""
MOVED, FAR = 0.1, 0.25
"""Population stability indices from which parts are said to differ, and to differ much (Siddiqi 2006)."""
_CHANCE = 0.01
_BINS, _VALUES = 10, 30
_MEASURED = {"number": "its value", "text": "its length in letters", "labels": "the number of labels",
             "sequence": "the number of its items"}  # fmt: skip


def quality(
    types: Mapping[str, str], target: tuple[str, str], clean: CleanRows, judged: int, warned: Sequence[str] = ()
) -> dict[str, Any]:
    """What ``report.json`` says of each column, and what of it a person should know (``said``).

    Args:
        types: of the columns that are read.
        target: its name and type.
        judged: the part whose rows are held against those that are learnt from.
        warned: what was said before of columns that tell the answer; of those it is not said again.
    """
    every = {**types, target[0]: {"class": "category"}.get(target[1], target[1])}
    learnt, other = (_measured(every, clean, part) for part in (TRAIN, judged))
    columns = [_column(n, kind, learnt[n], other[n], len(every)) for n, kind in every.items()]
    alone, said = stands_out(types, target, learnt, other), list[Said]()
    if alone and not any(line.startswith(f"'{alone['column']}' ") for line in warned):
        said.append((_SAID["alone" if target[1] == "class" else "alone_number"], alone))
    said += [line for c in columns for line in _said(c, NAMES[judged], c["name"] == target[0])]
    rows = {NAMES[part]: len(next(iter(m.values()))) for part, m in ((TRAIN, learnt), (judged, other))}
    return {"rows": rows, "columns": columns, "said": said}


def stability_index(learnt: np.ndarray, other: np.ndarray, columns: int = 1) -> tuple[float, float]:
    """The population stability index of counts in bins [K] of two samples, and what it stays below by chance.

    Half a row is added to every bin. Without a difference it is about (1/n + 1/m) times a chi-square variable of K - 1
    degrees of freedom (Yurdakul & Naranjo 2020); the bound holds for so many columns together in 99 of 100 tables.
    """
    used = learnt + other > 0
    a, b = learnt[used] + 0.5, other[used] + 0.5
    p, q = a / a.sum(), b / b.sum()
    per = 1 / max(1, learnt.sum()) + 1 / max(1, other.sum())
    bound = chdtri(max(1, int(used.sum()) - 1), _CHANCE / columns) * per
    return float(((p - q) * np.log(p / q)).sum()), float(bound)


def _measured(types: Mapping[str, str], clean: CleanRows, part: int) -> dict[str, np.ndarray | pa.Array]:
    """Of rows of a part: numbers (NaN where missing), of categories the words themselves."""
    places = clean.places(part)
    if len(places) > MOST_ROWS:
        places = np.sort(np.random.default_rng(0).choice(places, MOST_ROWS, replace=False))
    pieces: dict[str, list[Any]] = {name: [] for name in types}
    for start in range(0, max(1, len(places)), _AT_ONCE):
        for name, array in clean.take(places[start : start + _AT_ONCE], list(types)).items():
            pieces[name].append(_sizes(array, types[name]))
    return {n: pa.concat_arrays(p) if types[n] == "category" else np.concatenate(p) for n, p in pieces.items()}


def _sizes(array: pa.Array, kind: str) -> np.ndarray | pa.Array:
    if kind == "category":
        return array
    if kind == "text":
        array = pc.utf8_length(array)
    elif kind in ("labels", "sequence"):
        array = pc.list_value_length(array)
    elif kind == "image":
        array = pc.if_else(array.is_null(), None, 1.0)
    return array.cast(pa.float64()).to_numpy(zero_copy_only=False)


def _column(name: str, kind: str, learnt: Any, other: Any, columns: int) -> dict[str, Any]:
    """The figures of one column."""
    both = pa.concat_arrays([learnt, other]) if kind == "category" else np.concatenate([learnt, other])
    rows = len(both)
    counted = pa.array(both, from_pandas=True).value_counts()
    values, counts = counted.field(0), counted.field(1).to_numpy()
    missing = int(counts[values.is_null().to_numpy(zero_copy_only=False)].sum())
    counts = np.where(values.is_null().to_numpy(zero_copy_only=False), 0, counts)
    found = {
        "name": name, "type": kind, "missing": missing / max(1, rows), "distinct": int((counts > 0).sum()),
        "different": float((counts > 0).sum() / max(1, rows - missing)),
        "top": values[int(counts.argmax())].as_py() if counts.any() else None,
        "top_share": float(counts.max() / max(1, rows - missing)) if len(counts) else 0.0,
    }  # fmt: skip
    (before, there), facts = _category(learnt, other) if kind == "category" else _number(learnt, other)
    drift, chance = stability_index(before, there, columns)
    return {**found, **facts, "drift": drift, "chance": chance}


def _number(learnt: np.ndarray, other: np.ndarray) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Where numbers lie, and their counts between the deciles of those that are learnt from, the missing ones apart."""
    largest = max(float(np.abs(part[~np.isnan(part)]).max(initial=0)) for part in (learnt, other)) or 1.0
    values, apart = (part[~np.isnan(part)] / largest for part in (learnt, other))  # their squares are numbers, too
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1])) if len(values) else np.zeros(0)
    bins = []
    for part, whole in ((values, learnt), (apart, other)):
        counts = np.bincount(np.searchsorted(edges, part, side="right"), minlength=len(edges) + 1)
        bins.append(np.append(counts, len(whole) - len(part)))
    if not len(values):
        return bins, {}
    spread, middle = values.std(), values.mean()
    return bins, {
        "low": float(values.min() * largest), "median": float(np.median(values) * largest),
        "high": float(values.max() * largest),
        "skewness": float((((values - middle) / spread) ** 3).mean()) if spread > 1e-12 else 0.0,
        "median_there": float(np.median(apart) * largest) if len(apart) else None,
    }  # fmt: skip


def _category(learnt: pa.Array, other: pa.Array) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Counts of the most frequent words, of the others and the missing ones; and the word whose share moved most."""
    counts = [{v["values"]: v["counts"] for v in part.value_counts().to_pylist()} for part in (learnt, other)]
    first = sorted((v for v in counts[0] if v is not None), key=lambda v: (-counts[0][v], v))
    kept = first[:_VALUES]
    bins = []
    for part, whole in zip(counts, (learnt, other), strict=True):
        own = [part.get(v, 0) for v in kept]
        gone = part.get(None, 0)
        bins.append(np.array([*own, len(whole) - sum(own) - gone, gone]))
    shares = [b[: len(kept)] / max(1, b.sum()) for b in bins]
    moved = int(np.abs(shares[1] - shares[0]).argmax()) if kept else None
    rare = min(first, key=lambda v: counts[0][v]) if first else None
    return bins, {
        "moved": None if moved is None else [kept[moved], float(shares[0][moved]), float(shares[1][moved])],
        "rarest": None if rare is None else [rare, counts[0][rare]],
    }  # fmt: skip


_SAID = {
    "alone": "“{column}” alone names the right answer in {share:.0%} of the rows (no other number or category in more "
    "than {next:.0%}, always the most frequent class in {base:.0%}): is it known when you predict? If not, leave it "
    "out: features: {{{column}: off}}.",
    "alone_number": "“{column}” alone explains {share:.1%} of the answer's variance (no other number or category more "
    "than {next:.1%}): is it known when you predict? If not, leave it out: features: {{{column}: off}}.",
    "missing": "“{column}” is missing in {share:.0%} of the rows.",
    "constant": "“{column}” holds {top} wherever it holds anything: it can tell something only by being missing.",
    "nearly": "“{column}” is {top} in {share:.1%} of the rows that have a value: the others are too few to tell much.",
    "lopsided": "“{column}” is lopsided (skewness {skewness:.1f}): its values go from {low:.4g} to {high:.4g}, and "
    "half of them are {median:.4g} or less. The model reads numbers by their rank as well, which such values do not "
    "harm; look whether the extreme ones are right.",
    "id": "“{column}” is another word in nearly every row ({share:.0%}), like an id: what is learnt of it holds for no "
    "new row.",
    "rare": "The class “{value}” has only {count:,} of the training rows looked at: little can be learnt of it.",
    "drift": "“{column}” is {how} in the {part} rows from those that are learnt from (stability index {drift:.2f}).",
    "word": "There “{value}” is {after:.1%}, in what is learnt from {before:.1%}.",
    "middle": "There {measure} is {after:.4g} in the middle, in what is learnt from {before:.4g}.",
}  # fmt: skip


def _said(c: dict[str, Any], part: str, target: bool) -> Iterator[Said]:
    """What a person should know of a column."""
    name, kind = {"column": c["name"]}, c["type"]
    if c["missing"] >= MISSING:
        yield _SAID["missing"], {**name, "share": c["missing"]}
    if kind in ("number", "category") and c["distinct"] == 1:
        yield _SAID["constant"], {**name, "top": _short(c["top"])}
    elif kind in ("number", "category") and c["top_share"] >= ALIKE:
        yield _SAID["nearly"], {**name, "top": _short(c["top"]), "share": c["top_share"]}
    elif kind == "number" and abs(c.get("skewness", 0)) >= LOPSIDED:
        yield _SAID["lopsided"], name | {n: c[n] for n in ("skewness", "median", "low", "high")}
    if kind == "category" and target and c["rarest"] and c["rarest"][1] < FEW:
        yield _SAID["rare"], dict(zip(("value", "count"), c["rarest"], strict=True))
    elif kind == "category" and not target and c["distinct"] >= LEAST and c["different"] >= DIFFERENT:
        yield _SAID["id"], {**name, "share": c["different"]}
    if c["drift"] > max(MOVED, c["chance"]):
        how = "very different" if c["drift"] > FAR else "different"
        yield _SAID["drift"], {**name, "how": how, "part": part, "drift": c["drift"]}
        if kind == "category" and c["moved"]:
            yield _SAID["word"], dict(zip(("value", "before", "after"), c["moved"], strict=True))
        elif kind in _MEASURED and c.get("median_there") is not None:
            values = {"before": c["median"], "after": c["median_there"], "measure": _MEASURED[kind]}
            yield _SAID["middle"], values


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"“{str(value)[:60]}”"
