"""Files that want to run code, to leave their folder or to fill the machine: refused with a message."""

import contextlib
import gzip
import io
import json
import pickle
import shutil
import socket

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.tables import FAST, mixed

import weft
from weft.cli import call
from weft.data.table import Table
from weft.errors import CheckpointError, DataError, WeftError
from weft.files import write_manifest
from weft.inference.zero_shot import read_labels


class Mark:
    """Makes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, "w")


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """A file that must not appear; with what some set to have torch unpickle again."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = tmp_path / "ran"
    pickle.loads(pickle.dumps(Mark(path))).close()
    assert path.exists()  # it would work
    path.unlink()
    yield path
    assert not path.exists(), "code of a file was run"


def hostile(marker):
    """Bytes that run code when they are unpickled, as a pickle, an array of objects and an archive of one."""
    plain, npy, npz = pickle.dumps(Mark(marker)), io.BytesIO(), io.BytesIO()
    array = np.array([Mark(marker)], dtype=object)
    np.save(npy, array, allow_pickle=True)
    np.savez(npz, split=array)
    return {"pickle": plain, "npy": npy.getvalue(), "npz": npz.getvalue()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    settings = FAST | {"results": {"baselines": False, "explain": "off"}}
    pq.write_table(mixed(120), folder / "data.parquet")
    weft.train(str(folder / "data.parquet"), "bought", folder / "run", quiet=True, **settings)
    return folder


@pytest.mark.parametrize("kind", ["pickle", "npy", "npz"])
def test_no_table_runs_code(marker, tmp_path, kind, capsys) -> None:
    content = hostile(marker)[kind]
    for name in ("a.pkl", "a.pickle", "a.npy", "a.npz", "a.joblib", "a.pt", "a.zip"):
        (tmp_path / name).write_bytes(content)
        assert call(["init", str(tmp_path / name), "-o", str(tmp_path / "w.yaml")]) == 2
        assert "ending must be one of" in " ".join(capsys.readouterr().err.split())
    for name in ("a.parquet", "a.arrow", "a.csv.gz", "a.json", "a.csv", "a.txt"):
        (tmp_path / name).write_bytes(content)
        code = call(["init", str(tmp_path / name), "-o", str(tmp_path / "w.yaml")])
        assert code in (1, 2) or name in ("a.json", "a.csv", "a.txt"), name  # these are read as letters, if odd ones


def test_no_arrow_type_is_unpickled(marker, tmp_path) -> None:
    metadata = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": pickle.dumps(Mark(marker)),
    }
    schema = pa.schema([pa.field("a", pa.string(), metadata=metadata), pa.field("b", pa.string())])
    table = pa.table([["x", "y"], ["u", "v"]], schema=schema)
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.ipc.new_file(tmp_path / "a.arrow", schema) as writer:
        writer.write_table(table)
    for name in ("a.parquet", "a.arrow"):
        with contextlib.suppress(DataError):
            Table.open(tmp_path / name).head(2)


@pytest.mark.parametrize(
    "line",
    [
        "target: !!python/object/apply:os.system ['touch {}']", "target: !!python/object/new:open ['{}', 'w']",
        "target: !<tag:yaml.org,2002:python/object/apply:open> ['{}', 'w']", 
        "target: y\ntraining: !!python/name:os.system",
    ],
)  # fmt: skip
def test_no_tag_of_a_settings_file_runs_code(marker, tmp_path, line, capsys) -> None:
    (tmp_path / "w.yaml").write_text("data: {source: a.csv}\n" + line.format(marker))
    assert call(["check", str(tmp_path / "w.yaml")]) == 2
    assert "which is never run" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "labels.yaml").write_text(f"a: !!python/object/apply:open ['{marker}', 'w']\nb: c\n")
    with pytest.raises(WeftError, match="YAML"):
        read_labels(str(tmp_path / "labels.yaml"))


def test_aliases_of_aliases_do_not_grow(tmp_path, capsys) -> None:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 12)]  # 10^12 letters
    (tmp_path / "w.yaml").write_text("\n".join([*lines, "data: {source: *l11}", "target: *l11", "features: *l11"]))
    assert call(["check", str(tmp_path / "w.yaml")]) == 2 and len(capsys.readouterr().err) < 20_000
    (tmp_path / "labels.yaml").write_text("\n".join(lines))
    with pytest.raises(WeftError, match="must hold a list of classes"):
        read_labels(str(tmp_path / "labels.yaml"))
    (tmp_path / "deep.yaml").write_text("data: " + "[" * 5_000)
    assert call(["check", str(tmp_path / "deep.yaml")]) == 2


