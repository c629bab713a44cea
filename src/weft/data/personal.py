"""Personal data in texts: what has a form of its own, found by rules, with its place in the text as it came.

Numbers are believed by their check digits (resident ID: GB 11643, ISO 7064 MOD 11-2; bank card: ISO 7812, Luhn;
IBAN: ISO 13616, MOD 97-10), what has none by its form or by a word before it. English and Chinese; full-width letters
and digits count as the plain ones. Names and addresses: :mod:`weft.data.names`. docs/privacy.md says how much is found
and what is not.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable
from datetime import date
from typing import NamedTuple, get_args

from weft.data.names import ADDRESS_HINT, NAME_HINT, find_addresses, find_names
from weft.data_settings import Personal

KINDS: tuple[Personal, ...] = get_args(Personal)
DIGIT_HINT = (
    r"(?:\p{Nd}[^\p{L}\p{Nd}]{0,3}){6}|\p{Nd}\.\p{Nd}|[0-9a-fA-F]*:[0-9a-fA-F]*:|[A-Za-z]{2}\p{Nd}{2}|[\p{Han}][A-Z]"
)
HINTS = {"email": "@", "digits": DIGIT_HINT, "address": ADDRESS_HINT, "name": NAME_HINT}
"""RE2 patterns, one of which any text matches that holds such data; far cheaper than the search itself."""


class Found(NamedTuple):
    """A value and where it is: characters ``start`` to ``end`` of the text."""

    kind: Personal
    start: int
    end: int


def find(text: str, kinds: Collection[str] = KINDS, asked: Collection[str] | None = None) -> list[Found]:
    """The personal data of a text in order; none overlap.

    Args:
        kinds: which are wanted.
        asked: which of ``HINTS`` the text matches, where that is known.
    """
    plain, places = _plain(text)
    found: list[Found] = []
    taken = bytearray(len(plain))
    words = {"address", "name"}.issuperset(kinds)
    for kind, search, hint in _SEARCHES:
        # a number is what it is first taken for, whether or not that is wanted: an ID holds no phone number
        if (kind not in kinds and (words or kind in ("address", "name"))) or (asked is not None and hint not in asked):
            continue
        for start, end in search(plain):
            if not any(taken[start:end]):
                taken[start:end] = b"\1" * (end - start)
                if kind in kinds:
                    found.append(Found(kind, start, end))
    if places is not None:
        found = [Found(kind, places[start], places[end - 1] + 1) for kind, start, end in found]
    return sorted(found, key=lambda f: f.start)


def merged(text: str, found: Iterable[Found], told: Iterable[Found]) -> list[Found]:
    """What rules found and what a model told of one text, in order; none overlap.

    Numbers are what the rules say, then come the model's names and addresses, then those of the rules; of what overlaps
    the words that are left count.
    """
    rules = list(found)
    words = [f for f in rules if f.kind in ("address", "name")]
    taken, kept = bytearray(len(text)), []
    for kind, start, end in [*(f for f in rules if f not in words), *told, *words]:
        free = "".join(" " if taken[i] or not text[i].isalnum() else "x" for i in range(start, end))
        whole = not any(taken[start:end])
        spans = [(start, end)] if whole else [(start + m.start(), start + m.end()) for m in _LEFT.finditer(free)]
        for left, right in spans:
            kept.append(Found(kind, left, right))
            taken[left:right] = b"\1" * (right - left)
    return sorted(kept, key=lambda f: f.start)


_LEFT = re.compile("x+")


def replace(text: str, found: Iterable[Found], by: Callable[[Personal, str], str]) -> str:
    """The text with every value found replaced."""
    pieces, last = [], 0
    for kind, start, end in found:
        pieces += [text[last:start], by(kind, text[start:end])]
        last = end
    return "".join([*pieces, text[last:]])


def mask(kind: Personal, value: str = "") -> str:
    """What stands for a value of which nothing is to be known but its kind."""
    return f"[{kind.upper()}]"


def masked(text: str, kinds: Collection[str] = KINDS) -> str:
    """The text without its personal data."""
    return replace(text, find(text, kinds), mask)


# ---- letters as they are compared

_FORMS = {
    code: form for codes in (range(0x2000, 0x3400), range(0xFF00, 0xFFF0), range(0x1D400, 0x1D800))
    for code in codes if len(form := unicodedata.normalize("NFKC", chr(code))) == 1 and form.isascii()
} | dict.fromkeys(map(ord, "‐‑‒–—―−"), "-")  # fmt: skip
"""Each one letter for one letter, so that places stay as they are."""
_UNSEEN = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]")


def _plain(text: str) -> tuple[str, list[int] | None]:
    """Full-width and styled letters as plain ones; places of what is left where unseen letters are taken out."""
    if text.isascii():
        return text, None
    text = text.translate(_FORMS)
    if not _UNSEEN.search(text):
        return text, None
    places = [i for i, letter in enumerate(text) if not _UNSEEN.match(letter)]
    return "".join(text[i] for i in places), places


# ---- what numbers say of themselves

_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_PROVINCE = re.compile("1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3]")
_IBAN_LENGTHS = {
    country: length for length, countries in {
        15: "NO", 16: "BE", 18: "DK FO FI GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU", 31: "MT SC", 32: "LC", 33: "RU",
    }.items() for country in countries.split()
}  # fmt: skip


def luhn(digits: str) -> bool:
    """ISO 7812: every second digit from the right doubled, the sum of all digits is a multiple of ten."""
    odd, even = digits[-1::-2], digits[-2::-2]
    return (sum(map(int, odd)) + sum(int("0246813579"[int(d)]) for d in even)) % 10 == 0


def resident_id(number: str) -> bool:
    """A Chinese resident ID: 18 characters with date of birth and check digit, or 15 of before 1999 without one."""
    if not _PROVINCE.match(number):
        return False
    born = number[6:14] if len(number) == 18 else f"19{number[6:12]}"
    try:
        if not 1880 <= date(int(born[:4]), int(born[4:6]), int(born[6:])).year <= date.today().year:
            return False
    except ValueError:
        return False
    total = sum(w * int(d) for w, d in zip(_WEIGHTS, number[:17], strict=False))
    return len(number) == 15 or "10X98765432"[total % 11] == number[17].upper()


def iban(number: str) -> bool:
    """ISO 13616: of the length of its country, and 1 modulo 97 with the first four characters last."""
    if _IBAN_LENGTHS.get(number[:2]) != len(number):
        return False
    return int("".join(str(int(c, 36)) for c in number[4:] + number[:4])) % 97 == 1


# ---- each kind

Spans = Iterable[tuple[int, int]]

_EMAIL = re.compile(  # no run without an end: a cell may hold a book of one letter
    r"[A-Za-z0-9À-ɏ_%+&-][A-Za-z0-9À-ɏ_%+&'-]{0,63}(?:\.[A-Za-z0-9À-ɏ_%+&'-]{1,64}){0,8}@"
    r"(?:[A-Za-z0-9À-ɏ](?:[A-Za-z0-9À-ɏ-]{0,61}[A-Za-z0-9À-ɏ])?\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])"
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,34}")
_RESIDENT = re.compile(r"(?<![\dA-Za-z.,])[1-8]\d{5}(?:[ -]?(?:18|19|20)\d{6}[ -]?\d{3}[\dXx]|\d{9})(?![\dA-Za-z])")
_SOCIAL = re.compile(r"(?<![\d-])(?!000|666)\d{3}(?P<by>[- ])(?!00)\d\d(?P=by)(?!0000)\d{4}(?![\d-])")
_SOCIAL_SAID = re.compile(r"(?i:ssn|social security)[^\d\n]{0,20}(?P<value>\d{3}[- ]?\d{2}[- ]?\d{4})(?!\d)")
_CARD = re.compile(r"(?<![\dA-Za-z.,])(?<!\d[ -])[1-6]\d{3}(?:[ -]?\d){8,15}(?![\d])")
_ISSUED = re.compile(  # who gives cards of how many digits
    r"(?:4(?:.{12}|.{15}|.{18})|5(?:.{15}|[06-9](?:.{10}|.{16,17}))|6(?:.{11}|.{15,18})|2[2-7].{14}|3[47].{13}|"
    r"3(?:0[0-5]|[689].).{11}|35.{14}|"
    r"(?:2131|1800).{11})$"
)
_IPV4 = re.compile(r"(?<![\d.])(?<![vV])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?!\.?\d)")
_IPV6 = re.compile(r"(?<![0-9A-Za-z:.])[0-9a-fA-F:]{2,39}(?:\d+\.\d+\.\d+\.\d+)?(?![0-9A-Za-z:])")
_PASSPORT = re.compile(r"(?<![A-Za-z0-9])(?:[EG]\d{8}|E[A-HJ-NP-Z]\d{7})(?![A-Za-z0-9])")
_PASSPORT_SAID = re.compile(
    r"(?:(?i:passport)|护照)[^\d\n]{0,20}?(?P<value>(?<![A-Za-z])[A-Z]{0,2}\d{6,9})(?![A-Za-z0-9])"
)
_PLATE = re.compile(
    r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼使领][A-HJ-NP-Za-hj-np-z][ ·•・.-]?"
    r"(?=[A-Za-z]{0,4}\d)[A-HJ-NP-Za-hj-np-z0-9]{4}(?:[挂学警港澳领]|[A-HJ-NP-Za-hj-np-z0-9]{1,2})(?![A-Za-z0-9])"
)
_PLATE_SAID = re.compile(
    r"(?i:licen[cs]e plate|number ?plate|plate|registration)(?i: number| no\.?)?(?: is|:|,)? ?"
    r"(?P<value>(?=[A-Z -]*\d)(?=[\d -]*[A-Z])[A-Z0-9]{1,4}[ -]?[A-Z0-9]{2,5})(?![A-Za-z0-9])"
)
_MORE = r"(?: ?(?:x|ext\.?|extension|转|-) ?\d{1,6}(?![\d-]))?"
_PHONE = re.compile(
    r"(?<![\dA-Za-z.])(?<!\d[ -])(?:"
    r"(?:(?:\+|00)?86[ -]?)?1[3-9]\d(?:\d{8}|[ -]\d{4}[ -]\d{4})(?!\d)"  # a mobile phone of China
    r"|(?:\+ ?|00)[1-9]\d{0,2}(?:[ .-]?\(0?\d{1,4}\))?(?:[ .-]?\d{1,5}){2,6}" + _MORE +  # of any country
    r"|(?:\(0\d{2,3}\) ?|0\d{2,3}[ -]?)[2-9]\d{6,7}" + _MORE +  # China, with its area
    r"|(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])\d{3}[ .-]\d{4}" + _MORE +  # North America
    r"|(?:\(\d{2,4}\) ?|0\d{1,4}[ -])\d{2,7}(?:[ -]\d{2,4}){0,3}"  # within a country
    r")(?!\d)"
)  # fmt: skip
_PHONE_SAID = re.compile(
    r"(?:(?i:phone|\btel|mobile|\bcell|\bfax|\bdesk:|whatsapp|\bcall|\bring\b|\breach|\bdial|text me|answering|"
    r"registered|messages? to)|电话|手机|号码|联系方式|致电|拨打|传真|微信)"
    r"[^\d!?。！？;；]{0,25}?(?P<value>(?<![\dA-Za-z])[(+]?\d{1,5}\)?(?:[ .-]?\d){5,12})(?![\d])"
)
_DATE = re.compile(
    r"(?:19|20)\d\d[ .-]?(?:0\d|1[0-2])[ .-]?[0-3]\d$|\d{1,2}[ .-]\d{1,2}[ .-](?:19|20)\d\d$|(?:19|20)\d\d-\d\d-\d\d"
)


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


def _emails(text: str) -> Spans:
    return (m.span() for m in _EMAIL.finditer(text)) if "@" in text else ()


def _ibans(text: str) -> Spans:
    for m in _IBAN.finditer(text):
        length = _IBAN_LENGTHS.get(m.group()[:2].upper(), 0)
        places = [i for i, c in enumerate(m.group()) if c.isalnum()][:length]  # what follows may be words
        if len(places) == length and length and iban("".join(m.group()[i] for i in places).upper()):
            yield m.start(), m.start() + places[-1] + 1


def _id_numbers(text: str) -> Spans:
    for m in _RESIDENT.finditer(text):
        if resident_id(re.sub("[ -]", "", m.group())):
            yield m.span()
    yield from (m.span() for m in _SOCIAL.finditer(text))
    yield from (m.span("value") for m in _SOCIAL_SAID.finditer(text))


def _cards(text: str) -> Spans:
    for m in _CARD.finditer(text):
        digits = _digits(m.group())
        if _ISSUED.match(digits) and luhn(digits):
            yield m.span()


def _addresses_of_machines(text: str) -> Spans:
    yield from (m.span() for m in _IPV4.finditer(text))
    if text.count(":") > 1:
        for m in _IPV6.finditer(text):
            try:
                address = ipaddress.IPv6Address(m.group())
            except ValueError:
                continue
            if address.packed.count(0) < 16:  # :: alone is rather punctuation
                yield m.span()


def _passports(text: str) -> Spans:
    yield from (m.span() for m in _PASSPORT.finditer(text))
    yield from (m.span("value") for m in _PASSPORT_SAID.finditer(text))


def _plates(text: str) -> Spans:
    yield from (m.span() for m in _PLATE.finditer(text))
    yield from (m.span("value") for m in _PLATE_SAID.finditer(text))


def _phones(text: str) -> Spans:
    for pattern, group in ((_PHONE, 0), (_PHONE_SAID, "value")):
        for m in pattern.finditer(text):
            value = m.group(group)
            if 7 <= len(_digits(value)) <= 21 and not _DATE.match(value):
                yield m.span(group)


_SEARCHES: tuple[tuple[Personal, Callable[[str], Spans], str], ...] = (
    ("email", _emails, "email"),
    ("iban", _ibans, "digits"),
    ("id_number", _id_numbers, "digits"),
    ("passport", _passports, "digits"),
    ("bank_card", _cards, "digits"),
    ("ip", _addresses_of_machines, "digits"),
    ("plate", _plates, "digits"),
    ("address", find_addresses, "address"),
    ("phone", _phones, "digits"),
    ("name", find_names, "name"),
)
