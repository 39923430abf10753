import pytest

from planted.bugs import BUGS, ROOT, Bug


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.title)
def test_what_a_planted_bug_replaces_is_there_exactly_once(bug: Bug) -> None:
    """So that `python tests/planted` can plant it. Where the code was changed, `tests/planted/bugs.py` must be, too."""
    assert bug.times_in(ROOT) == 1
