"""Segments: texts and expressions, round trip; they evaluate as Python's sets do."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist.periods import GRAINS, Period
from flask_bitmapist.reading.bitmap import Bitmap, union
from flask_bitmapist.reading.bitmaps import Bitmaps
from flask_bitmapist.reading.segments import (
    And,
    Did,
    Event,
    Expression,
    First,
    Flag,
    Minus,
    Or,
    SegmentError,
    Was,
    parse,
)

a, b, c = Event("a"), Event("b"), Event("c")

#: Names that are apt to be taken for something else.
AWKWARD = [
    *("-", "--", "-a", "a-", "sign-up", "a - b", "&", "a&b", "|", "(a)", "(", ")", '"', 'say "hi"'),
    *(
        "flag:",
        "flag:a",
        "flag: a",
        "flag",
        "\\",
        'a\\"b',
        "a\\",
        "a b",
        "a  b",
        "ü",
        "日本",
        "'",
        "#",
    ),
    *("user:logged_in", "a,b", "a=b", "x" * 200),
    *("not", "nothing", "did", "did(", "did(a, ever)", "first", "first(", "at least", ","),
    *("was", "was(", "was(a=b)", "="),
]
printable = st.text(
    st.characters(exclude_categories=["C", "Z"], include_characters=" "), min_size=1
)
names = st.sampled_from(AWKWARD) | printable.map(str.strip).filter(
    lambda name: name and len(name) <= 200 and name.isprintable() and not name.startswith("bitop_")
)
kinds = st.sampled_from([And, Or, Minus])


def combined(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    return st.builds(lambda kind, left, right: kind(left, right), kinds, inner, inner)


def is_value(flag: str) -> bool:
    return len(flag) <= 200 and not flag.startswith(("=", "bitop_"))


ranges = st.sampled_from(
    [
        *("ever", "today", "yesterday", "last 14 days", "last month", "this quarter", "2026"),
        *("2026-Q1", "2026-01", "2026-W05", "2026-01-15", "2026-01 to 2026-W12"),
        *("since 2026-01", "before 2026"),
    ]
)
did = st.builds(Did, names, ranges, st.integers(1, 1000), st.sampled_from(GRAINS))
was = st.builds("{}={}".format, names, names).filter(is_value).map(Was)
leaves = st.one_of(
    st.builds(Event, names), st.builds(Flag, names), did, st.builds(First, names, ranges), was
)
expressions = st.recursive(leaves, combined, max_leaves=8)


# From text to expression


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("a", a),
        ("flag:a", Flag("a")),
        ("a & b", a & b),
        ("a&b", a & b),
        ("a|b", a | b),
        ("a - b", a - b),
        ("  a\t-\nb ", a - b),
        ("(a)", a),
        ("((a)) & (b)", a & b),
        ("sign-up", Event("sign-up")),
        ("-a", Event("-a")),
        ("a- | -b", Event("a-") | Event("-b")),
        ("(a) - (b)", a - b),
        ('"two words"', Event("two words")),
        ('"a"&"b"', a & b),
        ('flag:"two words"', Flag("two words")),
        ('"flag:a"', Event("flag:a")),
        ("flag:flag:a", Flag("flag:a")),
        (r'"say \"hi\" \\ \a"', Event(r'say "hi" \ a')),
        ("flag", Event("flag")),
        ("user:logged_in", Event("user:logged_in")),
        ("did(a, last 14 days)", Did("a", "last 14 days")),
        ("did( a ,\n Last 14 Days )", Did("a", "last 14 days")),
        ("did (a,ever)", Did("a", "ever")),
        ("did(user:posted, 2026-1)", Did("user:posted", "2026-01")),
        ("did(a, Jan 2026 to Q2 2026)", Did("a", "2026-01 to 2026-Q2")),
        ('did("a,b", ever)', Did("a,b", "ever")),
        ('did("flag:a", ever)', Did("flag:a", "ever")),
        ("did(did, ever)", Did("did", "ever")),
        ("did(not, ever)", Did("not", "ever")),
        ("did(a, at least 3 days of last 14 days)", Did("a", "last 14 days", 3)),
        ("did(a, 2 Weeks of this month)", Did("a", "this month", 2, "week")),
        ("did(a, at least 1 week of this month)", Did("a", "this month")),
        ("first(a, 2026-01)", First("a", "2026-01")),
        ("was(user:plan=pro)", Was("user:plan=pro")),
        ("was ( user:plan=pro )", Was("user:plan=pro")),
        ('was("user:plan=a, b")', Was("user:plan=a, b")),
        ("was(was=was)", Was("was=was")),
        ("was(a=b=c) | was", Was("a=b=c") | Event("was")),
        ("b & not was(a=b) & flag:a=b", (b - Was("a=b")) & Flag("a=b")),
        ("b & not did(a, ever)", b - Did("a", "ever")),
        ("b & not did(a, ever) & c", (b - Did("a", "ever")) & c),
        ("b & c & not a", (b & c) - a),
        ("b & not(a | c)", b - (a | c)),
        ("b & not flag:a | c", b - Flag("a") | c),
        ('b & not "a"', b - a),
        ("b & not -a", b - Event("-a")),
        ("not", Event("not")),
        ("b & not & c", b & Event("not") & c),
        ("b & not - c", b & (Event("not") - c)),
        ("b & not", b & Event("not")),
        ("b & nothing", b & Event("nothing")),
        ("did & first - not", Event("did") & (Event("first") - Event("not"))),
        ('"did(" | "first(a, ever)"', Event("did(") | Event("first(a, ever)")),
    ],
)
def test_a_text_spells_an_expression(text: str, expression: Expression) -> None:
    assert parse(text) == expression


@pytest.mark.parametrize(
    "text",
    [
        *("a & b | c", "a | b & c", "a - b & c", "a & b - c", "a - b - c", "a | b | c"),
        *("a & (b | c)", "a - (b - c)", "(a | b) - c", "a | (b | c)", "a | b - c & a"),
    ],
)
def test_operators_bind_as_in_python(text: str) -> None:
    assert parse(text) == eval(text)
    assert str(parse(text)) == text


def test_an_expression_is_its_own_parse() -> None:
    assert parse(a & b) == a & b


@pytest.mark.parametrize("nonsense", [None, 7, b"a", ["a"], {"a"}])
def test_only_texts_and_expressions_are_segments(nonsense: Any) -> None:
    with pytest.raises(TypeError, match="a segment is a str or an expression"):
        parse(nonsense)


@pytest.mark.parametrize("nonsense", ["b", None, 7, {1}])
def test_segments_combine_with_segments_alone(nonsense: Any) -> None:
    with pytest.raises(TypeError, match="a segment combines with segments"):
        a & nonsense


@pytest.mark.parametrize("kind", [Event, Flag])
@pytest.mark.parametrize("name", ["", " a", "a ", "bitop_a", "a\nb", "x" * 201])
def test_a_name_that_cannot_be_marked_cannot_be_asked_for(
    kind: type[Event | Flag], name: str
) -> None:
    with pytest.raises(ValueError, match="cannot name an event"):
        kind(name)


# From expression to text, and back


@given(expressions)
def test_the_text_of_an_expression_spells_it(expression: Expression) -> None:
    assert parse(str(expression)) == expression
    assert str(parse(str(expression))) == str(expression)


@given(expressions.filter(lambda expression: '"' not in str(expression)), st.data())
def test_white_space_means_nothing(expression: Expression, data: st.DataObject) -> None:
    spaces = st.text(" \t\n\u2003", min_size=1, max_size=3)
    words = str(expression).split(" ")
    text = "".join(data.draw(spaces) + word for word in words) + data.draw(spaces)
    assert parse(text) == expression


fragments = st.sampled_from(
    [
        *("a", "b", "flag:", "-", "&", "|", "(", ")", '"', "\\", " ", "\n", "é"),
        *("not ", "did(", "first(", "was(", "=", ",", "ever", "last 3 days", "at least 2 days of "),
    ]
)


@given(st.lists(fragments).map("".join) | st.text())
def test_any_text_is_a_segment_or_an_error_at_one_of_its_characters(text: str) -> None:
    try:
        expression, position = parse(text), 0
    except SegmentError as error:
        expression, position = a, error.position
    assert 0 <= position <= len(text)
    assert parse(str(expression)) == expression


def test_segments_are_equal_and_hash_by_their_structure() -> None:
    assert a & b == parse("a & b")
    assert a & b != a | b
    assert len({a & b, parse("a & b"), b & a, Flag("a"), Event("a"), a}) == 4


def test_a_segment_is_read_by_many_threads_at_once() -> None:
    texts = [f"a{n} & (flag:b{n} | c - d{n})" for n in range(300)]
    with ThreadPoolExecutor(8) as pool:
        assert [str(expression) for expression in pool.map(parse, texts)] == texts


# Errors


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("", 0, "a name is missing"),
        ("  ", 2, "a name is missing"),
        ("a & ", 4, "a name is missing"),
        ("a |", 3, "a name is missing"),
        ("a - ", 4, "a name is missing"),
        ("(a", 2, "')' is missing"),
        ("(", 1, "a name is missing"),
        ("a)", 1, "')' is not expected here"),
        ("()", 1, "')' is not expected here"),
        ("a b", 2, "'b' is not expected here"),
        ("a & & b", 4, "'&' is not expected here"),
        ("a && b", 3, "'&' is not expected here"),
        ("a\n&\n&", 4, "'&' is not expected here"),
        ('"a" "b"', 4, "'\"b\"' is not expected here"),
        ("a -b", 2, "'-b' is not expected here"),
        ("a- b", 3, "'b' is not expected here"),
        (" - a", 1, "'-' is not expected here"),
        ("- a", 0, "with a space on either side"),
        ("a -", 2, "with a space on either side"),
        ("a -(b)", 2, "with a space on either side"),
        ("(a)- b", 3, "with a space on either side"),
        ('a & "b', 4, "this quote is not closed"),
        ('a"', 1, "this quote is not closed"),
        ('"a\\"', 0, "this quote is not closed"),
        ('flag:"a', 5, "this quote is not closed"),
        ("flag:", 5, "the name of a flag is missing"),
        ("a & flag: b", 9, "the name of a flag is missing"),
        ('a & ""', 4, "'' cannot name an event"),
        ("a & bitop_b", 4, "'bitop_b' cannot name an event"),
        ("flag:bitop_b", 0, "'bitop_b' cannot name an event"),
        ('a | "b "', 4, "'b ' cannot name an event"),
        ("not a", 0, "there is nobody to take them from: write 'a & not b', or 'a - b'"),
        ("not did(a, ever)", 0, "there is nobody to take them from"),
        ("b | not did(a, ever)", 4, "there is nobody to take them from"),
        ("b & (not (a))", 5, "there is nobody to take them from"),
        ("b - not a", 4, "there is nobody to take them from"),
        ("b & not not a", 8, "there is nobody to take them from"),
        ("b & not a - c", 10, "'-' is not expected here"),
        ("did(", 4, "the name of an event is missing"),
        ("did(, ever)", 4, "the name of an event is missing"),
        ("did(flag:a, ever)", 4, "the name of an event is missing"),
        ("did(a", 5, "say when, after a comma: did(a, last 30 days), did(a, 2026-01)"),
        ("did(a)", 5, "say when, after a comma"),
        ("did(a last 30 days)", 6, "say when, after a comma"),
        ("did(a,", 6, "say when, after a comma"),
        ("b & did(a, )", 11, "say when, after a comma"),
        ("did(a, ever", 11, "')' is missing"),
        ("did(a, last 14 dayz)", 15, "'dayz' is no unit of time"),
        ("b - did(a,  2026-13)", 12, "there is no '2026-13' in the calendar"),
        ("first(a, soon)", 9, "'soon' is no range of time"),
        ("did(a, at least 3 days)", 7, "'at least 3 days of last 14 days'"),
        ("did(a, at least 3 dayz of ever)", 18, "'dayz' is no period: use hour, day, week"),
        ("did(a, 3 days of last 5 dayz)", 24, "'dayz' is no unit of time"),
        ("did(a, 0 days of ever)", 7, "at_least must be a whole number from 1 to 1000, not 0"),
        ("did(bitop_a, ever)", 4, "'bitop_a' cannot name an event"),
        ("was(", 4, "the value of a dimension is missing: was(user:plan=pro)"),
        ("a - was( )", 9, "the value of a dimension is missing"),
        ("was(flag:a=b)", 4, "the value of a dimension is missing"),
        ("was(user:plan)", 4, "'user:plan' is no value of a dimension, such as 'user:plan=pro'"),
        ("a | was(user:plan=)", 8, "'user:plan=' is no value of a dimension"),
        ("was(=pro)", 4, "'=pro' is no value of a dimension"),
        ("was(bitop_a=b)", 4, "'bitop_a=b' cannot name an event"),
        ("was(a=b", 7, "')' is missing"),
        ("was(a=b, last month)", 7, "was() has no time of its own"),
        ("was(was(a=b))", 7, "'(' is not expected here"),
        ("not was(a=b)", 0, "there is nobody to take them from"),
        ("did(a, first(b, ever))", 12, "'(' is not expected here"),
    ],
)
def test_an_error_points_at_its_character(text: str, position: int, reason: str) -> None:
    with pytest.raises(SegmentError) as raised:
        parse(text)
    assert raised.value.position == position
    message, shown, caret = str(raised.value).split("\n")
    assert reason in message
    assert shown.strip() == text.replace("\n", " ").strip()
    assert caret.index("^") == position + 4


def test_an_error_in_a_long_text_shows_what_is_around_it() -> None:
    text = "a | " * 50 + "& b" + " | c" * 40
    with pytest.raises(SegmentError, match="'&' is not expected here") as raised:
        parse(text)
    assert raised.value.position == 200
    _, shown, caret = str(raised.value).split("\n")
    assert len(shown) < 100
    assert shown[caret.index("^")] == "&"


@pytest.mark.parametrize("text", ["~active", "a & !b", "a ~b", "flag:~f", "(a | ~flag:f)"])
def test_a_negation_is_not_taken_for_a_part_of_a_name(text: str) -> None:
    with pytest.raises(SegmentError, match="there is no complement") as raised:
        parse(text)
    assert text[raised.value.position] in "~!"


@pytest.mark.parametrize("name", ["~active", "!b", "&c", "|d", "-", "a~!b"])
def test_a_name_that_begins_as_an_operator_stands_in_quotes(name: str) -> None:
    assert parse(f'"{name}"') == parse(str(Event(name))) == Event(name)
    assert parse(f'flag:"{name}"') == parse(str(Flag(name))) == Flag(name)
    assert str(Event(name)) == (name if name == "a~!b" else f'"{name}"')


def test_a_text_may_not_nest_deeper_than_can_be_evaluated() -> None:
    assert len(parse(" | ".join("a" * 100)).names()) == 1
    assert parse("(" * 5000 + "a" + ")" * 5000) == a
    with pytest.raises(SegmentError, match="at most 100 names"):
        parse(" | ".join("a" * 20_000))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Did("a", "soon"), "'soon' is no range of time"),
        (lambda: Did("", "ever"), "cannot name an event"),
        (lambda: First("a", "last"), "'last' needs a unit"),
        (lambda: Did("a", "ever", at_least=0), "at_least must be a whole number from 1 to 1000"),
        (lambda: Did("a", "ever", at_least=True), "at_least must be a whole number"),
        (lambda: Did("a", "ever", at_least=2, by="quarter"), "by must be one of hour, day, week"),  # type: ignore[arg-type]
    ],
)
def test_a_range_is_checked_when_it_is_made(make: Callable[[], Expression], reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        make()


def test_a_range_is_no_set_before_it_is_known_which_moment_is_now() -> None:
    for segment in (Did("a", "last 3 days"), First("a", "2026-01")):
        with pytest.raises(TypeError, match="is read as of a moment"):
            segment.evaluate(Bitmaps({}), None)
        with pytest.raises(TypeError, match="is read as of a moment"):
            [*segment.keys(FEBRUARY)]


# What segments are


DAYS = [Period("day", datetime(2026, 2, day + 1)) for day in range(28)]
FEBRUARY = Period("month", datetime(2026, 2, 1))

plain_leaves = st.sampled_from([a, b, Flag("f"), Flag("g")])
plain_expressions = st.recursive(plain_leaves, combined, max_leaves=6)
users = st.frozensets(st.integers(0, 9))


def bitmap(offsets: frozenset[int]) -> Bitmap:
    value = bytearray(2)
    for offset in offsets:
        value[offset // 8] |= 128 >> offset % 8
    return Bitmap.from_bytes(bytes(value))


def members(expression: Expression, sets: Mapping[str, frozenset[int]]) -> frozenset[int]:
    """`expression` over Python's sets: {name: users}."""
    match expression:
        case Event(name) | Flag(name):
            return sets[name]
        case And(left, right):
            return members(left, sets) & members(right, sets)
        case Or(left, right):
            return members(left, sets) | members(right, sets)
        case Minus(left, right):
            return members(left, sets) - members(right, sets)
    raise TypeError(expression)


