"""How much personal data is found, how much of what is found is some, and how fast, beside presidio.

    uv run --with presidio-analyzer python -m benchmarks.personal

English: ../shared/data/pii_en.json, Chinese: tests/personal_zh.py. The rules were written with the even templates of
the first and three in five of the second in view; the figures are of the others (``--seen``: and of those). A value
counts as found when all its letters are covered by spans of its kind; a span is right when most of its letters are of
its kind. Presidio runs with its rules for patterns alone: its models must be downloaded.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tests.personal_zh import Text, kept_apart, texts

from weft.data.personal import KINDS, find
from weft.preprocess.letters import Redactor

DATA = Path(__file__).parents[2] / "shared" / "data"
ENGLISH = {
    "EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone", "US_SSN": "id_number", "CREDIT_CARD": "bank_card",
    "IBAN_CODE": "iban", "IP_ADDRESS": "ip", "STREET_ADDRESS": "address", "ZIP_CODE": "address", "PERSON": "name",
}  # fmt: skip
PRESIDIO = {
    "EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone", "US_SSN": "id_number", "CREDIT_CARD": "bank_card",
    "IBAN_CODE": "iban", "IP_ADDRESS": "ip", "US_PASSPORT": "passport",
}  # fmt: skip
Spans = list[tuple[str, int, int]]


def english() -> list[Text]:
    rows = json.loads((DATA / "pii_en.json").read_text(encoding="utf-8"))
    return [
        Text(r["full_text"], [(ENGLISH[s["entity_type"]], s["start_position"], s["end_position"])
                              for s in r["spans"] if s["entity_type"] in ENGLISH], r["template_id"])
        for r in rows
    ]  # fmt: skip


def judge(rows: Iterable[Text], search: Callable[[str], Spans]) -> dict[str, dict[str, float | None]]:
    """Recall and precision of each kind."""
    there, found, said, right = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for row in rows:
        given = search(row.text)
        gold: dict[str, set[int]] = defaultdict(set)
        ours: dict[str, set[int]] = defaultdict(set)
        for kind, start, end in row.spans:
            gold[kind] |= set(range(start, end))
        for kind, start, end in given:
            ours[kind] |= set(range(start, end))
            said[kind] += 1
            right[kind] += 2 * len(gold[kind] & set(range(start, end))) > end - start
        for kind, start, end in row.spans:
            there[kind] += 1
            found[kind] += set(range(start, end)) <= ours[kind]
    return {
        kind: {
            "values": there[kind], "recall": round(found[kind] / there[kind], 3) if there[kind] else None,
            "precision": round(right[kind] / said[kind], 3) if said[kind] else None,
        }
        for kind in KINDS if there[kind] or said[kind]
    }  # fmt: skip


def presidio() -> Callable[[str], Spans]:
    import spacy
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    class Blank(SpacyNlpEngine):
        def load(self) -> None:
            self.nlp = {"en": spacy.blank("en")}

    engine = AnalyzerEngine(nlp_engine=Blank(), supported_languages=["en"])
    wanted = list(PRESIDIO)
    return lambda text: [
        (PRESIDIO[f.entity_type], f.start, f.end) for f in engine.analyze(text, language="en", entities=wanted)
    ]


def rate(rows: list[Text], search: Callable[[str], Spans]) -> float:
    """Rows in a CPU second."""
    started = time.process_time()
    for row in rows:
        search(row.text)
    return round(len(rows) / (time.process_time() - started))


def spans(text: str) -> Spans:
    return [(f.kind, f.start, f.end) for f in find(text)]


def batches() -> dict[str, Any]:
    """Rows in a CPU second as a run reads them: the clothing reviews in batches of 4,096, by kinds looked for."""
    reviews = pq.read_table(DATA / "clothing_reviews.parquet")["review_text"].cast(pa.string()).combine_chunks()
    found: dict[str, Any] = {"rows": len(reviews)}
    for name, kinds in (("all", KINDS), ("email, phone, id_number", KINDS[:3])):
        redactor, started = Redactor(kinds), time.process_time()
        for start in range(0, len(reviews), 4_096):
            redactor(reviews.slice(start, 4_096), "review")
        found[name] = round(len(reviews) / (time.process_time() - started))
        found[f"{name}: found"] = sum(redactor.found.values())
    return found


def main() -> None:
    sets = {
        "english seen": [t for t in english() if t.template % 2 == 0],
        "english kept apart": [t for t in english() if t.template % 2],
        "chinese seen": [t for t in texts() if not kept_apart(t)],
        "chinese kept apart": [t for t in texts() if kept_apart(t)],
    }
    searches: dict[str, Callable[[str], Spans]] = {"weft": spans}
    if find_spec("presidio_analyzer"):
        searches["presidio"] = presidio()
    for name, search in searches.items():
        for title, rows in sets.items():
            if "seen" in title and (name == "presidio" or "--seen" not in sys.argv):
                continue
            print(json.dumps({"search": name, "set": title, "rows": len(rows), "rows_a_cpu_second": rate(rows, search),
                              "kinds": judge(rows, search)}))  # fmt: skip
    print(json.dumps({"batches": batches()}))


if __name__ == "__main__":
    main()