class TestModels:
    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt", "model.pkl"])
    def test_no_weights_are_unpickled(self, marker, tmp_path, name, capsys) -> None:
        folder = tmp_path / "checkpoint"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
        (folder / name).write_bytes(hostile(marker)["pickle"])
        assert call(["import", str(folder), "-o", str(tmp_path / "run")]) == 1
        assert "can run code" in capsys.readouterr().err and not (tmp_path / "run").exists()
        (folder / "model.safetensors").write_bytes(hostile(marker)["pickle"])
        assert call(["import", str(folder), "-o", str(tmp_path / "run")]) == 1

    def test_no_code_of_a_checkpoint_is_run(self, marker, tmp_path, capsys) -> None:
        folder = tmp_path / "checkpoint"
        folder.mkdir()
        (folder / "mine.py").write_text(f"open({str(marker)!r}, 'w')\n")
        auto = {"model_type": "llama", "auto_map": {"AutoConfig": "mine.C", "AutoModel": "mine.M"}}
        (folder / "config.json").write_text(json.dumps(auto))
        assert call(["import", str(folder), "-o", str(tmp_path / "run")]) == 1
        assert "auto_map" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "a/b.safetensors"])
    def test_no_shard_lies_elsewhere(self, tmp_path, name, capsys) -> None:
        (tmp_path / "other.safetensors").write_bytes(b"\0" * 100)
        folder = tmp_path / "checkpoint"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))
        assert call(["import", str(folder), "-o", str(tmp_path / "run")]) == 1
        assert "a file of this folder" in " ".join(capsys.readouterr().err.split())

    def test_a_header_of_endless_length_is_not_waited_for(self, tmp_path) -> None:
        folder = tmp_path / "checkpoint"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
        (folder / "model.safetensors").write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
        assert call(["import", str(folder), "-o", str(tmp_path / "run")]) == 1


class TestRuns:
    @pytest.mark.parametrize("name", ["split.npy", "model.safetensors", "columns.json", "report.json", "weft.yaml"])
    @pytest.mark.parametrize("kind", ["pickle", "npy"])
    def test_no_file_of_a_run_runs_code(self, marker, trained, tmp_path, name, kind, capsys) -> None:
        run = tmp_path / "run"
        shutil.copytree(trained / "run", run)
        (run / name).write_bytes(hostile(marker)[kind])
        write_manifest(run, [p.name for p in run.iterdir() if p.is_file()])  # whoever forges a file forges its sum
        for command in (["evaluate"], ["predict", "-o", str(tmp_path / "p.csv")]):
            asked = [command[0], str(run), str(trained / "data.parquet"), *command[1:]]
            assert call(asked) in ((0, 1) if name in ("split.npy", "report.json", "weft.yaml") else (1,)), asked
        assert "Error" not in capsys.readouterr().err.split("error", 1)[0]

    def test_a_split_that_is_no_numbers_is_refused(self, marker, trained, tmp_path) -> None:
        run = tmp_path / "run"
        shutil.copytree(trained / "run", run)
        (run / "split.npy").write_bytes(hostile(marker)["npy"])
        write_manifest(run, [p.name for p in run.iterdir() if p.is_file()])
        with pytest.raises(CheckpointError, match=r"split.npy: must hold the split that Weft wrote"):
            weft.load(run).evaluate(str(trained / "data.parquet"))

    @pytest.mark.parametrize("name", ["../data.parquet", "/etc/passwd", "work/x"])
    def test_a_manifest_names_no_file_elsewhere(self, trained, tmp_path, name) -> None:
        run = tmp_path / "run"
        shutil.copytree(trained / "run", run)
        stored = json.loads((run / "manifest.json").read_text())
        stored["sha256"][name] = "0" * 64
        (run / "manifest.json").write_text(json.dumps(stored))
        with pytest.raises(CheckpointError, match="must name files of its folder"):
            weft.load(run)


class TestBombs:
    def test_a_long_cell_that_a_dictionary_repeats_is_read_a_few_rows_at_once(self, tmp_path) -> None:
        long = pa.DictionaryArray.from_arrays(pa.array([0] * 600, pa.int32()), pa.array(["a" * 1_000_000]))
        pq.write_table(pa.table({"text": long}), tmp_path / "a.parquet", compression="zstd")
        assert (tmp_path / "a.parquet").stat().st_size < 10_000  # and 600 MB of letters
        sizes = [raw.batch.nbytes for raw in Table.open(tmp_path / "a.parquet").batches()]
        assert sum(sizes) > 500_000_000 and max(sizes) < 150_000_000

    def test_a_line_without_end_is_set_aside_in_pieces(self, tmp_path) -> None:
        with gzip.open(tmp_path / "a.csv.gz", "wb", compresslevel=1) as stream:
            stream.write(b"a,b\n")
            for _ in range(40):
                stream.write(b"x" * 1_000_000)
            stream.write(b"\n1,2\n")
        batches = list(Table.open(tmp_path / "a.csv.gz").batches())
        assert max((b.batch.nbytes for b in batches), default=0) < 100_000_000
        assert all("fields" in r.reason and len(r.text) <= 1_000 for b in batches for r in b.rejected)
        assert sum(len(b.rejected) for b in batches) >= 1 and batches[-1].batch.column(0)[-1].as_py() == "1"


def test_the_suite_reaches_no_network() -> None:
    with pytest.raises(PermissionError, match="reached for"), socket.socket() as one:
        one.connect(("192.0.2.1", 80))
    with pytest.raises(PermissionError, match="asked for the address"):
        socket.create_connection(("example.com", 80))
