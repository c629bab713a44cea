"""Cells of several labels: a list, a JSON array, or a text with a separator."""

import pyarrow as pa
import pytest

from weft.data.labels import guess_labels, guess_separator, parse_labels
from weft.errors import DataError


@pytest.mark.parametrize(
    ("cell", "separator", "labels"),
    [
        ("red, blue", ",", ["red", "blue"]),
        ("red|blue|red", "|", ["red", "blue"]),
        (",", ",", []),
        ('["红", "a, b"]', None, ["红", "a, b"]),
        ("[]", None, []),
        ("[1, true, 2.5]", None, ["1", "true", "2.5"]),
        (["x", " y "], None, ["x", "y"]),
        ("red", None, None),
        ('["a"', None, None),
        ("[[1]]", None, None),
        ('["a", null]', None, None),
        ('{"a": 1}', None, None),
        (["x", None], None, None),
    ],
)
def test_a_cell(cell, separator, labels):
    assert parse_labels(cell, separator) == labels


def test_only_what_can_be_nothing_else_is_guessed_to_be_labels():
    assert guess_labels(pa.array([["a"], []])).type == "labels"
    assert guess_labels(pa.array(['["a"]', None, "[]"])).type == "labels"
    assert guess_labels(pa.array(["a, b", "c"])) is None and guess_labels(pa.array([1, 2])) is None
    assert guess_labels(pa.array([[["deep"]]])) is None


def test_the_separator_is_the_only_one_that_occurs():
    assert guess_separator("y", pa.array(["a;b", "c", "d; e"])) == ";"
    assert guess_separator("y", pa.array(["a", "b"])) == ","
    assert guess_separator("y", pa.array([["a;b"]])) is None and guess_separator("y", pa.array(['["a;b"]'])) is None
    with pytest.raises(DataError, match=r"must stand apart in one way\. Got ',', ';', as in 'a, b'.*target\.separator"):
        guess_separator("y", pa.array(["a;b", "a, b"]))
