"""A run as an ONNX graph, with a small program beside it that answers without torch.

    model.onnx  columns.json  tokenizer.json  predict.py  README.md

The graph has everything that follows the codecs: all copies, the temperature, a threshold a group. Rows and lengths of
texts are free. Its inputs are the codes of the columns, which ``predict.py`` makes of rows.
"""

from __future__ import annotations

import inspect
import json
import logging
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.data import columns as kinds
from weft.errors import RunError, UsageError
from weft.features.batching import Batch
from weft.features.codecs import FIRST, CategoryCodec, NumberCodec, TextCodec, TimeCodec
from weft.features.columns import COLUMNS_FILE, TOKENIZER_FILE, Columns
from weft.files import require_empty, write_whole
from weft.inference.embed import Embedder
from weft.models.language import LanguageModel
from weft.models.row import RowModels
from weft.runs.opening import open_embedder, task_of
from weft.runs.run import Run

MODEL_FILE, PROGRAM = "model.onnx", "predict.py"
EXACT = 1e-4
_SHARED = "from weft.data.columns import parse_number, parse_time, says_missing\n"
_README = """# A model as an ONNX graph

Written by Weft {version} from {source}. It needs no torch: `python -m pip install numpy onnxruntime tokenizers`

{use}

Its answers to random rows lie within {difference:.1g} of those of the run.
"""


class _Rows(nn.Module):
    """Codes of rows, one tensor a field -> answers as :meth:`RowModels.predict` gives them."""

    def __init__(self, models: RowModels, fields: list[tuple[str, str]]):
        super().__init__()
        self.models, self.fields = models, fields

    def forward(self, *codes: Tensor) -> Tensor:
        columns: dict[str, dict[str, Tensor]] = {}
        for (name, field), values in zip(self.fields, codes, strict=True):
            columns.setdefault(name, {})[field] = values
        return self.models.predict(Batch(columns, None, codes[0].shape[0]))


