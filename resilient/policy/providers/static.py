"""Policies that are known when the program starts."""

from collections.abc import Mapping

from resilient.errors import PolicyNotFound
from resilient.policy.key import PolicyKey
from resilient.policy.providers.base import NOT_FOUND
from resilient.policy.schema import Policy

__all__ = ("StaticProvider",)


class StaticProvider:
    """Policies from a mapping.

    Args:
        policies: from keys to policies.
        default: the policy of every other key (default None: there is none, and the executor's `missing_policy` says what
            happens then).

    Raises:
        TypeError: something that is not a `Policy`.
        ValueError: two texts that name the same key.

    """

    def __init__(self, policies: Mapping[str, Policy] | None = None, *, default: Policy | None = None) -> None:
        self._policies: dict[str, Policy] = {}
        for text, policy in (policies or {}).items():
            key = PolicyKey.parse(text)
            if key in self._policies:
                msg = f"policies[{text!r}]: the key {str(key)!r} is there twice"
                raise ValueError(msg)
            self._policies[key] = _checked(f"policies[{text!r}]", policy)
        self._default = NOT_FOUND if default is None else _checked("default", default)

    def current(self, key: PolicyKey) -> Policy:
        """The policy of the key."""
        return self._policies.get(key, self._default)

    async def load(self, key: PolicyKey) -> Policy:
        """The policy of the key.

        Raises:
            PolicyNotFound: there is none.

        """
        policy = self.current(key)
        if policy is NOT_FOUND:
            raise PolicyNotFound(key)
        return policy

    def __repr__(self) -> str:
        return f"<StaticProvider: {len(self._policies)} policies{'' if self._default is NOT_FOUND else ' and a default'}>"


def _checked(name: str, policy: object) -> Policy:
    if not isinstance(policy, Policy):
        msg = f"{name}={policy!r}: expected a Policy, e.g. Policy.http()"
        raise TypeError(msg)
    return policy if policy.source != "code" else policy.replace(source="static")
