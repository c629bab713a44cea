"""Object stores and other places that fsspec knows by an address: ``s3://bucket/folder``.

Keys and endpoints are those of the store's own library, from its environment: for S3 ``AWS_ACCESS_KEY_ID``,
``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL``, ``AWS_PROFILE``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec

from weft.errors import DataError, UsageError, WeftError

DONE = "_SUCCESS"
"""Stands in a folder of an object store when it is whole: readers of such folders pass over it."""


def is_address(place: str) -> bool:
    return "://" in place


@contextmanager
def asking(address: str) -> Iterator[None]:
    """What goes wrong in a store is said; each of their libraries has errors of its own."""
    try:
        yield
    except WeftError:
        raise
    except ImportError as error:
        line = 'Install it: pip install "weft[s3]"' if address.startswith("s3://") else str(error)
        raise UsageError(f"{address}: needs a library that reads such addresses. {line}.") from None
    except FileNotFoundError:
        raise DataError(f"{address}: there is no such file or folder. Check the address.") from None
    except Exception as error:
        said = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise DataError(
            f"{address}: must be a store that can be reached, with keys that are allowed to. Got: {said}. Check the "
            f"address, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL (or those of another store)."
        ) from None


@contextmanager
def fetched(place: str) -> Iterator[Path]:
    """A folder as it lies here; one of an address is copied for as long as the block lasts."""
    if not is_address(place):
        yield Path(place)
        return
    with tempfile.TemporaryDirectory(prefix="weft-") as folder, asking(place):
        filesystem, path = fsspec.core.url_to_fs(place.rstrip("/"))
        filesystem.get(path + "/", folder + "/", recursive=True)
        yield Path(folder)


def occupied(address: str) -> bool:
    """Whether anything lies at an address or below it."""
    with asking(address):
        filesystem, path = fsspec.core.url_to_fs(address.rstrip("/"))
        return bool(filesystem.exists(path))


def send(local: Path, address: str) -> None:
    """Copy a file, which appears whole, or the files of a folder, and after the last of them ``DONE``."""
    with asking(address):
        filesystem, path = fsspec.core.url_to_fs(address.rstrip("/"))
        if local.is_file():
            filesystem.put_file(str(local), path)
            return
        for file in sorted(f for f in local.rglob("*") if f.is_file()):
            filesystem.put_file(str(file), f"{path}/{file.relative_to(local)}")
        filesystem.pipe_file(f"{path}/{DONE}", b"")
