"""Where policies come from: the protocol that the executor asks, for each call.

A provider answers `current()` at once from what it has, and the executor compares the answer by identity with what it uses:
as long as the same object comes, nothing is made anew. Only where it has no answer is `load()` awaited.
"""

from typing import Final, Protocol

from resilient.errors import PolicyNotFound, ProviderError
from resilient.policy.key import PolicyKey
from resilient.policy.schema import Policy

__all__ = ("NOT_FOUND", "PolicyNotFound", "Provider", "ProviderError")

NOT_FOUND: Final = Policy(id="not found")
"""What `current()` gives where it is known that there is no policy for the key: the object itself, no equal one."""


class Provider(Protocol):
    """Hands out the policy of a key. It is shared by all calls; it must not block."""

    def current(self, key: PolicyKey) -> Policy | None:
        """The policy that is valid now: the same object until it changes. Cheap, and it never raises.

        None where that must be found out first, by `load()`; `NOT_FOUND` where it is known that there is none.
        """
        ...

    async def load(self, key: PolicyKey) -> Policy:
        """Find out the policy of the key.

        Raises:
            PolicyNotFound: there is none.
            ProviderError: it could not be found out.

        """
        ...
