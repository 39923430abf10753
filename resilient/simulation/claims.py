"""Claims: what must hold of the numbers of a simulation, in one line each.

`goodput>=0.95` is about the policy that is tried, `naive.recovery > 20` about the one of that name, and
`budget.amplification < 0.5 * naive.amplification` compares two, seed by seed. A claim holds if it holds in every seed. One about
a number that is not there (`recovery`, where nothing goes wrong) does not hold.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from resilient.policy.names import nearest
from resilient.simulation.measures import MEASURES, Run

__all__ = ("Claim", "Verification")

_TERM: Final = r"(?:(?P<{0}_policy>[^\s<>=]+?)\.)?(?P<{0}>[a-z]\w*)"
_NUMBER: Final = r"(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?|inf"
_CLAIM: Final = re.compile(
    rf"\s*{_TERM.format('left')}\s*(?P<sign><=|>=|<|>)\s*"
    rf"(?:(?P<number>{_NUMBER})(?:\s*\*\s*{_TERM.format('scaled')})?|{_TERM.format('right')})\s*"
)
_SIGNS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class _Term:
    """A number of a policy."""

    policy: str  # "": the first one
    measure: str

    def about(self, policies: Mapping[str, object]) -> "_Term":
        policy = self.policy or next(iter(policies))
        if policy not in policies:
            msg = f"{policy!r} is not simulated{nearest(policy, policies)}"
            raise ValueError(msg)
        return _Term(policy, self.measure)

    def of(self, runs: Mapping[str, Sequence[Run]]) -> list[float]:
        return [run[self.measure] for run in runs[self.policy]]


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim. `Claim.parse("goodput >= 0.95")` makes one.

    Attributes:
        text: as it was written.
        left: what it is about.
        sign: `<`, `<=`, `>` or `>=`.
        factor: the number on the right, or what the term on the right is multiplied by.
        right: the term on the right, or None.

    """

    text: str
    left: _Term
    sign: str
    factor: float
    right: _Term | None

    @classmethod
    def parse(cls, text: str) -> "Claim":
        """A claim from its text.

        Raises:
            ValueError: it is none, or names a number that there is not.

        """
        found = _CLAIM.fullmatch(text)
        if found is None:
            msg = f"{text!r} is no claim: write e.g. 'goodput>=0.95', or 'naive.recovery > 2 * budget.recovery'"
            raise ValueError(msg)
        left = _Term(found["left_policy"] or "", found["left"])
        name = found["right"] or found["scaled"]
        right = _Term(found["right_policy"] or found["scaled_policy"] or "", name) if name else None
        for term in (left, right):
            if term is not None and term.measure not in MEASURES:
                msg = f"{text!r}: {term.measure!r} is unknown{nearest(term.measure, dict.fromkeys(MEASURES))}"
                raise ValueError(msg)
        return cls(text.strip(), left, found["sign"], float(found["number"] or 1), right)

    def about(self, policies: Mapping[str, object]) -> "Claim":
        """The same claim with each policy named: the first one is meant where it names none.

        Raises:
            ValueError: it names another one.

        """
        right = self.right.about(policies) if self.right is not None else None
        return replace(self, left=self.left.about(policies), right=right)

    def verify(self, runs: Mapping[str, Sequence[Run]]) -> "Verification":
        """Whether it holds in every seed of the runs of each policy, all of which it names."""
        lefts = self.left.of(runs)
        rights = [self.factor] * len(lefts) if self.right is None else [self.factor * each for each in self.right.of(runs)]
        pairs = list(zip(lefts, rights, strict=True))
        counterexample = next((pair for pair in pairs if not _SIGNS[self.sign](*pair)), None)
        return Verification(self.text, counterexample is None, *(counterexample or pairs[0]))


@dataclass(frozen=True, slots=True)
class Verification:
    """What became of a claim.

    Attributes:
        claim: its text.
        holds: whether it holds in every seed.
        left, right: the two numbers in the first seed where it does not hold, or in the first one.

    """

    claim: str
    holds: bool
    left: float
    right: float
