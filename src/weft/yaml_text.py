"""YAML with positions: plain values, and the line and column that each stands on.

A tag makes no object, a key stands once, dates stay texts; ``--set a.b=value`` is laid over a document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from weft.errors import SettingsError, UsageError

_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq", "timestamp")}
_PLAIN = re.compile(r"[^\W\d_][\w/-]*(\.[\w/-]+)*")
_RESERVED = frozenset(("true", "false", "null", "yes", "no", "on", "off", "y", "n"))
_HIDDEN = re.compile("[\x7f-\x9f\xad\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
Problem = tuple[tuple[int, int], str]


def lines(value: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield f"{indent}{scalar(key)}:\n"
            yield from lines(inner, indent + "  ")
        elif isinstance(inner, list):
            yield f"{indent}{scalar(key)}: [{', '.join(map(scalar, inner))}]\n"
        else:
            yield f"{indent}{scalar(key)}: {scalar(inner)}\n"


def scalar(value: Any) -> str:
    """One value on one line; JSON's quoting is YAML's too."""
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.lower() not in _RESERVED:
            return value
        return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))
    return json.dumps(value) if not isinstance(value, float) else repr(value)


def parse(text: str, name: str) -> tuple[Any, Any, list[Problem]]:
    """The nodes of a YAML text (they know their line and column), its plain values, and what is wrong with it.

    Only the nodes are built by the YAML library: a tag makes no object, an alias no copy.
    """
    yaml = YAML(typ="rt", pure=True)
    try:
        root = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise SettingsError([f"{where}: must be valid YAML. Got: {error.problem or error.context}."]) from None
    except YAMLError as error:
        raise SettingsError([f"{name}: must be valid YAML. Got: {str(error).splitlines()[0]}."]) from None
    except RecursionError:
        raise SettingsError([f"{name}: must be valid YAML. Got brackets nested too deeply."]) from None
    problems: list[Problem] = []
    return root, _value(root, name, problems, {}), problems


def _value(node: Any, name: str, problems: list[Problem], known: dict[int, Any]) -> Any:
    """Plain values of a node: keys are texts as written, dates stay texts. An alias is the same object again."""
    if node is None:
        return None
    if id(node) in known:
        return known[id(node)]

    def problem(at: Any, text: str) -> None:
        mark = at.start_mark
        problems.append(((mark.line, mark.column), f"{name}:{mark.line + 1}:{mark.column + 1}: {text}"))

    tag = str(node.tag)
    if tag not in _TAGS:
        short = tag.replace("tag:yaml.org,2002:", "!!")
        problem(node, f"must be a plain value. Got the YAML tag {short}, which is never run. Remove it.")
        return None
    if isinstance(node, MappingNode):
        values = known[id(node)] = {}
        for key, inner in node.value:
            if not isinstance(key, ScalarNode):
                problem(key, "a key must be a word. Got a list or mapping.")
            elif key.value == "<<" and key.style is None:
                problem(key, "must be a setting. Got the merge key '<<', which is not read. Write the settings out.")
            elif key.value in values:
                problem(key, f"'{key.value}' is given twice. Keep one of them.")
            else:
                values[key.value] = _value(inner, name, problems, known)
        return values
    if isinstance(node, SequenceNode):
        items: list[Any] = []
        known[id(node)] = items
        items += [_value(inner, name, problems, known) for inner in node.value]
        return items
    try:
        return _READ.get(tag.rpartition(":")[2], str)(node.value)
    except ValueError:
        problem(node, f"must be a plain value. Got {node.value!r} with the YAML tag {tag.rpartition(':')[2]}.")
        return None


def _whole(text: str) -> int:
    bare = text.replace("_", "")
    return int(bare, 0) if bare.lstrip("+-")[:2].lower() in ("0x", "0o", "0b") else int(bare)


_READ: dict[str, Callable[[str], Any]] = {
    "int": _whole,
    "float": lambda text: float(re.sub(r"^([+-]?)\.(inf|nan)$", r"\1\2", text.replace("_", ""), flags=re.IGNORECASE)),
    "bool": lambda text: text.lower() == "true",
    "null": lambda text: None,
}


def lay_over(document: Mapping[str, Any], change: str, origins: dict[tuple[str, ...], str]) -> dict[str, Any]:
    """The document with one ``a.b=value`` laid over it; ``origins`` remembers where the value came from."""
    found = re.fullmatch(r'((?:"[^"]*"|[^".=])+(?:\.(?:"[^"]*"|[^".=])+)*)=(.*)', change, re.DOTALL)
    keys = tuple(k.strip().strip('"') for k in re.findall(r'(?:"[^"]*"|[^".])+', found[1])) if found else ()
    if not found or not all(keys):
        raise UsageError(f"--set {change}: must look like training.epochs=20. Put a name with a dot in quotes.")
    changed = at = dict(document)
    for depth, key in enumerate(keys[:-1]):
        inner = at.get(key)
        if isinstance(inner, str) and keys[: depth + 1] == ("target",):
            inner = {"column": inner}
        elif isinstance(inner, str) and depth == 1 and keys[0] == "features":
            inner = {"type": inner}
        elif inner is not None and not isinstance(inner, Mapping):
            raise UsageError(
                f"--set {change}: '{'.'.join(keys[: depth + 1])}' must be a group of settings. "
                f"Got {shown(inner)}, which holds no '{keys[depth + 1]}'."
            )
        at[key] = at = dict(inner or {})
    try:
        _, at[keys[-1]], problems = parse(found[2], f"--set {change}")
    except SettingsError as error:
        raise UsageError(f"{error} Put the value in quotes.") from None
    if problems:
        raise UsageError(problems[0][1])
    origins[keys] = f"--set {change}"
    return changed


def place_of(
    node: Any, loc: tuple, at_key: bool, name: str, origins: Mapping[tuple[str, ...], str]
) -> tuple[tuple[int, int], str]:
    """Line and column of a pydantic location, from the marks of the YAML nodes."""
    path = ".".join(str(part) for part in loc)
    for depth in range(len(loc), 0, -1):
        if loc[:depth] in origins:
            return (10**9, 0), f"{origins[loc[:depth]]}: {path}"
    mark = None
    for depth, part in enumerate(loc):
        if isinstance(node, MappingNode):
            pair = next(((key, value) for key, value in node.value if getattr(key, "value", None) == part), None)
        else:
            inside = isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value)
            pair = (node.value[part], node.value[part]) if inside else None
        if pair is None:
            break
        empty = isinstance(pair[1], ScalarNode) and not pair[1].value  # stands nowhere, or on the next line
        mark = (pair[0] if empty or (at_key and depth == len(loc) - 1) else pair[1]).start_mark
        node = pair[1]
    if mark is None:
        origin = next((text for keys, text in origins.items() if keys[: len(loc)] == loc), name)
        return (-1, 0), f"{origin}: {path}" if path else origin
    return (mark.line, mark.column), f"{name}:{mark.line + 1}:{mark.column + 1}: {path}"


def shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, (str, int, float)) else kind_of(value)


def kind_of(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    return f"a {type(value).__name__}"
