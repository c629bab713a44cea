"""The pipeline file: YAML to frozen settings.

All problems of a file are reported at once, each with ``file:line:column`` and, for an unknown word,
the nearest known one. Only what does something is a setting; every key but ``data.source`` and
``target`` has a default.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from weft.errors import SettingsError, UsageError, did_you_mean, listing

Share = Annotated[float, Field(ge=0, lt=1)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class SplitSettings(_Settings):
    """Which rows are learnt from, watched, and judged on. The same rows on every run with one seed."""

    test: Share = 0.15
    """Share of rows kept for the final figures."""
    valid: Share = 0.15
    """Share of rows watched while training (early stopping, calibration)."""
    column: str | None = None
    """A column that already says train, valid or test; a missing `valid` is drawn from train."""
    by: str | None = None
    """Rows that share this column's value stay together (one customer is never on both sides)."""
    time: str | None = None
    """The latest rows by this column are the test, the ones before them valid."""
    stratify: bool = True
    """Keep the class shares equal in every part (random splits of a class target)."""

    @model_validator(mode="after")
    def _one_way(self) -> SplitSettings:
        ways = [name for name in ("column", "by", "time") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise ValueError(f"a table is split one way, got {listing(ways)}. Keep one of them")
        if self.test + self.valid >= 0.9:
            raise ValueError(f"test + valid must leave rows to learn from, got {self.test + self.valid:g}")
        return self


class DataSettings(_Settings):
    source: str | list[str] | None = None
    """File, list of files, glob, folder or fsspec address of CSV, JSON Lines, Parquet or Arrow."""
    format: Literal["csv", "jsonl", "parquet", "arrow"] | None = None
    """Said only where the file's ending does not tell."""
    split: SplitSettings = SplitSettings()
    max_rejected: Share = 0.01
    """Share of rows that may be set aside as bad before the run stops."""


class PreprocessSettings(_Settings):
    normalize: Literal["nfkc", "nfc", "off"] = "nfkc"
    """Unicode form of texts and categories; `off` leaves every character as it came."""


def _long_form(key: str) -> Callable[[Any], Any]:
    """A bare word is the short form of ``{key: word}``."""
    return lambda value: {key: value} if isinstance(value, str) else value


class FeatureSettings(_Settings):
    type: Literal["text", "number", "category", "time", "off"]
    """What the column holds; `off` leaves it out."""
    max_tokens: Annotated[int, Field(ge=4, le=8192)] | None = None
    """Longest text in tokens (text only; default: the 99th percentile of the column, at most 256)."""
    max_categories: Annotated[int, Field(ge=2)] | None = None
    """Most categories kept, by frequency; the others count as unknown (category only; default 10,000)."""

    @model_validator(mode="after")
    def _fits_type(self) -> FeatureSettings:
        for name, owner in (("max_tokens", "text"), ("max_categories", "category")):
            if getattr(self, name) is not None and self.type != owner:
                raise ValueError(f"{name} is for {owner} columns, this one is {self.type}. Remove it")
        return self


class TargetSettings(_Settings):
    column: str
    """The column to predict."""
    type: Literal["class", "number"] | None = None
    """Guessed from the column when left out."""
    positive: str | None = None
    """Of two classes, the one that is looked for (default: the rarer)."""


class ModelSettings(_Settings):
    backbone: Literal["transformer"] = "transformer"
    """What reads the tokens."""
    width: Annotated[int, Field(ge=8, le=16384)] | None = None
    """D, the width of a token (default: by the data, shown by `weft check`)."""
    layers: Annotated[int, Field(ge=1, le=256)] | None = None
    heads: Annotated[int, Field(ge=1, le=256)] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    members: Annotated[int, Field(ge=1, le=256)] = 16
    """Heads trained as one ensemble over the same states (TabM, Gorishniy 2024)."""
    copies: Annotated[int, Field(ge=1, le=100)] | None = None
    """Models trained on different folds of train and valid that answer as one (default: 5 on small tables)."""


class TrainingSettings(_Settings):
    epochs: Annotated[int, Field(ge=1)] | None = None
    """Most passes over the training rows; early stopping usually ends sooner."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Stop after this long, whatever the epoch."""
    batch_rows: Annotated[int, Field(ge=1)] | None = None
    """Rows of one optimiser step."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    patience: Annotated[int, Field(ge=1)] | None = None
    """Epochs without a better validation loss before training stops."""
    class_weight: Literal["balanced"] | None = None
    """`balanced` weighs each class by the inverse of its share; probabilities are corrected back."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the matrix products; `auto` takes bfloat16 where the machine multiplies it in hardware."""
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0


class ResultsSettings(_Settings):
    baselines: bool = True
    """Train the trivial, the linear and the boosted-tree baselines beside the model."""


class Settings(_Settings):
    """A whole pipeline file."""

    version: Literal[1] = 1
    data: DataSettings = DataSettings()
    preprocess: PreprocessSettings = PreprocessSettings()
    features: dict[str, Annotated[FeatureSettings, BeforeValidator(_long_form("type"))]] = {}
    """Column to type; columns not named are guessed, `off` leaves one out."""
    target: Annotated[TargetSettings, BeforeValidator(_long_form("column"))]
    """The column to predict."""
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    results: ResultsSettings = ResultsSettings()


def load(path: str | Path, changes: Sequence[str] = ()) -> Settings:
    """Read a pipeline file; ``changes`` are ``a.b=value`` strings laid over it, the value read as YAML.

    Raises:
        SettingsError: every problem of the file, one a line.
        UsageError: the file is missing or a change is not of the form ``a.b=value``.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file. `weft init DATA -o {path}` writes one.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: must be a readable UTF-8 text file. Got {error}.") from None
    return loads(text, str(path), changes)


def loads(text: str, name: str = "settings", changes: Sequence[str] = ()) -> Settings:
    """As :func:`load`, from the text of a file."""
    document = _parse(text, name)
    if document is None:
        raise SettingsError([f"{name}: must hold at least data.source and target. Got an empty file."])
    if not isinstance(document, Mapping):
        raise SettingsError([f"{name}:1:1: must be a mapping of keys to values. Got a {_kind(document)}."])
    for change in changes:
        _lay_over(document, change)
    return _validate(document, name, needs_source=True)


def from_mapping(settings: Mapping[str, Any], needs_source: bool = False) -> Settings:
    """Settings from a Python mapping of the same shape as a pipeline file."""
    return _validate(settings, "settings", needs_source)


def dumps(settings: Settings) -> str:
    """The settings as a pipeline file that reads back equal; values at rest (None) are left out."""
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 110
    yaml.dump(settings.model_dump(exclude_none=True), stream)
    return stream.getvalue()


def _parse(text: str, name: str) -> Any:
    yaml = YAML(typ="rt")
    yaml.allow_duplicate_keys = False
    try:
        return yaml.load(text)
    except DuplicateKeyError as error:
        mark = error.problem_mark
        found = str(error.problem).split(chr(34))
        key = found[1] if len(found) > 2 else "a key"
        raise SettingsError(
            [f"{name}:{mark.line + 1}:{mark.column + 1}: '{key}' is given twice. Keep one of them."]
        ) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise SettingsError([f"{where}: must be valid YAML. Got: {error.problem or error.context}."]) from None
    except YAMLError as error:
        raise SettingsError([f"{name}: must be valid YAML. Got: {error}."]) from None


def _lay_over(document: Any, change: str) -> None:
    path, sign, value = change.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not sign or not all(keys):
        raise UsageError(f"--set {change}: must look like training.epochs=20.")
    for key in keys[:-1]:
        inner = document.get(key)
        if isinstance(inner, str) and key in ("target",):
            inner = document[key] = {"column": inner}
        elif not isinstance(inner, Mapping):
            inner = document[key] = {}
        document = inner
    document[keys[-1]] = _parse(value, f"--set {change}")


def _validate(document: Mapping[str, Any], name: str, needs_source: bool) -> Settings:
    problems: list[tuple[tuple[int, int], str]] = []
    settings = None
    try:
        settings = Settings.model_validate(document)
    except ValidationError as error:
        for item in error.errors():
            position, where = _place(document, item["loc"], item["type"] == "extra_forbidden", name)
            problems.append((position, f"{where}: {_message(item)}"))
    source = document.get("data", {}).get("source") if isinstance(document.get("data", {}), Mapping) else True
    if needs_source and not source:
        problems.append(((0, 0), f"{name}: data.source is missing. Name the file, glob or folder to read."))
    if problems or settings is None:
        raise SettingsError([text for _, text in sorted(problems, key=lambda p: p[0])])
    return settings


def _place(document: Any, loc: tuple, at_key: bool, name: str) -> tuple[tuple[int, int], str]:
    """Line and column of a pydantic location, from the marks that ruamel keeps."""
    node, mark = document, None
    path = [str(part) for part in loc]
    for depth, part in enumerate(loc):
        if not isinstance(node, (Mapping, list)) or (isinstance(node, Mapping) and part not in node):
            break
        marks = getattr(node, "lc", None)
        if marks is not None and marks.data and part in marks.data:
            want_key = at_key and depth == len(loc) - 1
            mark = (
                marks.key(part)
                if want_key and isinstance(node, Mapping)
                else (marks.value(part) if isinstance(node, Mapping) else marks.item(part))
            )
        node = node[part]
    if mark is None:
        return (0, 0), f"{name}: {'.'.join(path)}" if path else name
    return (mark[0], mark[1]), f"{name}:{mark[0] + 1}:{mark[1] + 1}: {'.'.join(path)}"


def _message(item: Any) -> str:
    """One pydantic error in Weft's words: what must hold, what came, what to do."""
    kind, context, loc, given = item["type"], item.get("ctx", {}), item["loc"], item["input"]
    if kind == "extra_forbidden":
        known = _keys_at(loc[:-1])
        near = did_you_mean(str(loc[-1]), known)
        return f"'{loc[-1]}' is not a setting.{near or ' Known here: ' + listing(known, 20) + '.'}"
    if kind == "missing":
        return "is missing. It has no default."
    if kind == "literal_error":
        allowed = [word.strip(" '") for word in context["expected"].replace(" or ", ",").split(",")]
        what = "is not a column type" if loc[-1] == "type" and loc[0] == "features" else "is not known here"
        return f"'{given}' {what}.{did_you_mean(str(given), allowed)} It may be {listing(allowed)}."
    if kind == "value_error":
        return f"{context['error']}."
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"must be a mapping of keys to values. Got a {_kind(given)}."
    text = item["msg"][0].lower() + item["msg"][1:]
    text = text.replace("input should be", "must be")
    shown = given if isinstance(given, (str, int, float, bool)) else _kind(given)
    return f"{text}. Got {shown!r}."


def _keys_at(loc: tuple) -> list[str]:
    model: Any = Settings
    for part in loc:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        annotation = field.annotation if field is not None else FeatureSettings
        model = annotation if hasattr(annotation, "model_fields") else FeatureSettings
    return list(model.model_fields)


def _kind(value: object) -> str:
    if isinstance(value, Mapping):
        return "mapping"
    if isinstance(value, (list, tuple)):
        return "list"
    return type(value).__name__
