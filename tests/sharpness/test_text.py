"""Estimates and tables as text."""

from __future__ import annotations

import math

import pytest

from renyi_lab import Estimate
from renyi_lab.sharpness._text import check_labels, lay_out, with_error

CELLS = [
    (-5.8731, 0.0214, "-5.87 ± 0.02"),
    (-5.8731, 0.0149, "-5.873 ± 0.015"),
    (1234.5, 162.0, "1230 ± 160"),
    (2074.7, 340.0, "2100 ± 300"),
    (12.5, 0.0996, "12.50 ± 0.10"),
    (0.01, 20.0, "0 ± 20"),
    (-0.001, 0.3, "0.0 ± 0.3"),
    (1.2345e-7, 3e-9, "(1.23 ± 0.03)e-07"),
    (5e7, 1e6, "(5.00 ± 0.10)e+07"),
    (1.5, math.inf, "1.5 ± inf"),
    (1.5, math.nan, "1.5 ± ?"),
    (math.nan, 0.0, "NaN"),
    (math.inf, 1.0, "inf"),
    (0.0, 0.0, "0"),
    (0.125, 0.0, "0.125"),
    (0.0119727, 1e-7, "0.01197"),
]


@pytest.mark.parametrize(("value", "error", "text"), CELLS)
def test_the_error_chooses_the_digits(value, error, text):
    assert with_error(Estimate(value, error)) == text


def test_differences_have_a_sign():
    assert with_error(Estimate(0.52, 0.03), signed=True) == "+0.52 ± 0.03"
    assert with_error(Estimate(-0.52, 0.03), signed=True) == "-0.52 ± 0.03"
    assert with_error(Estimate(0.0), signed=True) == "0"


def test_signs_stand_under_each_other():
    lines = lay_out(["x", "y"], {"b": ["1.0 ± 0.2", "123"]}).splitlines()
    assert lines == ["           b", "x  1.0 ± 0.2", "y  123"]


def test_a_wide_table_comes_in_parts_of_120_characters_without_empty_rows():
    rows = ["of blocks", "of the whole network alone"]
    columns = {f"block{i}": ["-5.87 ± 0.02", "1.0" if i == 0 else ""] for i in range(12)}
    text = lay_out(rows, columns, "measure")
    assert max(map(len, text.splitlines())) <= 120
    first, second = text.split("\n\n")
    assert "of the whole" in first
    assert "of the whole" not in second
    assert second.splitlines()[0].split()[-1] == "block11"


def test_one_column_wider_than_a_line_is_not_cut():
    assert "x" * 150 in lay_out(["a"], {"x" * 150: ["1"]})


@pytest.mark.parametrize("labels", ["ab", ("a",), (1, 2), 3, None])
def test_labels_are_two_strings(labels):
    with pytest.raises(TypeError, match="labels must be two strings"):
        check_labels(labels)


def test_labels_differ():
    with pytest.raises(ValueError, match="labels must differ, got 'a' twice"):
        check_labels(("a", "a"))
    assert check_labels(["a", "b"]) == ("a", "b")
