"""What a seed decides: everything that a run draws.

All mutable state is that of others: the module `random`, and the sources of jitter that strategies share where they were given
none of their own. It is put back at the end.
"""

import contextlib
import random
import sys
from collections.abc import Generator
from typing import Final

__all__ = ("seeded",)

_SHARED: Final = "_random"
"""The name under which modules of the library keep such a source."""


@contextlib.contextmanager
def seeded(seed: int) -> Generator[random.Random]:
    """Draw the same numbers each time while the block runs. Yields a source for what only tests draw."""
    shared = [getattr(module, _SHARED, None) for name, module in sys.modules.items() if name.startswith("resilient")]
    states = [(source, source.getstate()) for source in shared if isinstance(source, random.Random)]
    before = random.getstate()
    random.seed(seed)
    for source, _ in states:
        source.seed(seed)
    try:
        yield random.Random(seed)  # noqa: S311  a schedule, no secret
    finally:
        random.setstate(before)
        for source, state in states:
            source.setstate(state)