@given(plain_expressions, st.fixed_dictionaries(dict.fromkeys("abfg", users)))
def test_a_segment_is_the_set_that_it_spells(
    expression: Expression, sets: dict[str, frozenset[int]]
) -> None:
    (day, *_) = DAYS
    keys = {leaf: next(leaf.keys(day)) for leaf in (a, b, Flag("f"), Flag("g"))}
    asked = set(expression.keys(day))
    by_key = {key: bitmap(sets[leaf.name]) for leaf, key in keys.items() if key in asked}
    found = expression.evaluate(Bitmaps(by_key), day)
    assert set(found.ids().tolist()) == members(expression, sets)
    assert len(asked) == len(expression.names())
    assert expression.events() == expression.names() & {"a", "b"}


@given(plain_expressions, st.lists(st.fixed_dictionaries({"a": users, "b": users})), users, users)
def test_a_segment_that_spreads_is_in_a_month_what_it_is_in_its_days(
    expression: Expression,
    days: list[dict[str, frozenset[int]]],
    f: frozenset[int],
    g: frozenset[int],
) -> None:
    flags = {"f": f, "g": g}
    month = {name: frozenset().union(*(day[name] for day in days)) for name in "ab"}
    daily = frozenset().union(*(members(expression, day | flags) for day in days))
    if expression.spreads and days:
        assert members(expression, month | flags) == daily


