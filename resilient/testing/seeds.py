"""What a seed decides: everything that a run draws.

All mutable state is that of others: the module `random`, and the source of chance that strategies share where they were given
none of their own. It is put back at the end.
"""

import contextlib
import random
from collections.abc import Generator

from resilient import chance

__all__ = ("seeded",)


@contextlib.contextmanager
def seeded(seed: int) -> Generator[random.Random]:
    """Draw the same numbers each time while the block runs. Yields a source for what only tests draw."""
    ours, others = chance.source.getstate(), random.getstate()
    chance.source.seed(seed)
    random.seed(seed)
    try:
        yield random.Random(seed)  # noqa: S311  a schedule, no secret
    finally:
        chance.source.setstate(ours)
        random.setstate(others)
