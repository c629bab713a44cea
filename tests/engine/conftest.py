"""What every engine is tried with: a small run, and tables with rows that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import torch
from tests.tables import FAST, mixed
from tests.texts import sentences
from tests.writers import byte_level

import weft
from weft.cli import call
from weft.features.chat import OWN, TEMPLATE, Chat
from weft.features.dialogues import DialogueCounts, dialogue_examples
from weft.features.documents import Marks, encode_documents
from weft.features.examples import write_examples
from weft.features.pairs import PairCounts, fit_pairing, pair_examples
from weft.features.tokenizer import WRITING, train_tokenizer
from weft.models.checkpoints import save_hf
from weft.models.language import LanguageConfig, LanguageModel
from weft.models.transformer import TransformerConfig
from weft.preprocess.ingest import ROW, CleanRows
from weft.progress import Silent
from weft.runs.run import Run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return weft.train(mixed(200), "bought", out=tmp_path_factory.mktemp("engine") / "run", quiet=True, **FAST)


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """CSV with a line that is no row, a price that is no number and names of special tokens in a text; Parquet of many
    small row groups and of one large, in two files."""
    folder = tmp_path_factory.mktemp("tables")
    table = mixed(3_000, seed=3)
    pacsv.write_csv(table, folder / "t.csv")
    lines = (folder / "t.csv").read_text().split("\n")
    lines[777] = "not,a,row,at,all,x,y"
    lines[1_500] = 'cheap,"red",2020-01-01 00:00:00,"lovely","no"'
    lines[2_000] = '3.5,"red",2020-01-01 00:00:00,"<pad> lovely <mask> [SEP] soft","no"'
    (folder / "t.csv").write_text("\n".join(lines))
    for name, group in (("small", 400), ("large", 200_000)):
        (folder / name).mkdir()
        odd = table.set_column(0, "price", pa.array(["cheap" if i == 950 else "3.5" for i in range(3_000)]))
        pq.write_table(odd.slice(0, 1_000), folder / name / "a.parquet", row_group_size=group)
        pq.write_table(odd.slice(1_000), folder / name / "b.parquet", row_group_size=group)
    return {"csv": str(folder / "t.csv"), "small": str(folder / "small"), "large": str(folder / "large")}


def written(folder: Path, name: str) -> list[bytes]:
    """The output of a prediction and the rows set aside, as bytes."""
    return [(folder / name).read_bytes(), (folder / f"{Path(name).stem}.rejected.parquet").read_bytes()]


@pytest.fixture(scope="session")
def writer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a model that writes, and what it knows is nothing."""
    torch.manual_seed(0)
    folder, tokenizer = tmp_path_factory.mktemp("writer") / "model", byte_level()
    shape = TransformerConfig(16, 2, 2, attention="writing", max_positions=64)
    save_hf(LanguageModel(LanguageConfig(shape, tokenizer.get_vocab_size())), folder, tokenizer)
    return str(folder)


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Parquet of small row groups, with texts that are missing, empty, and longer than a model reads."""
    table = pa.table({"text": [None, "", "cat " * 90, *sentences(150)]})
    path = tmp_path_factory.mktemp("texts") / "t.parquet"
    pq.write_table(table, path, row_group_size=30)
    return str(path)


COMMANDS = {
    "embed": ("--column", "text"),
    "generate": ("--column", "text", "--tokens", "4", "--cut", "--seed", "3"),
}


def by_command(command: str, writer: str, texts: str, folder: Path, engine: str) -> list[bytes]:
    """What ``weft embed`` or ``weft generate`` writes on an engine: the output and the rows set aside, as bytes."""
    out, data = str(folder / f"{engine}.parquet"), [texts] if command == "embed" else ["--data", texts]
    assert call([command, writer, *data, "-o", out, "--engine", engine, *COMMANDS[command]]) == 0
    return [path.read_bytes() for path in sorted(folder.glob(f"{engine}*.parquet"))]


def encoded(folder: Path) -> list[bytes]:
    """What a language task makes of texts, of pairs of them and of dialogues, as the bytes of its stores."""
    turns = [json.dumps([{"role": "user", "content": t}, {"role": "assistant", "content": t[::-1]}])
             for t in sentences(40, seed=2)]  # fmt: skip
    columns = {"a": ["", *sentences(39)], "t": [*sentences(39, seed=1), "x" * 99], "chat": turns}
    folder.mkdir()
    table = pa.table({ROW: range(40), **columns})
    with pa.ipc.new_file(str(folder / "clean"), table.schema) as stream:
        stream.write_table(table, max_chunksize=7)
    clean = CleanRows(folder / "clean", np.zeros(40, np.uint8))
    tokenizer = train_tokenizer(sentences(90), 300, special=WRITING)
    encode_documents(clean, "t", tokenizer, 0, folder / "texts", Silent(), ["more"])
    marks, counts, heard = Marks.of(tokenizer), PairCounts(), DialogueCounts()
    pairing, _ = fit_pairing(clean, ["a"], "t", tokenizer, marks, 0, 64, None, None)
    write_examples(pair_examples(clean, pairing, tokenizer, counts), folder / "pairs")
    chat = Chat(tokenizer, {TEMPLATE: OWN, "eos_token": "<end>", "bos_token": "<end>"}, "2026-11-22T00:00:00")
    write_examples(dialogue_examples(clean, "chat", chat, 40, heard), folder / "dialogues")
    said = repr((pairing, counts, heard)).encode()
    return [said, *(p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "clean")]
