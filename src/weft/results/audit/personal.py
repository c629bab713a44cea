"""What personal data a table holds, and whether a run learns it as it came."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from weft.data.table import Table
from weft.preprocess.personal import survey
from weft.results.audit.words import Said

WORDS = {
    "email": "e-mail addresses", "phone": "telephone numbers", "id_number": "resident IDs or social security numbers",
    "passport": "passport numbers", "bank_card": "bank cards", "iban": "bank accounts (IBAN)",
    "ip": "addresses of machines (IP)", "plate": "number plates", "address": "addresses", "name": "names of people",
}  # fmt: skip
_HOLDS = "{column} holds {count:,} values that look like {kind}"
_REPLACED = ", which the run replaces."
_LEARNT = ", which the run reads as they are; preprocess: {{redact: [{setting}]}} would replace them."
_UNREAD = ", a column that the run does not read."
_NONE = "Nothing that looks like personal data is in {rows:,} rows."
_NOTE = "Found by rules: numbers nearly always, names and addresses as far as rules go."


def personal_section(table: Table, replaced: Collection[str], read: Collection[str]) -> dict[str, Any]:
    """The section ``personal`` of an audit.

    Args:
        replaced: kinds that the run replaces.
        read: columns that it reads.
    """
    found = survey(table)
    said: list[Said] = []
    for column, kinds in found.found.items():
        for kind, count in kinds.items():
            end = _UNREAD if column not in read else _REPLACED if kind in replaced else _LEARNT
            said.append(([_HOLDS, end], {"column": column, "count": count, "kind": WORDS[kind], "setting": kind}))
    said.append((_NOTE, {}) if said else (_NONE, {"rows": found.rows}))
    return {"rows": found.rows, "found": found.found, "replaced": list(replaced), "said": said}
