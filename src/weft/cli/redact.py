"""``weft redact DATA -o OUT``"""

from __future__ import annotations

from pathlib import Path

from weft.cli import Json, Many, Memory, Out, answer, aside
from weft.data.personal import KINDS
from weft.data_settings import RedactSettings
from weft.errors import UsageError, did_you_mean, listing
from weft.inference.redact import redact_table
from weft.memory import limit
from weft.preprocess.letters import Redactor
from weft.progress import Spoken


def redact(
    data: str,
    /,
    *,
    out: Out,
    kinds: str = "all",
    key: Path | None = None,
    names: str | None = None,
    column: Many = (),
    memory: Memory = None,
    json: Json = False,
) -> None:
    """Write a table of any size again without its personal data, rows and columns as they came.

    Args:
        data: File, glob, folder or address of CSV, JSON Lines, Parquet or Arrow.
        out: The table: .parquet, .csv or .jsonl. Rows that cannot be read go beside it.
        kinds: What is replaced, e.g. email,phone: email, phone, id_number, passport, bank_card, iban, ip, plate,
            address, name; or all.
        key: A file with the secret of stand-ins that tell one value from another, made where it is not there
            (default: a value is replaced by its kind alone).
        names: A Hugging Face folder of BERT's shape that tells the class of each token (B-PER, I-PER, ...), which finds
            names and addresses beside the rules.
        column: A column to look through (default: all); may be given several times. The others are repeated.
    """
    limit(memory)
    chosen = list(KINDS) if kinds == "all" else [kind.strip() for kind in kinds.split(",") if kind.strip()]
    for kind in chosen:
        if kind not in KINDS:
            near = did_you_mean(kind, KINDS)
            raise UsageError(f"--kinds {kind}: must be some of {listing(KINDS, 10)}, or all.{near}")
    if not chosen:
        raise UsageError(f"--kinds: must name some of {listing(KINDS, 10)}, or all. Got nothing.")
    if names is not None and not {"name", "address"} & set(chosen):
        raise UsageError(f"--names: a model finds the kinds name and address. Got --kinds {kinds}. Add one of them.")
    settings = {"kinds": chosen, "key": None if key is None else str(key), "names": names}
    redactor = Redactor.of(RedactSettings.model_validate(settings))
    assert redactor is not None
    done = redact_table(redactor, data, out, column, Spoken())
    lines = [f"{done['rows']:,} rows = {done['written']:,} written + {done['rejected']:,} set aside"]
    for name, found in done["found"].items():
        texts = " (whole numbers, written as texts)" if name in done["now_texts"] else ""
        lines.append(f"{name}: {', '.join(f'{n:,} {kind}' for kind, n in found.items())} replaced{texts}")
    if not done["found"]:
        lines.append(f"nothing was found of {listing(chosen, 10)}")
    lines += [f"wrote:   {out}", *aside(done)]
    if {"name", "address"} & set(chosen):
        far = "rules go" if names is None else "rules and the model go"
        lines.append(f"note:    names and addresses are found as far as {far}; read some rows before you give it away")
    answer(json, done, lines)
