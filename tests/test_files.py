"""Whatever reaches the disk is whole, and a change to it is noticed."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

import pytest

from weft.errors import CheckpointError, RunError, UsageError
from weft.files import MANIFEST, held, json_text, verify_manifest, whole_folder, write_manifest, write_whole


def test_write_whole_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.txt", "old")
    with (tmp_path / "a.txt").open() as reader:
        write_whole(tmp_path / "a.txt", "新")
        assert reader.read() == "old"  # who has it open reads the old file, never half of the new one
    assert (tmp_path / "a.txt").read_bytes() == "新".encode() and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_write_whole_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.txt", "old")
    with pytest.raises(TypeError):
        write_whole(tmp_path / "a.txt", object())  # type: ignore[arg-type]
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "a.txt", "\ud800")
    assert (tmp_path / "a.txt").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "c") as folder:
        (folder / "a.txt").write_text("1")
        assert not (tmp_path / "c").exists()
    verify_manifest(tmp_path / "c")
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "c") as folder:
        (folder / "a.txt").write_text("2")
        raise ZeroDivisionError
    assert (tmp_path / "c" / "a.txt").read_text() == "1" and [p.name for p in tmp_path.iterdir()] == ["c"]
    with whole_folder(tmp_path / "c") as folder:
        (folder / "b.txt").write_text("3")
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["b.txt", MANIFEST]


def test_every_missing_and_changed_file_is_named(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_text(name)
    write_manifest(tmp_path)
    verify_manifest(tmp_path)
    (tmp_path / "a").write_text("A")
    (tmp_path / "b").unlink()
    with pytest.raises(CheckpointError, match=r"a has changed.*b is missing") as caught:
        verify_manifest(tmp_path)
    assert "c " not in str(caught.value).partition("Got")[2]


def test_only_the_named_files_are_watched(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    write_manifest(tmp_path, ["a"])
    (tmp_path / "b").write_text("B")
    verify_manifest(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sha256": 5}', '{"sha256": ["a"]}', "\x00\xff"])
def test_a_damaged_manifest(tmp_path: Path, content: str) -> None:
    with pytest.raises(CheckpointError, match=r"must hold manifest.json"):
        verify_manifest(tmp_path)
    (tmp_path / MANIFEST).write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointError, match="damaged"):
        verify_manifest(tmp_path)


def test_a_folder_is_signed_with_the_key_that_the_environment_names(tmp_path: Path, monkeypatch) -> None:
    key, run = tmp_path / "team.key", tmp_path / "run"
    key.write_text("0123456789abcdef\n")
    with whole_folder(run) as folder:
        (folder / "a").write_text("x")
    monkeypatch.setenv("WEFT_KEY", str(key))
    with pytest.raises(CheckpointError, match="the key that WEFT_KEY names"):
        verify_manifest(run)
    write_manifest(run, ["a"])
    stored = json.loads((run / MANIFEST).read_text())
    by_hand = hmac.new(b"0123456789abcdef", json.dumps(stored["sha256"], sort_keys=True).encode(), "sha256")
    assert stored["signature"] == by_hand.hexdigest() and verify_manifest(run) == {"a"}
    (run / "a").write_text("y")  # whoever forges a file can forge its sum, but not the signature
    stored["sha256"]["a"] = hashlib.sha256(b"y").hexdigest()
    (run / MANIFEST).write_text(json.dumps(stored))
    with pytest.raises(CheckpointError, match="Got another signature"):
        verify_manifest(run)
    monkeypatch.delenv("WEFT_KEY")
    assert verify_manifest(run) == {"a"}  # who has no key compares the sums alone
    for content, message in ((b"short", "16 bytes or more. Got 5"), (None, "must name the file with the key")):
        key.unlink()
        if content is not None:
            key.write_bytes(content)
        monkeypatch.setenv("WEFT_KEY", str(key))
        with pytest.raises(UsageError, match=message):
            verify_manifest(run)


def test_json_has_no_nan() -> None:
    odd = {"a": [float("nan"), 1.5, (float("inf"), None)], 1: {"b": b"\xff", "c": True}}
    assert json.loads(json_text(odd), parse_constant=pytest.fail) == {
        "a": [None, 1.5, [None, None]], "1": {"b": "\\xff", "c": True}
    }  # fmt: skip


def test_a_folder_is_held_by_one(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(RunError, match="must be free"):
        held(tmp_path).__enter__()
    with held(tmp_path):  # it is free again
        pass
