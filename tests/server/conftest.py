"""Small runs behind a real server on a free port of this machine."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pyarrow as pa
import pytest
from tests.tables import FAST, pictured
from tests.writers import byte_level, untrained

import weft
from weft.features.chat import PLAIN
from weft.models.stored import save_language_model
from weft.server.app import create_app
from weft.server.listen import server_of, take
from weft.server.served import Served

KEY = "a key that nobody guesses"


@pytest.fixture(scope="session")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights that writes and chats; of the shape of a Llama with 128 positions."""
    folder = tmp_path_factory.mktemp("runs") / "writer"
    folder.mkdir()
    save_language_model(untrained("transformer"), folder, byte_level(begin=True), {"chat_template": PLAIN})
    return folder


@pytest.fixture(scope="session")
def table_run(tmp_path_factory: pytest.TempPathFactory) -> weft.runs.run.Run:
    """A run of a table with numbers, categories, times, texts and pictures."""
    folder = tmp_path_factory.mktemp("runs") / "shop"
    settings = FAST | {"training": {"epochs": 1, "batch_rows": 64}}
    return weft.train(pictured(150).drop_columns(["side"]), "bought", out=folder, quiet=True, **settings)


@pytest.fixture(scope="session")
def ranking_run(tmp_path_factory: pytest.TempPathFactory) -> weft.runs.run.Run:
    """Ten users who go round five items in turn."""
    folder = tmp_path_factory.mktemp("runs") / "recommender"
    events = [(f"u{u}", f"i{(u + t) % 5}", t) for u in range(10) for t in range(8)]
    table = pa.table(dict(zip(["user", "item", "time"], zip(*events, strict=True), strict=True)))
    target = {"column": "item", "type": "ranking", "user": "user", "time": "time"}
    settings = {"model": {"width": 16, "layers": 1}, "training": {"epochs": 1}}
    return weft.train(table, target, out=folder, quiet=True, **settings)


@contextmanager
def listening(*served: Served, **settings: object) -> Iterator[str]:
    """A server of these runs; its address."""
    app = create_app(served, **settings)  # type: ignore[arg-type]
    server, (socket, found) = server_of(app), take("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([socket],))
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield found
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def address(writer: Path, table_run: weft.runs.run.Run, ranking_run: weft.runs.run.Run) -> Iterator[str]:
    """All runs behind one server that wants no key."""
    paths = (writer, table_run.path, ranking_run.path)
    with listening(*(Served(path, path.name) for path in paths)) as found:
        yield found


@pytest.fixture(scope="session")
def ask(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client
