"""``weft predict RUN DATA -o OUT``"""

from __future__ import annotations

from pathlib import Path

from weft.cli import Engine, Json, Many, Memory, To, answer, typed
from weft.data.stores import fetched, is_address
from weft.data.table import Table
from weft.engine import running
from weft.errors import UsageError
from weft.inference.embed import text_column
from weft.inference.predict import without_in_words
from weft.inference.zero_shot import TEMPLATE, ByMeaning, ByWriting, check_template, classify_table, read_labels
from weft.memory import limit, used_in_words
from weft.progress import Spoken
from weft.runs.opening import open_embedder, open_run
from weft.runs.ranking import RankingRun
from weft.runs.texts import TextRun


def predict(
    run: str,
    data: str,
    /,
    *,
    out: To,
    keep: Many = (),
    columns: Many = (),
    partition_by: str | None = None,
    allow_missing: bool = False,
    labels: str | None = None,
    column: str | None = None,
    template: str | None = None,
    beams: int | None = None,
    top: int | None = None,
    taken: bool | None = None,
    engine: Engine = "local",
    memory: Memory = None,
    json: Json = False,
) -> None:
    """Predict the rows of a table of any size, in their order.

    With --labels, a checkpoint that no one trained for the task tells classes by their names or descriptions.

    Args:
        run: The run folder, or its address.
        data: File, glob, folder or address of CSV, JSON Lines, Parquet or Arrow.
        out: The predictions: .parquet, .csv or .jsonl, an address of one, or a folder of parts (OUT/). Rows set aside
            go beside it.
        keep: A column of the input to repeat in the output; may be given several times.
        columns: A column of the output to write (default: all); may be given several times.
        partition_by: With a folder: a column of the output, each of whose values has a folder of its own.
        allow_missing: Go on without a column even if another of a like name may be it.
        labels: Classes for a checkpoint without training: "a,b,c", or a YAML file of them, with descriptions or not.
        column: With --labels: the column of texts (default: the only one that holds texts).
        template: With --labels and a checkpoint that writes: {text} and after it {label}.
        beams: Of a run that writes a column: search for the most probable text with this many side by side.
        top: Of a run that recommends: this many items a row (default: 10).
        taken: Of a run that recommends: whether items that the user has had may come again (default: as the run found).
    """
    limit(memory)
    if labels is not None:
        if allow_missing or beams is not None or top is not None or taken is not None:
            raise UsageError("--allow-missing, --beams, --top and --taken are for a trained run. Leave them out.")
        with fetched(run) as folder, running(engine):
            _without_training(folder, data, out, keep, columns, labels, column, template, partition_by, json)
        return
    if column is not None or template is not None:
        raise UsageError('--column and --template are for classes without training. Say which, with --labels "a,b".')
    with fetched(run) as folder:
        finished = open_run(folder)
        if beams is not None:
            if not isinstance(finished, TextRun):
                raise UsageError(f"--beams is for a run that writes a column. {run} predicts one. Leave it out.")
            finished.beams = beams
        if top is not None or taken is not None:
            if not isinstance(finished, RankingRun):
                raise UsageError(
                    f"--top and --taken are for a run that recommends items. {run} does not. Leave them out."
                )
            finished.top, finished.taken = finished.top if top is None else top, taken
        with running(engine):
            done = finished.predict_file(data, out, allow_missing, keep, Spoken(), columns, partition_by)
    lines = [
        f"{done['rows']:,} rows = {done['predicted']:,} predicted + {done['rejected']:,} set aside",
        f"wrote:   {out}",
    ]
    if done.get("absent"):
        lines.insert(1, without_in_words(done["absent"]))
    if done["cut"]:
        lines.insert(1, f"{done['cut']:,} texts were longer than the model reads and lost their end")
    if done["rejected"]:
        bad = Table.open(done["rejected_output"]).head(1).to_pylist()[0]
        where = f"row {bad['row']:,}" + (f", column '{bad['column']}'" if bad["column"] else "")
        lines.append(f"aside:   {done['rejected_output']}; the first: {where}: {bad['reason']}")
    if "used" in done:
        lines.append(f"used:    {used_in_words(done['used'])}")
    if not is_address(run):
        lines.append(f"judge:   {typed('evaluate', run, 'DATA_WITH_TARGET')}")
    answer(json, done, lines)


def _without_training(
    run: Path, data: str, out: str, keep: tuple[str, ...], columns: tuple[str, ...], labels: str, column: str | None,
    template: str | None, partition_by: str | None, json: bool,
) -> None:  # fmt: skip
    classes = read_labels(labels)
    if template is not None:
        check_template(template)
    table = Table.open(data)
    if column is None:
        column = text_column(table)
    table.require([column, *keep])
    embedder = open_embedder(run)
    found = embedder.source
    scorer: ByMeaning | ByWriting
    if found.backbone.attention == "reading":
        if template is not None:
            raise UsageError("--template is for checkpoints that write. This one reads: it compares vectors.")
        scorer = ByMeaning(embedder, classes)
    else:
        scorer = ByWriting(found.model, found.tokenizer, classes, template or TEMPLATE, embedder.redact)
    done = classify_table(scorer, classes, table, column, out, keep, Spoken(), columns, partition_by)
    lines = [
        f"{done['rows']:,} rows = {done['predicted']:,} predicted + {done['missing']:,} without a text + "
        f"{done['rejected']:,} set aside",
        *([f"{done['cut']:,} texts were longer than the model reads and were cut"] if done["cut"] else []),
        f"wrote:   {out}",
        "note:    nothing was learnt for these classes; a few hundred labelled rows and weft run do better",
    ]
    answer(json, done, lines)
