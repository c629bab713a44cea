"""How anything reaches the disk: whole or not at all, with a sha256 manifest that is checked on reading."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from weft.errors import CheckpointError, RunError, UsageError

MANIFEST = "manifest.json"
KEY = "WEFT_KEY"
"""The environment variable that names the file with the key by which runs are signed and verified."""


def write_whole(path: Path, content: str | bytes) -> None:
    """Write beside, flush to the disk, then rename: a reader sees the old file or the new one."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
        flush(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def unfinished(path: Path, writer: int) -> Path:
    """Where a folder is while a process, by its number, fills it."""
    return path.with_name(f".{path.name}.{writer}.part")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; when the block ends it gets a manifest, is flushed and takes its name."""
    beside = unfinished(path, os.getpid())
    shutil.rmtree(beside, ignore_errors=True)
    make_folder(beside)
    try:
        yield beside
        write_manifest(beside)
        if path.exists():
            shutil.rmtree(path)
        beside.rename(path)
        flush(path.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def require_empty(out: Path) -> None:
    """Raises UsageError where a folder that is to be written holds files."""
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out}: the folder must be new or empty. It holds files. Choose another with -o.")


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are not there, so that they outlast a loss of power."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        flush(path.parent)


def sweep(folder: Path) -> None:
    """Remove what a writer that was killed left half-written. Only for who alone writes there."""
    for left in folder.glob(".*.part"):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


@contextmanager
def held(folder: Path, named: Path | None = None) -> Iterator[None]:
    """While open, ``folder`` (made where it is not there) is this writer's. One that dies lets go of it.

    Args:
        named: what is written, where it is not the folder.

    Raises:
        RunError: another one writes there.
    """
    while True:
        make_folder(folder)
        handle = os.open(folder, os.O_RDONLY)
        with suppress(FileNotFoundError):  # its last holder removed it in between
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                raise RunError(
                    f"{named or folder}: must be free. Another process is writing into it. Wait for it, or choose "
                    f"another with -o."
                ) from None
            except OSError:
                break  # a file system without locks
            if os.path.samestat(os.fstat(handle), folder.stat()):
                break
        os.close(handle)
    try:
        yield
    finally:
        os.close(handle)


def json_text(value: Any, indent: int | None = None) -> str:
    """A value as JSON, which has no NaN and no infinity: they are null; times are ISO, bytes their text."""
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, indent=indent)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _signing_key() -> bytes | None:
    """Raises UsageError where the file that is named cannot be a key."""
    if not (name := os.environ.get(KEY)):
        return None
    try:
        key = Path(name).read_bytes().strip()
    except OSError as error:
        raise UsageError(f"{KEY}={name}: must name the file with the key. Got: {error.strerror}.") from None
    if len(key) < 16:
        raise UsageError(f"{KEY}={name}: a key has 16 bytes or more. Got {len(key)}. Make one: openssl rand -hex 32.")
    return key


def _signature(key: bytes, sums: dict[str, str]) -> str:
    """HMAC-SHA256 (RFC 2104) of the names and their sums."""
    return hmac.new(key, json.dumps(sums, sort_keys=True).encode(), hashlib.sha256).hexdigest()


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_manifest(folder: Path, names: list[str] | None = None) -> None:
    """Record the sha256 of the named files (default: all) of a folder, each on the disk before, and sign the record
    where a key is given."""
    files = sorted(names if names is not None else (p.name for p in folder.iterdir() if p.is_file()))
    sums = {name: sha256(folder / name) for name in files if name != MANIFEST}
    for name in sums:
        flush(folder / name)
    key = _signing_key()
    signed = {} if key is None else {"signature": _signature(key, sums)}
    write_whole(folder / MANIFEST, json.dumps({"sha256": sums, **signed}, indent=1) + "\n")


def verify_manifest(folder: Path) -> set[str]:
    """The names of the files.

    Raises:
        CheckpointError: naming every one that is missing or whose bytes have changed; where a key is given, also when
            the folder was not signed with it.
    """
    try:
        stored = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sums = dict(stored["sha256"])
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: must hold {MANIFEST}, which is written last. It was not finished.") from None
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{folder / MANIFEST}: must be the JSON that Weft wrote. It is damaged.") from None
    key = _signing_key()
    if key is not None and not hmac.compare_digest(str(stored.get("signature", "")), _signature(key, sums)):
        what = "another signature" if "signature" in stored else "none"
        raise CheckpointError(
            f"{folder}: must be signed with the key that {KEY} names. Got {what}. It comes from somebody else, or was "
            f"changed; without {KEY} it is only compared with its own manifest."
        )
    problems = []
    for name, expected in sums.items():
        if Path(name).name != name:
            raise CheckpointError(f"{folder / MANIFEST}: must name files of its folder. Got {name!r}. It is forged.")
        file = folder / name
        if not file.is_file():
            problems.append(f"{name} is missing")
        elif sha256(file) != expected:
            problems.append(f"{name} has changed since it was written")
    if problems:
        raise CheckpointError(f"{folder}: files must be as they were written. Got: {'; '.join(problems)}.")
    return set(sums)