@pytest.mark.parametrize(
    ("text", "spreads"),
    [
        ("a", True),
        ("a | b", True),
        ("a & flag:f - flag:g", True),
        ("(a | b) & flag:f", True),
        ("a & b", False),
        ("a - b", False),
        ("flag:f - a", False),
        ("a | b - a", False),
        ("a & did(b, ever) - first(c, 2026)", True),
        ("did(a, ever) - b", False),
        ("was(a=b)", True),
        ("a | was(a=b)", True),
        # A week that lies in two months has the value of the second one.
        ("a & was(a=b)", False),
        ("a - was(a=b)", False),
        ("was(a=b) - flag:f", True),
        ("a & b & flag:f", False),
        ("flag:f & (a - b)", False),
        ("a & b - flag:f", False),
        ("(a & b) - flag:f", False),
    ],
)
def test_only_what_flags_cut_out_of_events_spreads(text: str, spreads: bool) -> None:
    assert parse(text).spreads is spreads


def test_a_year_of_an_event_is_the_union_of_its_months() -> None:
    year = Period("year", datetime(2026, 1, 1))
    keys = list(a.keys(year))
    assert keys == [f"trackist_a_2026-{month}" for month in range(1, 13)]
    by_key = {key: bitmap(frozenset({n % 10})) for n, key in enumerate(keys)}
    assert a.evaluate(Bitmaps(by_key), year) == union(by_key.values())


def test_a_flag_is_the_same_whatever_the_period() -> None:
    assert {*Flag("f").keys(DAYS[0]), *Flag("f").keys(FEBRUARY)} == {"trackist_f_u"}
    assert date(2026, 2, 1) == FEBRUARY.start.date()
