import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from resilient._arguments import fraction, integer, number, seconds

YES = True


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, 0.0), (1, 1.0), (2.5, 2.5), (timedelta(minutes=1), 60.0), (timedelta(milliseconds=1), 0.001)],
)
def test_a_duration_is_a_number_of_seconds_or_a_timedelta(value: Any, expected: float) -> None:
    """Either becomes float seconds."""
    result = seconds("wait", value)

    assert (result, type(result)) == (expected, float)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: seconds("wait", -1), "wait=-1 is out of range: expected a finite number at least 0 seconds"),
        (lambda: seconds("wait", timedelta(seconds=-1)), "wait=-1.0 is out of range"),
        (lambda: seconds("wait", 0, above=0.0), "wait=0 is out of range: expected a finite number greater than 0 seconds"),
        (lambda: seconds("wait", math.inf), "wait=inf is out of range: expected a finite number"),
        (lambda: seconds("wait", math.nan), "wait=nan is out of range"),
        (lambda: number("factor", 0.5, at_least=1.0), "factor=0.5 is out of range: expected a finite number at least 1"),
        (lambda: fraction("rate", 0), "rate=0 is out of range: expected a finite number greater than 0 and at most 1"),
        (lambda: fraction("rate", 1.1), "rate=1.1 is out of range"),
        (lambda: integer("attempts", 0), "attempts=0 is out of range: expected a whole number of at least 1"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_range(check: Callable[[], object], message: str) -> None:
    """The message names the parameter, the value and what is allowed."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the message is what is compared
        check()

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: seconds("wait", "1"), "wait='1': expected seconds as a number or a timedelta, got str"),  # type: ignore[arg-type]
        (lambda: seconds("wait", YES), "wait=True: expected seconds as a number or a timedelta, got bool"),
        (lambda: number("factor", None), "factor=None: expected a number, got NoneType"),  # type: ignore[arg-type]
        (lambda: integer("attempts", 1.0), "attempts=1.0: expected a whole number, got float"),  # type: ignore[arg-type]
        (lambda: integer("attempts", YES), "attempts=True: expected a whole number, got bool"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_its_type(check: Callable[[], object], message: str) -> None:
    """A bool is no number, a string no duration."""
    with pytest.raises(TypeError) as caught:
        check()

    assert str(caught.value) == message


def test_values_at_the_ends_of_a_range_are_in_it() -> None:
    """Ends are inclusive unless the message says "greater than"."""
    assert (fraction("rate", 1), integer("n", 0, at_least=0), number("f", 1, at_least=1.0), seconds("s", 0)) == (1.0, 0, 1.0, 0.0)
