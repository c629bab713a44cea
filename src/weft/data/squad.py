"""SQuAD's nested JSON (Rajpurkar et al. 2016, 2018) as rows: one question each, with the context it is asked of.

    {"version": "v2.0", "data": [{"title": ..., "paragraphs": [{"context": ..., "qas": [
        {"id": ..., "question": ..., "is_impossible": false, "answers": [{"text": ..., "answer_start": 0}]}]}]}]}

A question without answers, or one that is impossible, has an empty answer. Of several answers the first is taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import IO, Any

from weft.errors import DataError

COLUMNS = ("id", "title", "context", "question", "answer", "answer_start")
_BEGINNING = re.compile(r'\s*\{\s*("version"\s*:\s*("[^"]*"|[\d.]+)\s*,\s*)?"data"\s*:\s*\[\s*\{')

Row = dict[str, str | None]


def looks_like_squad(beginning: str) -> bool:
    """Whether a JSON file that begins so holds articles with paragraphs, not a row a line."""
    return bool(_BEGINNING.match(beginning)) and '"paragraphs"' in beginning


def squad_rows(stream: IO[str], path: str) -> Iterator[Row | str]:
    """A row a question, in the file's order; of one that is none, the reason.

    Raises:
        DataError: the file is no JSON, or not nested as SQuAD's are.
    """
    try:
        articles = json.load(stream)["data"]
        contexts = [(a.get("title"), p["context"], p["qas"]) for a in articles for p in a["paragraphs"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"{path}: must be SQuAD's JSON: data, each with paragraphs, each with context and qas. Got: {said}. "
            f"Correct it, or write a row a line."
        ) from None
    for title, context, questions in contexts:
        for question in questions if isinstance(questions, list) else [questions]:
            yield _row(title, context, question)


def _row(title: Any, context: Any, asked: Any) -> Row | str:
    if not isinstance(asked, dict) or not isinstance(asked.get("question"), str):
        return "must be an object with a question"
    answers = [] if asked.get("is_impossible") else asked.get("answers") or []
    if not isinstance(answers, list) or not all(isinstance(a, dict) for a in answers):
        return "answers must be a list of objects"
    first = answers[0] if answers else {}
    row = {
        "id": asked.get("id"), "title": title, "context": context, "question": asked["question"],
        "answer": first.get("text"), "answer_start": first.get("answer_start"),
    }  # fmt: skip
    return {name: None if value is None else str(value) for name, value in row.items()}
