"""The whole way of a language task: what must hold of every run, against transformers and by hand."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tests.tables import mixed
from tests.texts import novel, sentences
from tokenizers import Tokenizer

import weft
from weft.cli import call
from weft.data.split import TEST
from weft.errors import CheckpointError, DataError, SettingsError, TooManyBadRows, UsageError
from weft.files import write_manifest
from weft.inference.sampling import Sampling
from weft.models.pretrained import load_language_model
from weft.runs.language import LanguageRun

FAST = {
    "model": {"width": 24, "layers": 1},
    "training": {"epochs": 2, "batch_rows": 32},
    "features": {"text": {"type": "text", "vocabulary": 320, "max_tokens": 24}},
}
NEXT, MASKED = {"next_token": "text"}, {"masked_token": "text"}


def texts(count=500, seed=0):
    return pa.table({"text": sentences(count, seed), "id": list(range(count))})


def train(table, out, target=None, **settings):
    merged = {k: {**FAST.get(k, {}), **v} if isinstance(v, dict) else v for k, v in settings.items()}
    return weft.train(table, target or NEXT, out, quiet=True, **{**FAST, **merged})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("language")


@pytest.fixture(scope="module")
def writer(folder):
    return train(texts(), folder / "writer")


@pytest.fixture(scope="module")
def reader(folder):
    return train(texts(1_000), folder / "reader", MASKED, training={"epochs": 8})


@pytest.fixture(scope="module", params=["rnn", "gru", "lstm"])
def recurrent(request, folder):
    return train(texts(), folder / request.param, model={"backbone": "rnn", "cell": request.param})


class TestAWriter:
    def test_learns_to_write(self, writer):
        """Each word is followed by one of three, so a word and its space cost about log2(3) bits."""
        figures = writer.figures["models"][0]["metrics"]
        assert figures["bits_per_byte"]["low"] < figures["bits_per_byte"]["value"] < figures["bits_per_byte"]["high"]
        assert figures["bits_per_byte"]["value"] < 2.5  # letters by themselves cost 4
        assert writer.figures["headline"].startswith("In ") and writer.figures["samples"]

    def test_transformers_loads_it_and_is_as_surprised(self, writer):
        """Bits per byte by brute force: each test text by itself through transformers' own Llama."""
        from transformers import AutoTokenizer
        from transformers.models.llama import LlamaForCausalLM

        model = LlamaForCausalLM.from_pretrained(writer.path).eval()
        tokenizer = AutoTokenizer.from_pretrained(writer.path)
        ours, _ = load_language_model(writer.path)
        parts = np.load(writer.path / "split.npy")
        test = [t for t, p in zip(texts().column("text").to_pylist(), parts, strict=True) if p == TEST]
        nats = tokens = size = 0
        for text in test:
            ids = torch.tensor([[*tokenizer(text).input_ids, tokenizer.eos_token_id]])
            assert ids[0, 0] == tokenizer.bos_token_id
            with torch.no_grad():
                logits = model(ids).logits
            torch.testing.assert_close(logits, ours(ids), rtol=1e-4, atol=1e-4)
            for start in range(0, ids.shape[1] - 1, 24):  # in pieces of the context, each after the first token
                piece = ids[:, start + 1 : start + 25]
                read = torch.cat([ids[:, :1], piece[:, :-1]], dim=1)
                with torch.no_grad():
                    log = model(read).logits.log_softmax(-1)
                nats -= float(log.gather(-1, piece[..., None]).sum())
                tokens += piece.numel()
            size += len(text.encode())
        metrics = writer.figures["models"][0]["metrics"]
        assert metrics["bits_per_byte"]["value"] == pytest.approx(nats / math.log(2) / size, rel=1e-4)
        assert metrics["perplexity"]["value"] == pytest.approx(math.exp(nats / tokens), rel=1e-4)
        assert writer.figures["rows_judged"] == len(test)

    def test_a_loaded_run_judges_as_the_training_did(self, writer, reader):
        for run, rows in ((writer, texts()), (reader, texts(1_000))):
            found = weft.load(run.path).evaluate(rows)
            assert found["part"] == "test rows of the training data" and found["rows"] == run.figures["rows_judged"]
            for key, expected in run.figures["models"][0]["metrics"].items():
                assert found["metrics"][key]["value"] == pytest.approx(expected["value"], rel=1e-5), key

    def test_other_texts_are_judged_whole(self, writer):
        found = writer.evaluate(texts(100, seed=5))
        assert found["rows"] == 100 and found["part"] == "all rows"
        nonsense = writer.evaluate(pa.table({"text": ["qzx vvk jjq"] * 40}))
        assert nonsense["metrics"]["bits_per_byte"]["value"] > 2 * found["metrics"]["bits_per_byte"]["value"]

    def test_goes_on_from_a_prompt(self, writer):
        found = writer.generate(["the", "a cat"], Sampling(max_tokens=8, temperature=0))
        assert len(found) == 2 and all(len(w.ids) <= 8 for w in found)
        again = weft.load(writer.path).generate("a cat", Sampling(max_tokens=8, temperature=0))
        assert again[0].ids == found[1].ids

    def test_a_prompt_is_cleaned_as_the_training_texts_were(self, writer, tmp_path, capsys):
        odd, plain = "the cafe\u0301 \x07cat", "the caf\u00e9 cat"
        wanted = writer.generate(plain, Sampling(max_tokens=8))[0]
        assert writer.generate(odd, Sampling(max_tokens=8))[0] == wanted
        assert writer.generate(" ", Sampling(max_tokens=1))  # spaces are a prompt, though no document
        words = ["generate", str(writer.path), "--tokens", "8", "--temperature", "0"]
        assert call([*words, odd, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["texts"][0]["ids"] == wanted.ids
        pq.write_table(pa.table({"p": [odd]}), tmp_path / "p.parquet")
        table = ["--data", str(tmp_path / "p.parquet"), "--column", "p", "-o", str(tmp_path / "o.parquet")]
        assert call([*words, *table]) == 0
        assert pq.read_table(tmp_path / "o.parquet")["text"].to_pylist() == [wanted.text]

    def test_a_special_token_in_a_prompt_is_letters(self, writer):
        ids = writer.loaded[1].encode("<end>", add_special_tokens=False).ids
        assert len(ids) > 1 and writer.loaded[1].token_to_id("<end>") not in ids

    def test_leaves_the_folder_of_the_contract(self, writer):
        names = {p.name for p in writer.path.iterdir()}
        assert names >= {"weft.yaml", "model.safetensors", "config.json", "tokenizer.json", "metrics.jsonl",
                         "report.html", "report.json", "README.md", "manifest.json"}  # fmt: skip
        assert not names & {"work", "checkpoints", ".model"}

    def test_opens_as_what_it_is(self, writer):
        assert isinstance(weft.load(writer.path), LanguageRun)

    def test_predicts_no_column_and_says_what_to_use(self, writer, tmp_path):
        with pytest.raises(UsageError, match="weft generate"):
            writer.predict(texts(3))
        with pytest.raises(UsageError, match="weft generate"):
            writer.predict_file(texts(3), tmp_path / "out.csv")

    def test_the_report_draws_how_it_learnt(self, writer):
        page = (writer.path / "report.html").read_text()
        assert page.count("<polyline") == 2 and "Surprise at a token in nats" in page
        points = writer.figures["curves"]["learning"]
        losses = [r["valid_loss"] for r in _records(writer.path) if "valid_loss" in r]
        assert [y for _, y in points["valid"]] == pytest.approx(losses, abs=1e-4)
        assert points["train"][-1][1] < points["train"][0][1]


def _records(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


class TestWeftsOwnForm:
    def test_a_recurrent_run_loads_with_the_same_logits(self, recurrent):
        model, tokenizer = load_language_model(recurrent.path)
        assert json.loads((recurrent.path / "config.json").read_text())["model_type"] == "weft"
        assert recurrent.figures["model"]["family"] == "weft"
        found = recurrent.evaluate(texts())["metrics"]["bits_per_byte"]["value"]
        expected = recurrent.figures["models"][0]["metrics"]["bits_per_byte"]["value"]
        assert found == pytest.approx(expected, rel=1e-5)
        # by hand: each text by itself
        parts = np.load(recurrent.path / "split.npy")
        nats = size = 0
        for text, part in zip(texts().column("text").to_pylist(), parts, strict=True):
            if part == TEST:
                begin, *ids = tokenizer.encode(text).ids
                ids = torch.tensor([[begin, *ids, begin]])
                for start in range(0, ids.shape[1] - 1, 24):
                    piece = ids[:, start + 1 : start + 25]
                    read = torch.cat([ids[:, :1], piece[:, :-1]], dim=1)
                    with torch.no_grad():
                        log = model(read).log_softmax(-1)
                    nats -= float(log.gather(-1, piece[..., None]).sum())
                size += len(text.encode())
        assert found == pytest.approx(nats / math.log(2) / size, rel=1e-4)

    @pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
    def test_a_changed_file_is_refused(self, reader, tmp_path, file):
        shutil.copytree(reader.path, tmp_path / "run")
        data = bytearray((tmp_path / "run" / file).read_bytes())
        data[len(data) // 2] ^= 1
        (tmp_path / "run" / file).write_bytes(data)
        with pytest.raises(CheckpointError, match=f"{file} has changed"):
            load_language_model(tmp_path / "run")
        with pytest.raises(CheckpointError, match=f"{file} has changed"):
            weft.load(tmp_path / "run")

    @pytest.mark.parametrize(
        "change",
        [
            lambda shape: shape["language"].update(vocabulary=999),
            lambda shape: shape["language"]["backbone"].update(width=48),
            lambda shape: shape["language"]["backbone"].update(unknown=1),
            lambda shape: shape.pop("language"),
            lambda shape: shape["language"].pop("backbone"),
        ],
    )
    def test_a_shape_that_does_not_fit_the_weights_is_refused(self, reader, tmp_path, change):
        shutil.copytree(reader.path, tmp_path / "run")
        shape = json.loads((tmp_path / "run" / "config.json").read_text())
        change(shape)
        (tmp_path / "run" / "config.json").write_text(json.dumps(shape))
        write_manifest(tmp_path / "run")  # as a careless hand would
        with pytest.raises(CheckpointError, match=r"must hold the config\.json and model\.safetensors of one run"):
            load_language_model(tmp_path / "run")

    def test_an_unfinished_run_is_refused(self, reader, tmp_path):
        shutil.copytree(reader.path, tmp_path / "run")
        (tmp_path / "run" / "manifest.json").unlink()
        with pytest.raises(CheckpointError, match="not finished"):
            load_language_model(tmp_path / "run")


class TestFromARun:
    """A run is where another begins."""

    def test_pretraining_goes_on_with_its_tokens_and_weights(self, writer, tmp_path):
        found = weft.train(
            texts(300, seed=3), NEXT, tmp_path / "on", quiet=True, model={"from": str(writer.path)},
            training={"epochs": 1, "learning_rate": 1e-9},
        )  # fmt: skip
        assert (found.path / "tokenizer.json").read_bytes() == (writer.path / "tokenizer.json").read_bytes()
        before, after = (load_language_model(r.path)[0].state_dict() for r in (writer, found))
        for name, tensor in before.items():
            torch.testing.assert_close(tensor, after[name], rtol=0, atol=1e-6)
        assert found.figures["model"]["context"] == 24  # that of the checkpoint

    def test_adapters_are_merged_and_leave_a_plain_checkpoint(self, writer, tmp_path):
        found = weft.train(
            texts(300, seed=3), NEXT, tmp_path / "lora", quiet=True, training={"epochs": 1},
            model={"from": str(writer.path), "adapter": "lora", "rank": 4},
        )  # fmt: skip
        assert 0 < found.figures["model"]["trained"] < found.figures["model"]["parameters"]
        before, after = (load_language_model(r.path)[0].state_dict() for r in (writer, found))
        assert before.keys() == after.keys()
        assert torch.equal(before["table.weight"], after["table.weight"])
        changed = "backbone.blocks.0.attention.qkv.weight"
        assert not torch.equal(before[changed], after[changed])
        expected = found.figures["models"][0]["metrics"]["bits_per_byte"]["value"]
        judged = found.evaluate(texts(300, seed=3))["metrics"]["bits_per_byte"]["value"]
        assert judged == pytest.approx(expected, rel=1e-5)

    def test_a_recurrent_run_goes_on(self, recurrent, tmp_path):
        found = weft.train(
            texts(300, seed=3), NEXT, tmp_path / "on", quiet=True, model={"from": str(recurrent.path), "dropout": 0.2},
            training={"epochs": 1},
        )  # fmt: skip
        assert found.figures["model"]["shape"] == recurrent.figures["model"]["shape"]
        ours = found.figures["models"][0]["metrics"]["bits_per_byte"]["value"]
        assert ours < recurrent.evaluate(texts(300, seed=3))["metrics"]["bits_per_byte"]["value"] * 1.02

    @pytest.mark.parametrize("kind", ["writer", "reader"])
    def test_a_table_is_read_by_it(self, request, kind, tmp_path):
        self.check_a_table(request.getfixturevalue(kind), tmp_path)

    def test_a_table_is_read_by_a_recurrent_one(self, recurrent, tmp_path):
        self.check_a_table(recurrent, tmp_path)

    def check_a_table(self, source, tmp_path):
        found = weft.train(
            mixed(300), "bought", tmp_path / "row", quiet=True, model={"from": str(source.path)},
            training={"epochs": 1}, results={"baselines": False},
        )  # fmt: skip
        rows = mixed(20, seed=4)
        again = weft.load(found.path).predict(rows)
        assert again.equals(found.predict(rows)) and again.num_rows == 20
        assert "from a checkpoint" in found.figures["model"]["shape"]

    def test_adapters_need_a_transformer_and_the_error_says_so(self, folder, tmp_path):
        source = folder / "gru"
        if not source.exists():
            train(texts(), source, model={"backbone": "rnn", "cell": "gru"})
        for table, target in ((texts(), NEXT), (mixed(100), "bought")):
            with pytest.raises(SettingsError, match=r"model\.adapter: .*Transformer"):
                weft.train(table, target, tmp_path / "no", quiet=True, model={"from": str(source), "adapter": "lora"})
            with pytest.raises(SettingsError, match=r"training\.optimizer: .*Transformer"):
                weft.train(
                    table, target, tmp_path / "no", quiet=True, model={"from": str(source)},
                    training={"optimizer": "muon"},
                )  # fmt: skip
            assert not (tmp_path / "no").exists()

    def test_a_reader_cannot_begin_a_writer_nor_the_other_way(self, writer, reader, tmp_path):
        for source, target in ((reader, NEXT), (writer, MASKED)):
            with pytest.raises(SettingsError, match=r"model\.from: target\.\w+ needs a model that"):
                weft.train(texts(), target, tmp_path / "no", quiet=True, model={"from": str(source.path)})
            assert not (tmp_path / "no").exists()

    def test_it_is_embedded_with_the_vectors_of_its_states(self, reader, writer, recurrent):
        from weft.exchange import open_text_model
        from weft.inference.embed import Embedder

        for run, how in ((reader, "mean"), (writer, "last"), (recurrent, "last")):
            vectors, cut = Embedder(open_text_model(run.path))(["a cat sat.", "the dog ran."])
            model, tokenizer = load_language_model(run.path)
            ids = torch.tensor([tokenizer.encode("a cat sat.").ids])
            with torch.no_grad():
                states = model.hidden(ids)[0]
            expected = states.mean(0) if how == "mean" else states[-1]
            np.testing.assert_allclose(vectors[0], expected / expected.norm(), atol=1e-5)
            assert cut == 0


class TestPlainText:
    def test_the_rows_of_a_text_file_are_the_file(self, put):
        from weft.data.table import Table

        text = novel(90_000) + "花" * 50_000 + "\r\nend"
        table = Table.open(put("novel.txt", text))
        head = table.head(1_000)
        assert "".join(head.column("text").to_pylist()) == text
        assert head.column("place").to_pylist() == list(range(len(head)))
        assert all(len(t) <= 32_768 for t in head.column("text").to_pylist())

    def test_several_files_are_one_table(self, put):
        from weft.data.table import Table

        a, b = put("a.txt", novel(40_000)), put("b.txt", novel(30_000, seed=1))
        head = Table.open([a, b]).head(100)
        rows = head.to_pylist()
        assert "".join(r["text"] for r in rows if r["file"] == str(b)) == b.read_text()
        assert head.column("place").to_pylist() == list(range(len(head)))

    def test_split_by_place_judges_the_end_of_the_file(self, put, tmp_path):
        path = put("novel.txt", novel(400_000))
        run = train(
            path, tmp_path / "run", data={"split": {"time": "place", "test": 0.1, "valid": 0.1}},
            training={"epochs": 1},
        )  # fmt: skip
        parts = np.load(run.path / "split.npy")
        assert (np.diff(parts) >= 0).all() and set(parts) == {0, 1, 2}


class TestMasked:
    def test_learns_what_is_hidden(self, reader):
        e = reader.figures["models"][0]["metrics"]["masked_perplexity"]
        assert e["value"] < 100  # of 320 tokens
        assert "hidden" in reader.figures["headline"] and reader.figures["samples"] == []
        assert "masked" in reader.figures["target"]["reason"]

    def test_a_recurrent_network_reads_both_ways(self, tmp_path):
        run = train(texts(300), tmp_path / "run", MASKED, model={"backbone": "rnn"})
        assert run.figures["models"][0]["metrics"]["masked_perplexity"]["value"] < 320
        on = weft.train(
            texts(300), MASKED, tmp_path / "on", quiet=True, model={"from": str(run.path)}, training={"epochs": 1}
        )
        assert on.figures["model"]["shape"] == run.figures["model"]["shape"]

    def test_what_begins_a_text_is_read_and_not_asked_for(self, reader):
        from weft.features.documents import Documents, Marks
        from weft.features.pieces import IGNORED, Corpus

        _, tokenizer = load_language_model(reader.path)
        marks = Marks.of(tokenizer)
        corpus = Corpus(Documents.of(sentences(9), tokenizer, marks.end), marks, 24, masked=320)
        batch = corpus.batch(corpus.cuts(np.arange(9)), np.arange(9), None)
        assert (batch.ids_BT[:, 0] == marks.begin).all() and (batch.targets_BT[:, 0] == IGNORED).all()


CHILD = """
import sys, weft
import pyarrow.parquet as pq
from weft.training.loop import Loop
task, table, out, resume = sys.argv[1:]
save = Loop._step
def step(self, batch):
    if self.progress.step and self.progress.step % 5 == 0:
        self._save()  # as the clock would, so that there is something to go on from
    save(self, batch)
    print(self.progress.step, flush=True)
Loop._step = step
pipe = weft.Pipeline({"target": {task: "text"}, "model": {"width": 24, "layers": 1, "dropout": 0.2},
                      "features": {"text": {"type": "text", "vocabulary": 320, "max_tokens": 24}},
                      "training": {"epochs": 3, "batch_rows": 32}})
pipe.run(pq.read_table(table), out, resume=bool(int(resume)), quiet=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("task", ["next_token", "masked_token"])
@pytest.mark.parametrize("moment", [0, 7, 31])
def test_killed_anywhere_and_resumed_is_never_killed(tmp_path, task, moment):
    """SIGKILL while it encodes (0) or learns; the weights and every figure end with the same bits."""
    pq.write_table(texts(600), tmp_path / "t.parquet")

    def command(out, resume):
        return [sys.executable, "-c", CHILD, task, str(tmp_path / "t.parquet"), str(tmp_path / out), resume]

    calm = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command("whole", "0"), check=True, stdout=subprocess.DEVNULL, env=calm, timeout=500)
    with subprocess.Popen(command("killed", "0"), stdout=subprocess.PIPE, text=True, env=calm) as child:
        if moment == 0:
            while not (tmp_path / "killed" / "work").exists():
                time.sleep(0.01)
        else:
            while int(child.stdout.readline()) < moment:
                pass
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "manifest.json").exists()
    subprocess.run(command("killed", "1"), check=True, stdout=subprocess.DEVNULL, env=calm, timeout=500)
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name
    assert _records(tmp_path / "whole") == _records(tmp_path / "killed")
    one, two = (weft.load(tmp_path / name).figures for name in ("whole", "killed"))
    for key in ("headline", "samples", "curves", "rows_judged"):
        assert one[key] == two[key], key


class TestBadInput:
    def test_empty_texts_are_set_aside_and_the_others_used(self, tmp_path):
        some = [*sentences(500), "", "  ", "\n\t", None, "\x00\x01"]
        run = train(pa.table({"text": some}), tmp_path / "run", training={"epochs": 1})
        assert run.figures["data"]["used"] == 500 and run.figures["data"]["rejected"] == 5

    def test_control_characters_are_left_out_and_line_ends_kept(self, tmp_path):
        some = [f"\x1b[1m{s}\x00\r\n\tnext\x7f" for s in sentences(300)]
        run = train(pa.table({"text": some}), tmp_path / "run", training={"epochs": 1})
        tokenizer = Tokenizer.from_file(str(run.path / "tokenizer.json"))
        vocabulary = {tokenizer.decode([i], skip_special_tokens=False) for i in range(7, tokenizer.get_vocab_size())}
        assert any("\n\t" in v or v in "\n\t" for v in vocabulary)
        assert not any(len(v) > 1 and set(v) & set("\x1b\x00\x7f\r") for v in vocabulary)

    def test_full_width_punctuation_is_kept(self, put, tmp_path):
        path = put("zh.txt", "春天来了，花开了。我们去看：花！（真美）\n" * 3_000)
        run = train(path, tmp_path / "run", training={"epochs": 1, "batch_rows": 64},
                    data={"split": {"test": 0.2, "valid": 0.2}},
                    features={"text": {"type": "text", "vocabulary": "characters", "max_tokens": 24}})  # fmt: skip
        tokenizer = Tokenizer.from_file(str(run.path / "tokenizer.json"))
        assert all(tokenizer.token_to_id(letter) is not None for letter in "，。：！（）花")
        assert all(tokenizer.token_to_id(letter) is None for letter in ",:!()")

    @pytest.mark.parametrize("bom", [b"\xff\xfe", b"\xfe\xff", b""])
    def test_a_file_in_utf_16_is_named(self, put, tmp_path, bom):
        code = "utf-16-be" if bom == b"\xfe\xff" else "utf-16-le"
        path = put("a.txt", bom + novel(50_000).encode(code))
        with pytest.raises(DataError, match=r"must be UTF-8 text\. Got another encoding.*iconv"):
            train(path, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_bytes_of_latin_1_are_named_with_their_place(self, put, tmp_path):
        text = novel(100_000).encode()
        path = put("a.txt", text[:60_000] + "café".encode("latin-1") + text[60_000:])
        with pytest.raises(TooManyBadRows, match=r"must be UTF-8, has byte 0xe9 at \d+"):
            train(path, tmp_path / "run")

    def test_a_lone_surrogate_costs_its_row(self, put, tmp_path):
        lines = [json.dumps({"text": s}) for s in sentences(400)]
        lines[7] = '{"text": "half a letter: \\ud83d"}'
        run = train(put("a.jsonl", "\n".join(lines)), tmp_path / "run", training={"epochs": 1})
        aside = pq.read_table(run.path / "rejected.parquet").to_pylist()
        assert [r["row"] for r in aside] == [7] and "must be UTF-8" in aside[0]["reason"]

    def test_a_table_in_memory_with_a_lone_surrogate_is_refused(self, tmp_path):
        with pytest.raises(DataError, match="surrogate"):
            train({"text": ["a", "\ud800"]}, tmp_path / "run")

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", r"the file is empty \(0 bytes\)"),
            (b" \n\t\n" * 100, "must hold rows that can be used"),
            (b"\xef\xbb\xbf", "must hold rows"),
            (b"one short line", "every part must hold rows"),
        ],
    )
    def test_a_text_file_with_nothing_in_it(self, put, tmp_path, content, said):
        with pytest.raises(DataError, match=said):
            train(put("a.txt", content), tmp_path / "run")

    def test_too_few_tokens_to_learn_from(self, tmp_path):
        with pytest.raises(DataError, match="at least 1,000 tokens"):
            train(texts(30), tmp_path / "run")

    @pytest.mark.parametrize("target", [NEXT, MASKED])
    def test_a_column_of_numbers_is_no_text(self, tmp_path, target):
        with pytest.raises(SettingsError, match=r"'text' must hold texts\. Got (int64|double)"):
            train(pa.table({"text": list(range(300))}), tmp_path / "run", target)

    def test_a_column_that_is_not_there(self, tmp_path):
        with pytest.raises(SettingsError, match=r"there is no column 'txt'.* Did you mean 'text'"):
            train(texts(), tmp_path / "run", {"next_token": "txt"})

    def test_other_columns_are_not_read(self, tmp_path):
        with pytest.raises(SettingsError, match=r"features\.id: only 'text' is read"):
            train(texts(), tmp_path / "run", features={"id": "number"})
        with pytest.raises(SettingsError, match=r"features\.text: must be text"):
            train(texts(), tmp_path / "run", features={"text": "category"})

    @pytest.mark.parametrize("target", [{"next_token": "text", "masked_token": "text"}, {},
                                        {"column": "id", "next_token": "text"}])  # fmt: skip
    def test_one_thing_is_learnt(self, tmp_path, target):
        with pytest.raises(SettingsError, match="one thing is learnt"):
            weft.train(texts(), target, tmp_path / "run", quiet=True)

    def test_type_and_positive_are_for_columns(self, tmp_path):
        with pytest.raises(SettingsError, match=r"is for target\.column"):
            train(texts(), tmp_path / "run", {"next_token": "text", "type": "class"})

    def test_a_context_longer_than_the_checkpoint(self, writer, tmp_path):
        with pytest.raises(SettingsError, match=r"features\.text\.max_tokens: the checkpoint reads at most 24 tokens"):
            weft.train(texts(), NEXT, tmp_path / "run", quiet=True, model={"from": str(writer.path)},
                       features={"text": {"type": "text", "max_tokens": 64}})  # fmt: skip
        assert not (tmp_path / "run").exists()

    def test_a_vocabulary_beside_a_checkpoint(self, writer, tmp_path):
        with pytest.raises(SettingsError, match=r"features\.text\.vocabulary: the checkpoint has its own"):
            weft.train(texts(), NEXT, tmp_path / "run", quiet=True, model={"from": str(writer.path)},
                       features={"text": {"type": "text", "vocabulary": 320}})  # fmt: skip
        assert not (tmp_path / "run").exists()

    def test_a_vocabulary_for_a_text_that_is_only_read(self, tmp_path):
        with pytest.raises(SettingsError, match=r"features\.review\.vocabulary: is for texts that are written"):
            weft.train(mixed(100), "bought", tmp_path / "run", quiet=True,
                       features={"review": {"type": "text", "vocabulary": 320}})  # fmt: skip

    def test_evaluating_a_table_without_the_column(self, writer):
        with pytest.raises(DataError, match="there is no column 'text'"):
            writer.evaluate(pa.table({"words": ["a"]}))
        with pytest.raises(DataError, match="must hold texts"):
            writer.evaluate(pa.table({"text": ["", None]}, schema=pa.schema([("text", pa.string())])))
