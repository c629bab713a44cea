"""What pydantic says of wrong settings, in Weft's words: where, what must hold, what came, what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from weft.errors import did_you_mean, listing
from weft.yaml_text import Problem, kind_of, place_of, shown


def problems_of(
    error: ValidationError, model: type[BaseModel], root: Any, name: str, origins: Mapping[tuple[str, ...], str]
) -> Iterator[Problem]:
    """Each problem with its line and column in the file ``name``, whose YAML nodes are ``root``."""
    for item in error.errors():
        loc = tuple(part for part in item["loc"] if part != "[key]")
        position, where = place_of(root, loc, item["type"] == "extra_forbidden", name, origins)
        yield position, f"{where}: {_in_words(item, model)}"


def _in_words(item: Any, model: type[BaseModel]) -> str:
    kind, context, loc, given = item["type"], item.get("ctx", {}), item["loc"], item["input"]
    if kind == "extra_forbidden":
        known = _keys_at(model, loc[:-1])
        near = did_you_mean(str(loc[-1]), known)
        return f"'{loc[-1]}' is not a setting.{near or ' Known here: ' + listing(known, 20) + '.'}"
    if kind == "missing":
        return "is missing. It has no default."
    if kind == "literal_error":
        allowed = [word.strip(" '") for word in context["expected"].replace(" or ", ",").split(",")]
        word = f"'{given}'" if isinstance(given, (str, int, float)) else kind_of(given)
        what = "is not a column type" if loc[-1] == "type" and loc[0] == "features" else "is not known here"
        near = did_you_mean(given, allowed) if isinstance(given, str) else ""
        return f"{word} {what}.{near} It may be {listing(allowed)}."
    if kind == "value_error":
        return f"{context['error']}."
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        short = loc == ("target",) or loc[:1] == ("features",)  # a bare word would do
        return f"must be a mapping of keys to values. Got {shown(given)}.{_advice(given, short)}"
    text = {
        "int_type": "must be a whole number",
        "float_type": "must be a number",
        "bool_type": "must be true or false",
        "string_type": "must be a text",
    }.get(kind, item["msg"].replace("Input should be", "must be"))
    return f"{text}. Got {shown(given)}.{_advice(given, kind == 'string_type')}"


def _advice(given: object, wants_text: bool) -> str:
    if given is None:
        return " Fill it or remove it."
    return " Put it in quotes." if wants_text and isinstance(given, (bool, int, float)) else ""


def _keys_at(model: Any, loc: tuple) -> list[str]:
    """The settings of the group at a place; a name that is none stands for one of many alike (features.NAME)."""
    for part in loc:
        field = model.model_fields.get(part)
        model = _group(field.annotation) or model if field is not None else model
    return [field.alias or name for name, field in model.model_fields.items()]


def _group(annotation: Any) -> Any:
    """The settings within a type: itself, what may also be left out, what a mapping holds."""
    if hasattr(annotation, "model_fields"):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _group(inner)) is not None), None)
