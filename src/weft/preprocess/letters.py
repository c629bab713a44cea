"""What becomes of the letters of a text, the same at training and at prediction: one Unicode form, no control
characters, and, where asked, no personal data.

A value is replaced by its kind, ``[EMAIL]``; with a key by a stand-in of its own, ``[EMAIL kfhqzwab]``: the same value
has the same one, however it is written, and only who has the key can tell which (HMAC, RFC 2104, with SHA-256).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from weft.data.personal import HINTS, Found, find, mask, merged, replace
from weft.data_settings import Personal, PreprocessSettings, RedactSettings
from weft.errors import SettingsError

_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x{80}-\x{9f}]"


class Names(Protocol):
    """A model that tells the names and addresses in texts. ``check``: a word that tells it from any other."""

    check: str

    def __call__(self, texts: Sequence[str]) -> list[list[Found]]: ...


class Redactor:
    """Replaces the personal data of texts. ``key``: that of the stand-ins; None: kinds alone. ``names``: the folder of
    a model that finds names and addresses beside the rules."""

    open_names: ClassVar[Callable[[str], Names]]
    """Opens such a folder; :mod:`weft.inference.names` says how, as what knows models stands after this."""

    def __init__(
        self, kinds: Sequence[Personal], key: bytes | None = None, key_file: str | None = None, names: str | None = None
    ):
        self.kinds, self.key, self.key_file, self.names = tuple(kinds), key, key_file, names
        self._model = None if names is None else Redactor.open_names(names)
        self.found: Counter[tuple[str, str]] = Counter()
        """Values replaced, by column and kind."""
        self._remember()

    def _remember(self) -> None:
        self._stand_in = lru_cache(100_000)(self._hashed) if self.key else mask

    def __getstate__(self) -> dict[str, Any]:
        return {n: v for n, v in self.__dict__.items() if n not in ("_stand_in", "found")}  # it has found nothing there

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state | {"found": Counter()}
        self._remember()

    @classmethod
    def of(cls, settings: RedactSettings | None) -> Redactor | None:
        """As a pipeline file says. A key file that is not there is made.

        Raises:
            SettingsError: the key file cannot be used.
        """
        if settings is None:
            return None
        key = None if settings.key is None else _key(Path(settings.key), make=True)
        return cls(settings.kinds, key, settings.key, settings.names)

    def text(self, text: str) -> str:
        """A text without its personal data, which is not counted."""
        (told,) = self._told([text])
        return replace(text, merged(text, find(text, self.kinds), told), self._stand_in)

    def _told(self, texts: Sequence[str]) -> list[list[Found]]:
        """What the model says of each text, where there is one."""
        if self._model is None:
            return [[]] * len(texts)
        return [[f for f in some if f.kind in self.kinds] for some in self._model(texts)]

    def __call__(self, array: pa.Array, column: str, times: Mapping[int, int] | None = None) -> pa.Array:
        """The texts of an array without personal data; ``times``: how often each of them stands in the column."""
        plain = array
        if not pc.all(pc.fill_null(pc.string_is_ascii(array), True)).as_py():
            plain = pc.utf8_normalize(array, form="NFKC")
        hinted = {
            hint: pc.fill_null(pc.match_substring_regex(plain, pattern=pattern), False).to_numpy(zero_copy_only=False)
            for hint, pattern in HINTS.items()
        }  # fmt: skip
        looked = np.flatnonzero(
            sum(hinted.values()) if self._model is None else array.is_valid().to_numpy(zero_copy_only=False)
        )
        candidates = array.take(pa.array(looked)).to_pylist()
        places, texts = [], []
        for place, text, told in zip(looked.tolist(), candidates, self._told(candidates), strict=True):
            found = find(text, self.kinds, [hint for hint, marked in hinted.items() if marked[place]])
            found = merged(text, found, told) if told else found
            for value in found:
                self.found[column, value.kind] += 1 if times is None else times[place]
            if found:
                places.append(place)
                texts.append(replace(text, found, self._stand_in))
        if not places:
            return array
        marked = [False] * len(array)
        for place in places:
            marked[place] = True
        return pc.replace_with_mask(array, pa.array(marked), pa.array(texts, pa.string()))

    def _hashed(self, kind: Personal, value: str) -> str:
        """``[KIND letters]``, 8 of 26 letters: of 10,000 values two have the same stand-in once in 4,000 tables."""
        assert self.key is not None
        digest = hmac.digest(self.key, f"{kind} {_canonical(kind, value)}".encode(), "sha256")
        number = int.from_bytes(digest[:16])
        letters = "".join(chr(97 + number // 26**i % 26) for i in range(8))
        return f"[{kind.upper()} {letters}]"

    def in_words(self) -> list[str]:
        """What was found in each column."""
        columns = sorted({column for column, _ in self.found})
        return [
            f"{column}: " + ", ".join(f"{n:,} {kind}" for (c, kind), n in self.found.most_common() if c == column)
            for column in columns
        ]

    def to_dict(self) -> dict[str, Any]:
        """What a run keeps: never the key, but a word that tells whether it is the same."""
        check = None if self.key is None else _check(self.key)
        stored = {"kinds": list(self.kinds), "key_file": self.key_file, "key_check": check}
        return stored if self._model is None else stored | {"names": self.names, "names_check": self._model.check}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Redactor:
        """Raises SettingsError where the key file or the model of names is not there, or another one is."""
        key = None if stored["key_file"] is None else _key(Path(stored["key_file"]), make=False)
        if key is not None and _check(key) != stored["key_check"]:
            raise SettingsError(
                [f"{stored['key_file']}: must hold the key that the run learnt with. Got another one. Put it back."]
            )
        found = cls(stored["kinds"], key, stored["key_file"], stored.get("names"))
        if found._model is not None and found._model.check != stored["names_check"]:
            raise SettingsError(
                [f"{found.names}: must hold the model of names that the run learnt with. Got another one. Put it back."]
            )
        return found


class Letters:
    """Applies the Unicode form ``normalize`` (nfkc, nfc, off) and ``redact`` to arrays of strings."""

    def __init__(self, normalize: str = "nfkc", redact: Redactor | None = None):
        self.normalize, self.redact = normalize, redact

    @classmethod
    def of(cls, settings: PreprocessSettings, default: str = "nfkc") -> Letters:
        return cls(settings.normalize or default, Redactor.of(settings.redact))

    def __call__(self, array: pa.Array, column: str, times: Mapping[int, int] | None = None) -> pa.Array:
        array = self._normalised(array)
        return array if self.redact is None else self.redact(array, column, times)

    def _normalised(self, array: pa.Array) -> pa.Array:
        """Only cells with a letter beyond ASCII can change in form."""
        if self.normalize == "off":
            return array
        ascii = pc.fill_null(pc.string_is_ascii(array), True)
        if not pc.all(ascii).as_py():
            other = pc.utf8_normalize(array.filter(pc.invert(ascii)), form=self.normalize.upper())
            array = pc.replace_with_mask(array, pc.invert(ascii), other)
        odd = pc.fill_null(pc.match_substring_regex(array, pattern=_CONTROL), False)
        if pc.any(odd).as_py():
            plain = pc.replace_substring_regex(array.filter(odd), pattern=_CONTROL, replacement="")
            array = pc.replace_with_mask(array, odd, plain)
        return array

    def quoted(self, reason: str, cell: str) -> tuple[str, str]:
        """Why a cell was set aside, and what of it may be kept."""
        if self.redact is not None:
            safe = self.redact.text(cell)
            reason, cell = self.redact.text(reason.replace(repr(cell[:60]), repr(safe[:60]))), safe
        return reason, cell[:1000]

    def to_dict(self) -> dict[str, Any]:
        return {"normalize": self.normalize, "redact": None if self.redact is None else self.redact.to_dict()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Letters:
        redact = stored.get("redact")
        return cls(stored["normalize"], None if redact is None else Redactor.from_dict(redact))


def _canonical(kind: Personal, value: str) -> str:
    """One form of a value however it is written."""
    value = pc.utf8_normalize(pa.scalar(value), form="NFKC").as_py().lower()
    if kind in ("email", "name", "address", "ip"):
        return " ".join(value.split())
    value = "".join(filter(str.isalnum, value))
    return value.removeprefix("00").removeprefix("86") if kind == "phone" and len(value) > 11 else value


def _check(key: bytes) -> str:
    return hashlib.sha256(b"weft redact " + key).hexdigest()[:16]


def _key(path: Path, make: bool) -> bytes:
    """The key in a file, which nobody else may read when it is made here."""
    try:
        if make and not path.exists():
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as stream:
                stream.write(secrets.token_hex(32) + "\n")
        key = path.read_bytes().strip()
    except OSError as error:
        raise SettingsError(
            [f"{path}: must be the file with the key of the stand-ins (preprocess.redact.key). Got: {error.strerror}. "
             f"Put it back{', or name one that can be made' if make else ''}."]
        ) from None  # fmt: skip
    if not 16 <= len(key) <= 4096:
        raise SettingsError([f"{path}: a key has 16 bytes or more. Got {len(key)}. Name a new file: a key is made."])
    return key
