"""Printed tables, and the nearest known name."""

from medbridge.support.text import did_you_mean, text_table


def test_columns_stand_two_blanks_apart_and_lines_end_without_blanks():
    assert text_table([["", "a b", "c"], ["mean", "0.10", ""]]) == "      a b   c\nmean  0.10"
    assert text_table([["name", "n"], ["x", "1,000"]], ["left", "right"]).splitlines()[1].endswith("1,000")


def test_numbers_stay_as_they_are_written():
    assert text_table([["0.500", "1e3"]]) == "0.500  1e3"


def test_the_nearest_name_whatever_the_case():
    assert did_you_mean("TINY-resnt", ["tiny-vit", "tiny-resnet"]) == "did you mean 'tiny-resnet'? "
    assert did_you_mean("zzz", ["tiny-vit"]) == ""
