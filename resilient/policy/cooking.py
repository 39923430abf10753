"""From the templates of a policy to strategies with state: fresh ones, or those that were in use before, with new settings.

A budget that a retry and a hedge share stays one. What the policy names is looked up; a budget that is named is shared with all
others who name it, so it is handed out as a `Share`, which is never copied.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from resilient.keyed import sibling_for
from resilient.policy.names import FIXED_DELAY, BudgetRef, Names
from resilient.strategies.base import Strategy
from resilient.strategies.budget import Budget
from resilient.strategies.gate import Gate
from resilient.strategies.hedge import Hedge
from resilient.strategies.retry import Retry

if TYPE_CHECKING:
    from resilient.policy.schema import Policy

__all__ = ("FindBudget", "cook")

FindBudget = Callable[[BudgetRef], Budget | None]

_NOTHING: Final[Mapping[str, Strategy]] = {}


def cook(
    policy: "Policy",
    names: Names | None = None,
    *,
    used: Mapping[str, Strategy] = _NOTHING,
    find_budget: FindBudget | None = None,
    key: str | None = None,
) -> dict[str, Strategy]:
    """The strategies of a policy by the names of its fields, outermost first.

    Args:
        policy: the recipe.
        names: where it looks up what the policy names.
        used: what was made of the policy before this one: state is taken over from it where only settings changed.
        find_budget: finds the budgets that are named, in place of `names`; None from it leaves the budget out.
        key: whose state it is; None for calls of any key.

    Raises:
        ValueError: the policy names what is not there.

    """
    budgets: dict[int, Budget] = {}
    made: dict[str, Strategy] = {}
    for place, template in policy.parts.items():
        before = used.get(place)
        strategy = template
        if isinstance(template, Gate):
            strategy = _gate(template, before, key)
        elif isinstance(template, (Retry, Hedge)):
            ref = policy.retry_budget if isinstance(template, Retry) else policy.hedge_budget
            budget = template.budget
            if isinstance(ref, BudgetRef):
                budget = (find_budget or (names or Names()).budget)(ref)
            elif budget is not None:
                old = before.budget if isinstance(before, type(template)) else None
                budget = budgets.setdefault(id(budget), _budget(budget, old))
            strategy = template.replace(budget=budget)
            if isinstance(strategy, Hedge):
                strategy = _hedge(strategy, before, policy.hedge_trigger, names)
        made[place] = strategy
    return made


def _gate(template: Gate, before: Strategy | None, key: str | None) -> Gate:
    if type(before) is type(template) and isinstance(before, Gate) and before.retune(template):
        return before
    return sibling_for(template, key)


def _budget(template: Budget, before: Budget | None) -> Budget:
    if type(before) is type(template) and before is not None and before.retune(template):
        return before
    return template.sibling()


def _hedge(template: Hedge, before: Strategy | None, trigger: str | None, names: Names | None) -> Hedge:
    if trigger is not None:
        found = (names or Names()).trigger(trigger)
        if found is not FIXED_DELAY or template.delay is None:
            template = template.replace(trigger=found, delay=None)
    if isinstance(before, Hedge) and before.state.retune(template.state):
        return template.replace(state=before.state)
    return template.sibling()
