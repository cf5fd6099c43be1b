"""Figures by their shape, escaping, and plots' scales."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reembed.display.markup import Markup, escape, h
from reembed.quality.verdict import Gate
from reembed.report.html.figures import (
    as_grid,
    as_histogram,
    as_quantiles,
    as_span,
    by_side,
    is_number,
    show,
)
from reembed.report.html.gates import gate_article
from reembed.report.html.labels import label
from reembed.report.html.plots import Axis, around
from reembed.report.markdown import code, plain
from tests.support.report_cases import HISTOGRAM, HOSTILE, QUANTILES, SPAN, every_figure
from tests.support.report_page import read_page


def test_text_is_escaped_and_elements_are_not() -> None:
    assert h("p", "<b>", h("i", "x")) == "<p>&lt;b&gt;<i>x</i></p>"
    assert h("a", "x", href='"><script>') == '<a href="&quot;&gt;&lt;script&gt;">x</a>'


def test_attributes_without_a_value_are_left_out() -> None:
    assert h("i", class_=None, hidden=False, aria_label="x") == '<i aria-label="x"></i>'
    assert h("details", open=True) == "<details open></details>"


def test_what_html_cannot_hold_is_replaced() -> None:
    assert escape("a\x00b\ud800c\x1b") == "a\ufffdb\ufffdc\ufffd"
    assert escape("a\nb\tc") == "a\nb\tc"


def test_markup_is_not_escaped_twice() -> None:
    assert h("p", Markup("&amp;"), ["a", None, 1]) == "<p>&amp;a1</p>"


def test_shapes() -> None:
    assert as_span(SPAN) and not as_span(QUANTILES) and not as_span(3)
    assert as_histogram(HISTOGRAM) and not as_histogram({"counts": [1], "edges": [0]})
    assert as_histogram({"counts": [1, 2], "min": 0, "max": 1})
    assert as_quantiles(QUANTILES) and not as_quantiles(HISTOGRAM)
    grid = as_grid({"csv": {"old": 1, "new": 2}})
    assert grid and list(grid.columns) == ["", "old", "new"] and grid.rows == [["csv", 1, 2]]
    assert not as_grid({"csv": {"deep": {}}}) and not as_grid([]) and not as_grid([1])


def test_sides_are_put_together() -> None:
    merged = by_side({"k": 1, "old": {"a": 1, "b": [1]}, "new": {"a": 2, "b": [2]}})
    assert merged == {
        "k": 1, "old and new": [{"": "a", "old": 1, "new": 2}], "b": {"old": [1], "new": [2]}
    }  # fmt: skip
    assert by_side({"old": 1, "new": 2}) == {"old": 1, "new": 2}


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1234567, "1,234,567"), (0.123456, "0.12346"), (1e-7, "1.00e-07"), (True, "yes"),
     (None, "\u2013"), (math.nan, "\u2013"), ("x", "x"), (0.0, "0")],
)  # fmt: skip
def test_values_in_words(value: object, shown: str) -> None:
    assert show(value) == shown


@given(st.floats(-1e9, 1e9), st.floats(1e-9, 1e9))
def test_an_axis_holds_its_values_and_has_round_ticks(low: float, length: float) -> None:
    axis = around([low, low + length], 1e-9, None)
    assert axis.left <= axis(low) <= axis(low + length) <= axis.right
    assert len(axis.ticks()) <= 7


def test_ticks_are_what_a_person_would_choose() -> None:
    assert Axis(0, 1).ticks() == [0, 0.25, 0.5, 0.75, 1]
    assert Axis(0.93, 1).ticks() == pytest.approx([0.94, 0.96, 0.98, 1.0])


def test_every_known_figure_is_shown() -> None:
    _, _, text = gate_article(Gate("recall", "pass", "fine", every_figure()))
    assert text.count("<svg") == 6
    assert text.count('class="query"') == 20, "the longest list of queries is cut"
    assert "and 10 more in verdict.json" in text
    assert "all 9 values are 1" in text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["old", "new", "mean", "low", "high", "edges", "counts", "p5", "p25",
                         "median", "p75", "p95", "difference", "metrics", "k", "recall", "limit",
                         "worst", "query", "margin", "min", "max", HOSTILE]), inner, max_size=6),
    max_leaves=30,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from([*every_figure(), "recall", "limit"]), json_values))
@example({"new": 1.797692236016198e308})
@example({"new": 10**400})
def test_no_figure_whatever_breaks_the_page(figures: dict[str, object]) -> None:
    _, _, article = gate_article(Gate("recall", "shown", HOSTILE, figures))
    read_page(article)


def test_zeros_are_folded_and_names_are_words() -> None:
    figures = {"records": 5, "missing": 0, "extra": 0, "seen_from_share": 0.5, "below": 0}
    _, _, text = gate_article(Gate("integrity", "pass", "fine", figures))
    told, folded = text.split("<details", 1)
    assert "records in all" in told and "smallest share of faulty records" in told
    assert "missing" not in told and "4 more" not in folded
    assert "3 more, all zero or not given" in folded and "records whose vector differs" in folded
    assert "seen from share" not in text


def test_keys_of_records_and_of_an_index_stay_as_they_are() -> None:
    assert label("kind", "groups") == "kind" and label("ef_search", "settings") == "ef_search"
    assert label("get_collection(name)") == "get_collection(name)"
    assert label("distance", "tail") != label("distance")


def test_markdown_stays_on_its_line_and_in_its_cell() -> None:
    assert plain("a|b\n<c> `d` *e* [f](g)") == r"a\|b \<c\> \`d\` \*e\* \[f\]\(g\)"
    assert plain("recall@10 of @someone") == "recall@10 of @\u200bsomeone"
    assert code("a`b") == "``a`b``"
    assert code("`a|b`") == "`` `a\uff5cb` ``"


def test_numbers_are_no_truth_values() -> None:
    assert is_number(1) and is_number(0.5)
    assert not is_number(True) and not is_number(math.inf) and not is_number("1")
