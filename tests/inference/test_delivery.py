"""Outputs in folders of parts and in object stores: the same rows, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from tests.tables import FAST, mixed

import weft
from weft.cli import call
from weft.data.table import Table
from weft.errors import DataError, UsageError
from weft.inference import delivery, parts
from weft.runs.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return weft.train(mixed(200), "bought", out=tmp_path_factory.mktemp("delivery") / "run", quiet=True, **FAST)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "t.parquet"
    odd = mixed(900, seed=3)
    pq.write_table(odd.set_column(0, "price", pa.array(["cheap" if i == 50 else "3.5" for i in range(900)])), path)
    return path


def test_a_folder_holds_parts_in_their_order(run: Run, data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(delivery, "ROWS_A_FILE", 100)
    monkeypatch.setattr(delivery, "ROWS_A_GROUP", 50)
    whole = run.predict_file(data, tmp_path / "whole.parquet")
    done = run.predict_file(data, f"{tmp_path}/out/")
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == [f"part-{i:05d}.parquet" for i in range(len(names))] and len(names) >= 9
    read = pa.concat_tables([pq.read_table(tmp_path / "out" / name) for name in names])
    assert read.equals(pq.read_table(tmp_path / "whole.parquet"))
    assert done["output"] == f"{tmp_path}/out/" and done["rows"] == whole["rows"] == 900
    assert done["rejected_output"] == f"{tmp_path}/out.rejected.parquet"
    assert pq.read_table(done["rejected_output"])["row"].to_pylist() == [50]
    assert Table.open(f"{tmp_path}/out").row_count() == 899
    assert not list(tmp_path.glob(".*"))


def test_a_column_divides_a_folder(run: Run, data: Path, tmp_path: Path) -> None:
    run.predict_file(data, tmp_path / "whole.parquet", keep=("colour",))
    run.predict_file(data, f"{tmp_path}/out/", keep=("colour",), partition_by="colour")
    folders = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert folders == ["colour=%E8%93%9D", "colour=__HIVE_DEFAULT_PARTITION__", "colour=green", "colour=red"]
    read = ds.dataset(tmp_path / "out", partitioning=ds.partitioning(flavor="hive")).to_table().sort_by("row")
    whole = pq.read_table(tmp_path / "whole.parquet")
    assert read.select(whole.column_names).to_pylist() == whole.to_pylist()


def test_what_cannot_be_is_said_before_a_row_is_read(run: Run, data: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    for out, more, said in (
        (f"{tmp_path}/full/", {}, r"full/: the folder must be new or empty\. It holds files"),
        (f"{tmp_path}/out.parquet", {"partition_by": "prediction"}, r"writes a folder\. .*Let -o end in a slash"),
        (f"{tmp_path}/out/", {"partition_by": "predicton"}, r"must be one of .*Did you mean 'prediction'"),
        (
            f"{tmp_path}/out/",
            {"partition_by": "probability"},
            r"must be a column of words or whole numbers\. Got float",
        ),
        (f"{tmp_path}/none/out/", {}, r"none must exist\. Create it"),
        (str(data), {}, r"must not be the table that is read"),
    ):
        with pytest.raises(UsageError, match=said):
            run.predict_file(data, out, **more)
    assert (tmp_path / "full" / "mine.txt").exists() and not list(tmp_path.glob(".*"))


def test_a_folder_that_was_stopped_goes_on_and_is_not_there_before(
    run: Run, data: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(parts, "SECONDS_A_PART", 0.0)
    monkeypatch.setattr("weft.data.table.BATCH_ROWS", 100)
    monkeypatch.setattr("weft.preprocess.clean.BATCH_ROWS", 100)
    before = delivery._divide

    def stop(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(delivery, "_divide", stop)
    with pytest.raises(KeyboardInterrupt):
        run.predict_file(data, f"{tmp_path}/out/")
    assert not (tmp_path / "out").exists() and (tmp_path / ".out.making").exists()
    monkeypatch.setattr(delivery, "_divide", before)
    run.predict_file(data, f"{tmp_path}/out/")
    assert ds.dataset(tmp_path / "out").count_rows() == 899 and not list(tmp_path.glob(".*"))


# ------------------------------------------------------------------------------------- object stores


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """An empty bucket of a server on this machine that speaks S3."""
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        filesystem = fsspec.filesystem("s3")
        filesystem.mkdir("weft")
        yield "s3://weft"
        server.stop()
        filesystem.clear_instance_cache()


def test_a_run_a_table_and_an_output_by_their_addresses(
    run: Run, data: Path, bucket: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    store = fsspec.filesystem("s3")
    store.put(str(run.path) + "/", "weft/runs/1/", recursive=True)
    store.put_file(str(data), "weft/in/t.parquet")
    assert call(["predict", str(run.path), str(data), "-o", "here.parquet"]) == 0
    assert call(["predict", f"{bucket}/runs/1", f"{bucket}/in/*.parquet", "-o", f"{bucket}/out/there.parquet"]) == 0
    said = capsys.readouterr().out
    assert f"wrote:   {bucket}/out/there.parquet" in said and f"aside:   {bucket}/out/there.rejected.parquet" in said
    assert store.cat_file("weft/out/there.parquet") == Path("here.parquet").read_bytes()
    with store.open("weft/out/there.rejected.parquet") as stream:
        aside = pq.read_table(stream).to_pylist()
    assert [(r["row"], r["file"]) for r in aside] == [(50, "weft/in/t.parquet")]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["here.parquet", "here.rejected.parquet"]


def test_a_folder_of_a_store_is_whole_when_it_says_so_and_never_mixed(
    run: Run, data: Path, bucket: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = fsspec.filesystem("s3")
    out = f"{bucket}/parts/"
    put, sent = store.put_file, []

    def breaks(local: str, path: str, **more: object) -> None:
        sent.append(path)
        if len(sent) == 3:
            raise OSError("the line is cut")
        put(local, path, **more)

    with monkeypatch.context() as patch:
        patch.setattr(store, "put_file", breaks)
        with pytest.raises(DataError, match=r"Got: the line is cut.* The output is whole in .*parts: send it yourself"):
            run.predict_file(data, out, partition_by="prediction")
    assert not store.exists("weft/parts/_SUCCESS")
    run.predict_file(data, out, partition_by="prediction")
    assert store.exists("weft/parts/_SUCCESS") and not list(tmp_path.iterdir())
    read = ds.dataset("weft/parts", filesystem=pa.fs.PyFileSystem(pa.fs.FSSpecHandler(store)),
                      partitioning=ds.partitioning(flavor="hive"))  # fmt: skip
    assert read.count_rows() == 899 and Table.open(out).row_count() == 899
    with pytest.raises(UsageError, match="must be new or empty"):
        run.predict_file(data, out)


def test_a_store_that_has_nothing_or_cannot_be_reached_is_said(bucket: str, monkeypatch) -> None:
    with pytest.raises(DataError, match=r"s3://weft/none\.parquet: there is no such file"):
        Table.open(f"{bucket}/none.parquet")
    with pytest.raises(DataError, match=r"s3://other/a\.parquet: "):
        Table.open("s3://other/a.parquet")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(DataError, match=r"s3://weft/a\.parquet: must be a store that can be reached.*AWS_ENDPOINT_URL"):
        Table.open(f"{bucket}/a.parquet")
    assert call(["predict", f"{bucket}/run", "t.csv", "-o", "out.csv"]) == 1
    assert not os.path.exists("out.csv")  # noqa: PTH110
    fsspec.filesystem("s3").clear_instance_cache()


def test_a_library_that_is_missing_is_named(monkeypatch) -> None:
    def none(address: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", none)
    with pytest.raises(UsageError, match=r's3://a/b\.csv: needs a library .*Install it: pip install "weft\[s3\]"'):
        Table.open("s3://a/b.csv")
