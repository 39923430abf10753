"""The soak in short: every combination for one small round. `python tests/soak` is the long form.

Weather on real sockets is not the same twice: what is asked for is what must hold in any weather, and no number of successes but
that of the call in fair weather.
"""

import pytest

from soak.run import CELLS, Cell, run


@pytest.mark.timeout(10)
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_bad_weather_does_no_wrong_and_leaves_nothing_behind(cell: Cell) -> None:
    """No wrong body, no POST twice without a key; permits, connections, tasks, descriptors are as before; a last call works."""
    report = run(cell, seed=1, calls=16, rounds=1, seconds=0.0)

    assert report.tally.wrong == []
    assert report.tally.outcomes.total() == report.tally.calls == 16
