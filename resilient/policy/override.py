"""Other policies for a block: in tests, and for single calls.

`with override(policy):` counts for the task that runs the block and those that it starts, in every executor. State (breakers,
buckets, budgets) is that of the block: it begins fresh, and is gone at its end.

All mutable state: the context variable `_block`, the count of blocks that are open in the process, which lets calls pass
without a look at it where there are none, and the state of a block.
"""

import contextlib
from collections.abc import Generator, Mapping
from contextvars import ContextVar
from typing import Any

from resilient.policy.key import PolicyKey
from resilient.policy.schema import Policy

__all__ = ("Block", "block_here", "open_blocks", "override")


class Block:
    """What an override says.

    Attributes:
        state: the entries of each executor that was called inside.

    """

    __slots__ = ("_by_key", "_for_all", "outer", "state")

    def __init__(self, policies: "Policy | Mapping[str, Policy]", outer: "Block | None") -> None:
        self._for_all = policies if isinstance(policies, Policy) else None
        self._by_key: dict[str, Policy] = {}
        if self._for_all is None:
            if not isinstance(policies, Mapping):
                msg = f"override({policies!r}): expected a Policy, or a mapping from keys to policies"
                raise TypeError(msg)
            for key, policy in policies.items():
                if not isinstance(policy, Policy):  # pyright: ignore[reportUnnecessaryIsInstance]  users pass what they have
                    msg = f"override: {key!r} stands for {policy!r}: expected a Policy"
                    raise TypeError(msg)
                self._by_key[PolicyKey.parse(key)] = policy
        self.outer = outer
        self.state: dict[Any, Any] = {}

    def policy_of(self, key: str) -> "tuple[Block, Policy] | None":
        """The policy of a key, and the block that says so: this one, or one around it."""
        policy = self._by_key.get(key, self._for_all)
        if policy is not None:
            return self, policy
        return None if self.outer is None else self.outer.policy_of(key)


_block: ContextVar[Block | None] = ContextVar("resilient_override", default=None)
block_here = _block.get
open_blocks: list[Block] = []
"""Blocks that are open, of all tasks."""


@contextlib.contextmanager
def override(policies: Policy | Mapping[str, Policy]) -> Generator[None]:
    """Use other policies in a block: one for all keys, or some by key; the others keep theirs.

    `with override(Policy()):` calls everything exactly once, whatever is configured.

    Raises:
        TypeError: what is given is no policy.

    """
    block = Block(policies, block_here())
    token = _block.set(block)
    open_blocks.append(block)
    try:
        yield
    finally:
        open_blocks.remove(block)
        _block.reset(token)