class _Texts(nn.Module):
    """Ids [B, T] and which of them are tokens -> vectors [B, D] of length one."""

    def __init__(self, model: LanguageModel, how: Any):
        super().__init__()
        self.model, self.how = model, how

    def forward(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        return F.normalize(self.model.pooled(ids_BT, mask_BT, how=self.how), dim=1)


def export_onnx(path: Path, out: Path) -> dict[str, Any]:
    """Write a run that predicts a column, or a model that embeds texts, as an ONNX graph; returns what was written.

    Raises:
        UsageError: the run does something else, or the libraries of the extra are not there.
        RunError: the graph answers otherwise than the run by more than :data:`EXACT`.
    """
    require_empty(out)
    task = task_of(path)
    if task in ("next_token", "text", "dialogue", "span", "ranking"):
        raise UsageError(
            f"{path}: must predict a class, labels or a number of a row, or embed texts, to be an ONNX graph. Got a "
            f"run of {task}. Use it with weft predict, generate or serve."
        )
    rows = (path / COLUMNS_FILE).exists()
    found = _export_rows(Run(path), out) if rows else _export_texts(path, out)
    use = "`python predict.py rows.csv answers.csv`" if rows else "`python predict.py texts.txt vectors.npy`"
    program = inspect.cleandoc((Path(__file__).parent / f"predict_{'rows' if rows else 'texts'}.py").read_text("utf-8"))
    write_whole(out / PROGRAM, program.replace(_SHARED, _shared()) + "\n")
    write_whole(
        out / "README.md",
        _README.format(version=version("weft"), source=path.name, use=use, difference=found["difference"]),
    )
    return {"output": str(out), **found}


def _export_rows(run: Run, out: Path) -> dict[str, Any]:
    columns = run.columns
    odd = [f"'{c.name}' ({c.type})" for c in columns.codecs if c.type in ("image", "sequence")]
    recurrent = run.settings.model.backbone == "rnn"
    if odd or recurrent or run.letters.redact is not None:
        what = f"the columns {', '.join(odd)}" if odd else "personal data replaced (preprocess.redact)"
        what = "a recurrent backbone" if recurrent else what
        raise UsageError(
            f"{run.path}: must be a Transformer that reads texts, numbers, categories and times as they come, to be an "
            f"ONNX graph. This run has {what}. "
            f"Use it with weft predict or serve."
        )
    models = run.model.cpu()
    fields = [(c.name, field) for c in columns.codecs for field in c.fields]
    names = [f"c{place}_{field}" for place, c in enumerate(columns.codecs) for field in c.fields]

    def codes(rows: int, seed: int) -> tuple[Tensor, ...]:
        found = _random_codes(columns, rows, np.random.default_rng(seed))
        return tuple(found[field] for field in fields)

    answers = {
        "kind": models.kind, "declines": models.score is not None,
        "threshold": models.threshold.tolist() if models.kind == "labels" else None,
    }  # fmt: skip
    found = _write(_Rows(models, fields), codes, names, out, answers)
    for name in (COLUMNS_FILE, TOKENIZER_FILE):
        if (run.path / name).exists():
            shutil.copy(run.path / name, out / name)
    return found


def _export_texts(path: Path, out: Path) -> dict[str, Any]:
    embedder: Embedder = open_embedder(path)
    source = embedder.source
    if embedder.redact is not None:
        raise UsageError(
            f"{path}: {PROGRAM} reads texts as they come. This run has personal data replaced. Use it with weft embed."
        )

    def codes(rows: int, seed: int) -> tuple[Tensor, ...]:
        draw = np.random.default_rng(seed)
        lengths = draw.integers(1, 7, rows)
        lengths[0] = 7
        ids = torch.from_numpy(draw.integers(0, source.model.config.vocabulary, (rows, 7)))
        return ids, torch.arange(7) < torch.from_numpy(lengths)[:, None]

    model = _Texts(source.model.cpu().eval(), embedder.how)
    found = _write(model, codes, ["ids", "mask"], out, {"kind": "vector", "longest": source.longest})
    source.tokenizer.save(str(out / TOKENIZER_FILE))
    return found


def _write(
    model: nn.Module, codes: Callable[[int, int], tuple[Tensor, ...]], names: list[str], out: Path, answers: dict
) -> dict[str, Any]:
    """Write the graph of ``model``, ask it and the model about other rows than those it was made with, and compare."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch writes graphs with it
    except ImportError:
        raise UsageError(
            "--to onnx: needs onnx, onnxscript and onnxruntime, which are not there. python -m pip install 'weft[onnx]'"
        ) from None
    example = codes(3, 0)
    free = tuple(dict.fromkeys(range(x.dim()), torch.export.Dim.DYNAMIC) for x in example)
    for noisy in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    graph = torch.onnx.export(
        model.eval(), example, dynamo=True, dynamic_shapes=(free,) if isinstance(model, _Rows) else free,
        input_names=names, output_names=["answer"], verbose=False, opset_version=18,
    )  # fmt: skip
    assert graph is not None
    graph.model.metadata_props["weft"] = json.dumps(answers)
    out.mkdir(parents=True, exist_ok=True)
    graph.save(out / MODEL_FILE)
    session = onnxruntime.InferenceSession(str(out / MODEL_FILE))
    wanted, worst = {entry.name for entry in session.get_inputs()}, 0.0
    for rows in (1, 200):
        asked = codes(rows, rows)
        with torch.no_grad():
            ours = model(*asked).numpy()
        given = {name: x.numpy() for name, x in zip(names, asked, strict=True) if name in wanted}
        theirs = session.run(None, given)[0]
        worst = max(worst, float(np.abs(ours - theirs).max() / max(1.0, np.abs(ours).max())))
    if not worst <= EXACT:
        raise RunError(f"{out}: the graph must answer as the run does. Got a difference of {worst:g}. Report this.")
    return {"parameters": sum(p.numel() for p in model.parameters()), "difference": worst}


def _random_codes(columns: Columns, rows: int, draw: np.random.Generator) -> dict[tuple[str, str], Tensor]:
    """Codes that rows could have, some of them missing, texts of several lengths."""
    found: dict[tuple[str, str], np.ndarray] = {}
    for codec in columns.codecs:
        name = codec.name
        if isinstance(codec, TimeCodec):
            edges = 86_400 * draw.integers(0, 2**15, rows) - 1  # where a quotient of floats errs
            found[name, "seconds"] = np.where(draw.random(rows) < 0.5, edges, draw.integers(-(2**31), 2**31, rows))
        elif isinstance(codec, NumberCodec):
            found[name, "value"] = draw.normal(size=rows).astype(np.float32)
            found[name, "spike"] = draw.integers(0, len(codec.spikes) + 1, rows).astype(np.int32)
        elif isinstance(codec, CategoryCodec):
            found[name, "code"] = draw.integers(0, len(codec.categories) + FIRST, rows).astype(np.int32)
        elif isinstance(codec, TextCodec):
            assert codec.tokenizer is not None
            length = min(7, codec.max_tokens)
            tokens = draw.integers(0, codec.tokenizer.get_vocab_size(), (rows, length)).astype(np.int32)
            tokens[np.arange(length) >= draw.integers(0, length + 1, rows)[:, None]] = -1
            found[name, "tokens"] = tokens
            found[name, "gram"] = draw.integers(-1, max(1, len(codec.grams)), (rows, 9)).astype(np.int32)
            found[name, "weight"] = draw.random((rows, 9)).astype(np.float32) * (found[name, "gram"] >= 0)
    return {field: torch.from_numpy(values) for field, values in found.items()}


def _shared() -> str:
    """What the program shares with Weft, as code of its own."""
    missing = f"MISSING_WORDS = frozenset({sorted(kinds.MISSING_WORDS)!r})"
    constants = f"from datetime import datetime\n\n_SIGNS = {kinds._SIGNS!r}\n{missing}\n"
    functions = [inspect.getsource(f) for f in (kinds.says_missing, kinds.parse_number, kinds.parse_time)]
    return "\n\n".join([constants, *functions])
