"""The rows of an index whose vectors are nearest to a query's.

An index is the Parquet file that ``weft embed`` writes. Search is exact, every vector compared, unless a graph was
built beside the file: a hierarchical navigable small world (Malkov & Yashunin 2018) by the library usearch, which is
mapped from the disk and visits few vectors. A graph may miss neighbours; how many is measured when it is built.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from weft.errors import DataError, UsageError

VECTOR = "vector"
GRAPH_KEY = b"weft.graph"
"""In the metadata of an index with a graph: the name that binds the two files."""
MEASURED_ROWS, MEASURED_NEAREST = 200, 10
_ROWS, _QUERIES = 16_384, 1_024
_EXPANSION_ADD, _EXPANSION_SEARCH = 128, 128


class VectorIndex:
    """An index to search in.

    Args:
        path: what ``weft embed`` wrote.
        width: D, of the model that reads the queries.
        exact: compare every vector, also where there is a graph.

    Raises:
        DataError: the file is no index, was made by a model of another width, holds no rows, or its graph is missing.
    """

    def __init__(self, path: Path, width: int, exact: bool = False):
        self.path, self.width = path, width
        try:
            self.file = pq.ParquetFile(path)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path}: must be a Parquet file that `weft embed` wrote. Got: {error}.") from None
        schema = self.file.schema_arrow
        kind = schema.field(VECTOR).type if VECTOR in schema.names else None
        if kind is None or not pa.types.is_fixed_size_list(kind):
            raise DataError(f"{path}: must hold a column '{VECTOR}', as `weft embed` writes it. Got no such column.")
        if kind.list_size != width:
            raise DataError(
                f"{path}: vectors must be of the width of the model, {width}. Got {kind.list_size}. "
                f"Search with the model that made the index."
            )
        self.rows = self.file.metadata.num_rows
        if not self.rows:
            raise DataError(f"{path}: must hold rows. Got none.")
        self.columns = [name for name in schema.names if name != VECTOR]
        name = (schema.metadata or {}).get(GRAPH_KEY)
        self.graph = None if exact or name is None else self._opened(name.decode("utf-8", "replace"))

    def search(self, queries_QD: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Cosines and places [Q, min(count, rows)] of the nearest rows, best first; of equal ones the earlier first."""
        count = min(count, self.rows)
        if self.graph is None:
            return self._compared(queries_QD, count)
        self.graph.expansion_search = max(_EXPANSION_SEARCH, 2 * count)
        # for a single query usearch answers in another shape: the first one is asked twice
        found = self.graph.search(np.concatenate([queries_QD, queries_QD[:1]]), count, threads=_threads())
        places = np.minimum(found.keys[:-1], self.rows - 1).astype(np.int64)
        scores = self._cosines(queries_QD, places)  # the graph's own are rounded
        order = np.lexsort((places, -scores))
        scores, places = np.take_along_axis(scores, order, 1), np.take_along_axis(places, order, 1)
        short = np.flatnonzero(found.counts[:-1] < count)  # a part of the graph that no edge leads out of
        if len(short):
            scores[short], places[short] = self._compared(queries_QD[short], count)
        return scores, places

    def take(self, places: np.ndarray) -> pa.Table:
        """The rows at these places, without their vectors. Only the parts of the file that hold them are read."""
        ends = self._ends()
        wanted, back = np.unique(places, return_inverse=True)
        groups = np.searchsorted(ends, wanted, side="right")
        pieces = [self.file.schema_arrow.empty_table().select(self.columns)]
        for group in np.unique(groups).tolist():
            start = int(ends[group]) - self.file.metadata.row_group(group).num_rows
            piece = self.file.read_row_group(group, columns=self.columns)
            pieces.append(piece.take(pa.array(wanted[groups == group] - start)))
        return pa.concat_tables(pieces).take(pa.array(back.ravel()))

    def _cosines(self, queries_QD: np.ndarray, places_QK: np.ndarray) -> np.ndarray:
        """Of each query with the vectors at its places [Q, K]."""
        scores = np.zeros(places_QK.size, np.float32)
        ends = self._ends()
        order = np.argsort(places_QK.ravel(), kind="stable")
        wanted = places_QK.ravel()[order]
        cuts = np.searchsorted(wanted, ends)
        for group, (first, last) in enumerate(zip(np.append(0, cuts[:-1]), cuts, strict=True)):
            if first < last:
                vectors = self.file.read_row_group(group, columns=[VECTOR]).column(0).combine_chunks().flatten()
                vectors_ND = vectors.to_numpy().reshape(-1, self.width)
                some = vectors_ND[wanted[first:last] - (ends[group] - len(vectors_ND))]
                pairs = order[first:last]
                scores[pairs] = np.einsum("nd,nd->n", queries_QD[pairs // places_QK.shape[1]], some)
        return scores.reshape(places_QK.shape)

    def _ends(self) -> np.ndarray:
        """Of the row groups: the place after the last row of each."""
        return np.cumsum([self.file.metadata.row_group(g).num_rows for g in range(self.file.num_row_groups)])

    def vectors(self, rows: int = _ROWS) -> Iterator[np.ndarray]:
        """All vectors [N, D], some at a time, in order."""
        for batch in self.file.iter_batches(batch_size=rows, columns=[VECTOR]):
            yield batch.column(0).flatten().to_numpy().reshape(-1, self.width)

    def _compared(self, queries_QD: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """As ``search``, by comparing all vectors, which are read once for all queries."""
        scores = np.full((len(queries_QD), count), -np.inf, np.float32)
        places = np.zeros((len(queries_QD), count), np.int64)
        start = 0
        for vectors_ND in self.vectors():
            for first in range(0, len(queries_QD), _QUERIES):
                block = slice(first, first + _QUERIES)
                new = np.concatenate([scores[block], queries_QD[block] @ vectors_ND.T], axis=1)
                least = np.partition(new, -count, axis=1)[:, -count]
                for row, line in enumerate(new, start=first):
                    best = np.flatnonzero(line >= least[row - first])
                    best = best[np.argsort(-line[best], kind="stable")][:count]
                    old = np.append(places[row], 0)[np.minimum(best, count)]
                    places[row] = np.where(best < count, old, start + best - count)
                    scores[row] = line[best]
            start += len(vectors_ND)
        return scores, places

    def _opened(self, name: str) -> Any:
        if name != Path(name).name:
            raise DataError(f"{self.path}: its graph must be a file beside it. Got the name {name!r}. Embed again.")
        file = self.path.with_name(name)
        if not file.is_file():
            raise DataError(
                f"{self.path}: its graph must lie beside it. There is no {file}. Put it there, compare all vectors "
                f"with --exact, or embed again."
            )
        try:
            graph = _new_graph(self.width)
            graph.view(file)
        except RuntimeError as error:
            raise DataError(f"{file}: must be the graph that `weft embed` wrote. Got: {error}.") from None
        if len(graph) != self.rows or graph.ndim != self.width:
            raise DataError(
                f"{file}: must hold the {self.rows:,} vectors of {self.path} of width {self.width}. "
                f"Got {len(graph):,} of {graph.ndim}. Embed again."
            )
        return graph


class GraphBuilder:
    """Grows the graph of an index while its vectors are written; all of them are held in memory."""

    def __init__(self, index: Path, width: int):
        self.graph = _new_graph(width)
        self.index = index
        self.name = f"{index.stem}.{secrets.token_hex(6)}.usearch"

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """The schema of the index, with the name of its graph."""
        return schema.with_metadata({**(schema.metadata or {}), GRAPH_KEY: self.name.encode()})

    def add(self, vectors_ND: np.ndarray) -> None:
        """The next rows' vectors."""
        self.graph.add(np.arange(len(vectors_ND)) + len(self.graph), vectors_ND, threads=_threads())

    def save(self) -> None:
        """Write the graph beside the index, whole."""
        beside = self.index.with_name(f".{self.name}.part")
        try:
            self.graph.save(beside)
            with beside.open("rb") as stream:
                os.fsync(stream.fileno())
            beside.replace(self.index.with_name(self.name))
        finally:
            beside.unlink(missing_ok=True)


def remove_graphs(index: Path) -> None:
    """Remove the graphs of former files of this name."""
    name = (pq.read_schema(index).metadata or {}).get(GRAPH_KEY, b"").decode()
    for file in index.parent.glob(f"{escape(index.stem)}.{'[0-9a-f]' * 12}.usearch"):
        if file.name != name:
            file.unlink()


def recall(index: Path, width: int) -> float:
    """Which share of the 10 nearest other rows the graph finds, of some rows spread over the index."""
    exact, graph = VectorIndex(index, width, exact=True), VectorIndex(index, width)
    chosen = np.unique(np.linspace(0, exact.rows - 1, MEASURED_ROWS).astype(np.int64))
    start, some = 0, []
    for vectors_ND in exact.vectors():
        some.append(vectors_ND[chosen[(chosen >= start) & (chosen < start + len(vectors_ND))] - start])
        start += len(vectors_ND)
    queries_QD = np.concatenate(some)
    real, _ = _others(exact, queries_QD, chosen)
    found, _ = _others(graph, queries_QD, chosen)
    # a row that is as near as the last real neighbour is as good
    return float((found >= real[:, -1:] - 1e-5).mean()) if real.size else 1.0


def _others(index: VectorIndex, queries_QD: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest rows that are not the query itself: cosines and places [Q, at most MEASURED_NEAREST]."""
    scores, places = index.search(queries_QD, MEASURED_NEAREST + 1)
    other = places != own[:, None]
    other[other.all(axis=1), -1] = False  # itself was not among them: the last one goes
    shape = (len(own), scores.shape[1] - 1)
    return scores[other].reshape(shape), places[other].reshape(shape)


def _new_graph(width: int) -> Any:
    try:
        from usearch.index import Index
    except ImportError:
        raise UsageError(
            "a graph needs the library usearch. Install it: python -m pip install usearch; or do without (--exact)."
        ) from None
    return Index(ndim=width, metric="ip", dtype="bf16", connectivity=16, expansion_add=_EXPANSION_ADD)


def _threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
