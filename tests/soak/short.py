"""The soak in short: every combination for a round or two. `python tests/soak` is the long form.

Weather on real sockets is not the same twice, so a bare `pytest` leaves it out: `pytest tests/soak/short.py`.
"""

import pytest

from soak.run import CELLS, Cell, run


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_bad_weather_does_no_wrong_and_leaves_nothing_behind(cell: Cell) -> None:
    """No wrong body, no POST twice without a key; permits, connections, tasks and descriptors are as before after each round."""
    report = run(cell, seed=1, calls=40, rounds=2, seconds=0.2)

    assert report.tally.wrong == []
    assert report.tally.outcomes.total() == report.tally.calls
