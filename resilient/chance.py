"""The one source of chance that strategies draw from where they are given none of their own.

Jitter, the share of calls that a throttle refuses, the probes of an adaptive limit, what chaos hits: all of them draw from
`source`. Seeding it (`resilient.chance.source.seed(42)`) makes a whole process repeatable, which is what simulation does.
No secret is made of it.
"""

from random import Random
from typing import Final

__all__ = ("source",)

source: Final = Random()  # noqa: S311  jitter, not a secret
"""Shared by all strategies of the process."""
