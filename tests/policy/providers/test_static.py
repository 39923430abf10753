"""Policies from a mapping."""

from typing import Any

import pytest

from resilient import Policy
from resilient.policy.key import PolicyKey
from resilient.policy.providers.base import NOT_FOUND, PolicyNotFound
from resilient.policy.providers.static import StaticProvider

pytestmark = pytest.mark.anyio

GET_USER = PolicyKey.parse("user-service.GetUser")


async def test_it_hands_out_the_policy_of_a_key() -> None:
    """The same object each time, marked with where it comes from."""
    provider = StaticProvider({" user-service.GetUser ": Policy(id="mine")})
    policy = provider.current(GET_USER)

    assert (policy, policy.source) == (Policy(id="mine"), "static")
    assert provider.current(GET_USER) is policy
    assert await provider.load(GET_USER) is policy


async def test_other_keys_have_the_default() -> None:
    """A source that is known already stays."""
    provider = StaticProvider(default=Policy(source="remote"))

    assert provider.current(GET_USER).source == "remote"
    assert repr(provider) == "<StaticProvider: 0 policies and a default>"


async def test_without_a_default_other_keys_have_none() -> None:
    """It says so at once, and raises where it is awaited."""
    provider = StaticProvider()

    assert provider.current(GET_USER) is NOT_FOUND
    with pytest.raises(PolicyNotFound, match=r"policy of 'user-service\.GetUser': there is none"):
        await provider.load(GET_USER)
    assert repr(provider) == "<StaticProvider: 0 policies>"


@pytest.mark.parametrize("wrong", [{"policies": {"a": 5}}, {"default": {}}])
def test_what_is_no_policy_is_refused(wrong: dict[str, Any]) -> None:
    """The error names the place."""
    with pytest.raises(TypeError, match="expected a Policy"):
        StaticProvider(**wrong)


def test_a_key_that_is_there_twice_is_refused() -> None:
    """Two ways to write one key would hide one of the policies."""
    with pytest.raises(ValueError, match="is there twice"):
        StaticProvider({"a.b": Policy(), " a . b": Policy()})
