"""JSON schemas: which keywords there are, which of them a text can be written by, which letters they ask for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from weft.errors import UsageError, did_you_mean

_MAPS = {"properties", "patternProperties", "$defs", "definitions"}
_LISTS = {"prefixItems", "allOf", "anyOf", "oneOf"}
_ONE = {"items", "additionalItems", "additionalProperties"}
_VALUES = {
    "type", "enum", "const", "required", "minProperties", "maxProperties", "minItems", "maxItems", "minLength",
    "maxLength", "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "$ref",
}  # fmt: skip
_SAYING = {
    "$anchor", "$comment", "$id", "$schema", "$vocabulary", "contentEncoding", "contentMediaType", "contentSchema",
    "default", "deprecated", "description", "discriminator", "example", "examples", "id", "readOnly", "title",
    "writeOnly",
}  # fmt: skip
"""They say something about a value and forbid none."""
_UNWRITABLE = {
    "$dynamicAnchor", "$dynamicRef", "$recursiveAnchor", "$recursiveRef", "contains", "dependencies",
    "dependentRequired", "dependentSchemas", "else", "if", "maxContains", "minContains", "not", "nullable",
    "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties", "uniqueItems",
}  # fmt: skip
_KNOWN = _MAPS | _LISTS | _ONE | _VALUES | _SAYING | _UNWRITABLE


def check_keywords(schema: Any, where: str) -> None:
    """Raises UsageError, with the place, where a keyword does not exist or cannot be written by.

    By the standard an unknown keyword says nothing; here it is taken for the slip of the pen that it mostly is.
    """
    for place, part in _parts(schema, where):
        if not isinstance(part, dict | bool):
            raise UsageError(f"{place}: a schema must be an object, true or false. Got {json.dumps(part)[:80]}.")
        for keyword in part if isinstance(part, dict) else ():
            if keyword in _UNWRITABLE:
                raise UsageError(f"{place}: '{keyword}' is a keyword that no text can be written by. Write it without.")
            if keyword not in _KNOWN and not keyword.startswith("x-"):
                raise UsageError(
                    f"{place}: '{keyword}' is no keyword of JSON Schema.{did_you_mean(keyword, _KNOWN - _UNWRITABLE)}"
                )
    if isinstance(schema, dict) and "x-guidance" in schema:
        raise UsageError(f"{where}: 'x-guidance' would change what the schema means. Leave it out.")


def letters_of(schema: Any) -> set[str]:
    """Letters without which no JSON, or not all that the schema asks for, can be written."""
    letters: set[str] = set()
    for _, part in _parts(schema, ""):
        if not isinstance(part, dict):
            continue
        kinds = part.get("type")
        if isinstance(kinds, str):
            letters |= set({"object": "{}", "array": "[]", "string": '"'}.get(kinds, ""))
        for value in [*part.get("enum", []), *([part["const"]] if "const" in part else [])]:
            letters |= set(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
        names = part.get("required", [])
        for name in names:
            letters |= set(json.dumps(name, ensure_ascii=False) + ":")
        letters |= set("," if len(names) > 1 else "")
    return letters


def _parts(schema: Any, place: str) -> Iterator[tuple[str, Any]]:
    """The schema and all schemas inside it, with their places."""
    yield place, schema
    if not isinstance(schema, dict):
        return
    for keyword, value in schema.items():
        below = f"{place}: {keyword}"
        if keyword in _MAPS and isinstance(value, dict):
            for name, part in value.items():
                yield from _parts(part, f"{below}.{name}")
        elif isinstance(value, list) and (keyword in _LISTS or keyword == "items"):
            for i, part in enumerate(value):
                yield from _parts(part, f"{below}[{i}]")
        elif keyword in _ONE:
            yield from _parts(value, below)
