"""Policies from a source that may be slow, down, wrong or hostile: what was good last stays, and calls do not wait for it."""
# ruff: noqa: ASYNC240  files are what is tested here

import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from helpers import cancelled_after
from resilient import clock
from resilient.errors import PolicyNotFound, ProviderError
from resilient.observe import listening
from resilient.observe.events import Event, PolicyRefused, PolicyReloaded, PolicyUnavailable
from resilient.policy.key import PolicyKey
from resilient.policy.providers.base import NOT_FOUND
from resilient.policy.providers.last_good import Kept, LastGood
from resilient.policy.providers.remote import NOT_MODIFIED, Fetched, NotModified, RemoteProvider
from resilient.policy.schema import Policy
from resilient.strategies.backoff import Constant

pytestmark = pytest.mark.anyio

OP = PolicyKey("svc", "Op")
OTHER = PolicyKey("svc", "Other")
Answer = Fetched | NotModified | Exception | None


def document(attempts: int, version: int | None = None, etag: str = "") -> Fetched:
    numbered = {} if version is None else {"version": version}
    policies = {"svc.Op": {"retry": {"attempts": attempts}}}
    return Fetched(json.dumps({**numbered, "policies": policies}).encode(), etag=etag)


BAD = Fetched(b'{"policies": {"svc.Op": {"retry": {"attempts": "3"}}}}', etag="bad")


class Source:
    """Plays its answers in order, the last one for ever."""

    def __init__(self, *answers: Answer, takes: float = 0.0) -> None:
        self.answers = list(answers)
        self.takes = takes
        self.asked: list[tuple[float, str, str]] = []

    async def __call__(self, key: str, etag: str) -> Any:
        self.asked.append((round(clock.now(), 6), key, etag))
        await anyio.sleep(self.takes)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def at(self) -> list[float]:
        return [at for at, _, _ in self.asked]


class NoJitter(Random):
    """The longest span, always."""

    def uniform(self, a: float, b: float) -> float:
        return b


def provider_of(source: Callable[[str, str], Awaitable[Any]], **settings: Any) -> RemoteProvider:
    arguments: Any = {"random": NoJitter(), "backoff": Constant(delay=2, jitter="none"), **settings}
    return RemoteProvider(source, **arguments)


def attempts(provider: RemoteProvider, key: PolicyKey = OP) -> int | None:
    return count(provider.current(key))


def count(policy: Policy | None) -> int | None:
    return None if policy is None or policy.retry is None else policy.retry.attempts


async def settled() -> None:
    """Let what is due now run; time does not pass."""
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


async def test_the_first_caller_loads_and_what_is_there_is_handed_out() -> None:
    """The same object, until it changes."""
    source = Source(document(3))
    provider = provider_of(source)

    assert provider.current(OP) is None
    policy = await provider.load(OP)

    assert (count(policy), policy.source) == (3, "remote")
    assert provider.current(OP) is policy
    assert provider.current(OTHER) is NOT_FOUND
    with pytest.raises(PolicyNotFound):
        await provider.load(OTHER)
    assert (source.asked, repr(provider)) == ([(0.0, "", "")], "<RemoteProvider: 1 documents known>")


async def test_many_callers_share_one_fetch() -> None:
    """Those who have nothing wait for the one that asks."""
    source = Source(document(3), takes=1.0)
    provider = provider_of(source)

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(provider.load, OP)

    assert (source.at, clock.now()) == ([0.0], 1.0)


async def test_a_cancelled_caller_does_not_fail_those_who_wait_with_it() -> None:
    """One of them takes its place."""
    source = Source(document(3), takes=1.0)
    provider = provider_of(source)
    got: list[int | None] = []

    async def waiter() -> None:
        await anyio.sleep(0.1)
        policy = await provider.load(OP)
        got.append(count(policy))

    async with anyio.create_task_group() as group:
        group.start_soon(waiter)
        group.start_soon(waiter)
        async with cancelled_after(0.5):
            await provider.load(OP)

    assert (got, source.at) == ([3, 3], [0.0, 0.5])


async def test_after_the_ttl_one_caller_asks_and_the_others_are_served() -> None:
    """Without a task that watches. The etag goes with the question; what is not modified is fresh again."""
    source = Source(document(3, etag='"1"'), NOT_MODIFIED, document(4))
    provider = provider_of(source, ttl=30)
    policy = await provider.load(OP)
    await anyio.sleep(30)
    source.takes = 1.0

    assert provider.current(OP) is None
    async with anyio.create_task_group() as group:
        group.start_soon(provider.load, OP)
        await settled()
        assert provider.current(OP) is policy
        assert await provider.load(OP) is policy

    assert provider.current(OP) is policy
    assert source.asked == [(0.0, "", ""), (30.0, "", '"1"')]
    await anyio.sleep(30)
    await provider.load(OP)
    assert attempts(provider) == 4


async def test_in_the_block_a_task_keeps_policies_fresh() -> None:
    """No call waits, and the ends of spans are spread at random."""
    source = Source(document(3), document(4), NOT_MODIFIED, document(5))
    heard: list[Event] = []

    with listening(heard.append):
        async with RemoteProvider(source, ttl=10, random=Random(1)) as provider:
            await provider.load(OP)
            await anyio.sleep(35)
            assert attempts(provider) == 5

    spans = [later - before for before, later in zip(source.at, source.at[1:], strict=False)]
    assert len(spans) >= 3
    assert all(8 <= span <= 10 for span in spans)
    assert len(set(spans)) == len(spans)
    assert [type(event) for event in heard] == [PolicyReloaded, PolicyReloaded]


async def test_a_source_that_is_down_at_first_is_an_error_and_is_not_asked_by_each_call() -> None:
    """It is asked again after a while; that it works then is news, too."""
    source = Source(ConnectionError("refused https://me:secret@host/?token=1"), ConnectionError(), document(3))
    provider = provider_of(source)
    heard: list[Event] = []

    with listening(heard.append):
        for _ in range(3):
            with pytest.raises(ProviderError, match=r"policy of 'svc.Op': ConnectionError: refused https://host/$"):
                await provider.load(OP)
        await anyio.sleep(2)
        with pytest.raises(ProviderError):
            await provider.load(OP)
        await anyio.sleep(2)
        await provider.load(OP)

    assert source.at == [0.0, 2.0, 4.0]
    assert [type(event) for event in heard] == [PolicyUnavailable, PolicyUnavailable, PolicyReloaded]
    assert isinstance(heard[0], PolicyUnavailable)
    assert (heard[0].serving, heard[0].retry_in) == ("none", 2.0)


HOSTILE: list[tuple[Answer, type[Event], str]] = [
    (ConnectionError("gone"), PolicyUnavailable, "ConnectionError: gone"),
    (BAD, PolicyRefused, "line 1: policies.\"svc.Op\".retry.attempts: '3': expected a whole number"),
    (Fetched(b'{"policies": {"svc'), PolicyRefused, "line 1: not JSON: Unterminated string starting at"),
    (Fetched(b"{}" + b" " * 1_000_000), PolicyRefused, "too large: more than 1000000 bytes"),
    (Fetched(b"[" * 100_000), PolicyRefused, "not JSON: nested too deeply: more than 20 levels"),
    (Fetched(b"default: &a [*a]", "yaml"), PolicyRefused, "not YAML: nested too deeply: more than 20 levels"),
    (document(9, 6), PolicyRefused, "version: 6 is older, and 7 is in use: to go back, give the old policies a higher number"),
    (document(9), PolicyRefused, "version: there is none, and 7 is in use: to go back, give the old policies a higher number"),
    (None, PolicyUnavailable, "the source has no document"),
    ("what", PolicyUnavailable, "fetch gave str: expected Fetched, NOT_MODIFIED or None"),  # type: ignore[list-item]
]


@pytest.mark.parametrize(("answer", "kind", "why"), HOSTILE, ids=[why[:30] for _, _, why in HOSTILE])
async def test_what_is_not_good_never_replaces_what_is(
    answer: Answer, kind: type[Event], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An event and a log line say why, once; the policies say that they are the last known to be good, and recover."""
    source = Source(document(3, 7), answer, answer, document(3, 7))
    provider = provider_of(source, ttl=30)
    heard: list[Any] = []
    await provider.load(OP)

    with listening(heard.append), caplog.at_level(logging.WARNING, "resilient"):
        await anyio.sleep(30)
        policy = await provider.load(OP)
        await anyio.sleep(2)
        await provider.load(OP)

    (event,) = heard
    assert (type(event), event.why) == (kind, why)
    assert len(caplog.messages) == 1
    assert (count(policy), policy.source) == (3, "lkg")
    with listening(heard.append):
        await anyio.sleep(2)
        policy = await provider.load(OP)
    assert (count(policy), policy.source) == (3, "remote")
    assert (source.at, type(heard[-1])) == ([0.0, 30.0, 32.0, 34.0], PolicyReloaded)


async def test_a_fetch_that_takes_too_long_is_given_up() -> None:
    """In all, whatever arrives meanwhile."""
    provider = provider_of(Source(document(3), takes=60.0), timeout=5)

    with pytest.raises(ProviderError, match="no answer within 5 s"):
        await provider.load(OP)

    assert clock.now() == 5.0


async def test_nothing_has_changed_is_no_answer_where_nothing_was_known() -> None:
    """A source that is out of step."""
    with pytest.raises(ProviderError, match="says that nothing has changed since nothing was known"):
        await provider_of(Source(NOT_MODIFIED)).load(OP)


async def test_remote_values_cannot_exceed_the_bounds_of_the_code() -> None:
    """They are brought into them, and it is noted."""
    provider = provider_of(Source(document(9)), bounds={"retry.attempts": (1, 4)})

    policy = await provider.load(OP)

    assert (count(policy), policy.normalisation.fields) == (4, ("retry.attempts",))


class TestPerKey:
    """Each key has a document of its own."""

    async def test_each_key_is_fetched_by_itself(self) -> None:
        """Its document holds its policy, or a default."""
        source = Source(document(3), Fetched(b'{"default": {"retry": {"attempts": 5}}}'))
        provider = provider_of(source, per_key=True)

        await provider.load(OP)
        await provider.load(OTHER)

        assert (attempts(provider), attempts(provider, OTHER)) == (3, 5)
        assert [key for _, key, _ in source.asked] == ["svc.Op", "svc.Other"]

    async def test_that_there_is_none_is_believed_for_a_while(self) -> None:
        """Then the source is asked again."""
        source = Source(None, document(3))
        provider = provider_of(source, per_key=True, negative_ttl=10)

        for _ in range(3):
            with pytest.raises(PolicyNotFound):
                await provider.load(OP)
        assert provider.current(OP) is NOT_FOUND
        await anyio.sleep(10)
        assert provider.current(OP) is None
        await provider.load(OP)

        assert (attempts(provider), source.at) == (3, [0.0, 10.0])

    async def test_a_policy_that_is_taken_away_is_gone(self) -> None:
        """That is told; it is no failure of the source."""
        provider = provider_of(Source(document(3), None), per_key=True, ttl=10)
        heard: list[Any] = []
        await provider.load(OP)
        await anyio.sleep(10)

        with listening(heard.append), pytest.raises(PolicyNotFound):
            await provider.load(OP)

        (event,) = heard
        assert (event.why, event.serving) == ("the source has no document for the key any more", "none")

    async def test_hostile_keys_cannot_grow_memory_nor_push_out_what_is_used(self) -> None:
        """Keys without a document go first."""

        async def source(key: str, _: str) -> Fetched | None:
            return document(3) if key == OP else None

        provider = provider_of(source, per_key=True, max_keys=10)
        await provider.load(OP)
        for number in range(100):
            with pytest.raises(PolicyNotFound):
                await provider.load(PolicyKey("", f"key{number}"))

        assert repr(provider) == "<RemoteProvider: 10 documents known>"
        assert attempts(provider) == 3

    async def test_in_the_block_keys_that_nobody_asks_for_are_not_fetched(self) -> None:
        """One that is asked for again is served at once, and fetched meanwhile."""
        source = Source(document(3), document(4), document(5))
        async with provider_of(source, per_key=True, ttl=10) as provider:
            await provider.load(OP)
            await anyio.sleep(100)
            served = attempts(provider)
            await settled()

            assert (served, attempts(provider)) == (3, 4)
            await anyio.sleep(15)

        assert source.at == [0.0, 100.0, 110.0]

    async def test_a_block_that_ends_leaves_nobody_waiting(self) -> None:
        """A fetch that was cut off, or never began, can be made again."""
        source = Source(document(3), takes=1.0)
        provider = provider_of(source)

        for ticks in range(6):
            async with provider:
                for _ in range(ticks):
                    await anyio.lowlevel.checkpoint()
        async with provider:
            await anyio.sleep(0.5)
        await provider.load(OP)

        assert attempts(provider) == 3


class TestLastGood:
    """What was good last is on disk."""

    async def test_it_serves_where_the_source_is_down_at_the_start(self, tmp_path: Path) -> None:
        """With its etag, and it keeps older documents out."""
        await provider_of(Source(document(3, 7, etag="e7")), last_good=tmp_path / "new").load(OP)
        source = Source(ConnectionError(), document(9, 6), NOT_MODIFIED)
        provider = provider_of(source, last_good=tmp_path / "new")
        heard: list[Any] = []

        with listening(heard.append):
            policy = await provider.load(OP)
            await anyio.sleep(2)
            await provider.load(OP)
            await anyio.sleep(2)
            again = await provider.load(OP)

        assert (count(policy), policy.source, again.source) == (3, "lkg", "remote")
        assert [etag for _, _, etag in source.asked] == ["e7"] * 3
        assert [(type(event), getattr(event, "serving", None)) for event in heard] == [
            (PolicyUnavailable, "lkg"),
            (PolicyRefused, None),
            (PolicyReloaded, None),
        ]

    async def test_in_the_block_it_serves_at_once(self, tmp_path: Path) -> None:
        """The source is asked meanwhile."""
        await provider_of(Source(document(3)), last_good=tmp_path).load(OP)
        source = Source(document(4), takes=1.0)

        async with provider_of(source, last_good=tmp_path) as provider:
            policy = await provider.load(OP)
            assert (count(policy), clock.now()) == (3, 0.0)
            await anyio.sleep(2)

            assert attempts(provider) == 4

    @pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b'{"text": 3}', b'{"text": "x", "key": ""}', b"\xff", b"[" * 10_000])
    async def test_what_is_damaged_is_not_used(self, tmp_path: Path, damage: bytes) -> None:
        """It is told, and the source is asked."""
        await provider_of(Source(document(3)), last_good=tmp_path).load(OP)
        (file,) = tmp_path.iterdir()
        file.write_bytes(damage)
        heard: list[Any] = []

        with listening(heard.append):
            await provider_of(Source(document(4)), last_good=tmp_path).load(OP)

        (event,) = heard
        assert (type(event), event.provider) == (PolicyRefused, "lkg")
        assert "is damaged" in event.why

    async def test_what_was_changed_by_another_hand_is_not_used(self, tmp_path: Path) -> None:
        """The checksum tells."""
        store = LastGood(tmp_path, 10)
        store.write("", Kept(document(3).text, "json", "e"))
        (file,) = tmp_path.iterdir()
        file.write_text(file.read_text().replace("3}", "9}"))

        with pytest.raises(ValueError, match="is damaged"):
            store.read("")

    async def test_a_disk_that_fails_is_told_and_no_reason_to_refuse_a_policy(self, tmp_path: Path) -> None:
        """Here the directory is a file."""
        (tmp_path / "file").write_text("")
        heard: list[Any] = []

        with listening(heard.append):
            policy = await provider_of(Source(document(3)), last_good=tmp_path / "file").load(OP)

        assert policy.source == "remote"
        assert [(type(event), event.provider) for event in heard] == [(PolicyRefused, "lkg")] * 2

    async def test_a_policy_that_is_gone_is_forgotten(self, tmp_path: Path) -> None:
        """It must not come back after a restart."""
        provider = provider_of(Source(document(3), None), per_key=True, ttl=10, last_good=tmp_path)
        await provider.load(OP)
        await anyio.sleep(10)

        with pytest.raises(PolicyNotFound):
            await provider.load(OP)

        assert list(tmp_path.iterdir()) == []

    def test_it_is_bounded_private_and_whole(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """So many files, 0600, and none that is half written."""
        store = LastGood(tmp_path, 2)
        for key in ("a", "b", "c"):
            store.write(key, Kept(b"{}", "json", ""))
        kept = [key for key in ("a", "b", "c") if store.read(key)]

        assert (len(kept), "c" in kept) == (2, True)
        assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
        monkeypatch.delattr(json, "dump")
        with pytest.raises(AttributeError):
            store.write("c", Kept(b"{}", "json", ""))
        assert len(list(tmp_path.iterdir())) == 2


async def test_a_large_document_is_read_in_a_thread() -> None:
    """A loop that stands still for long is a fault, too."""
    large = json.dumps({"policies": {f"svc.Op{number}": {"timeout": 1} for number in range(2000)}}).encode()

    policy = await provider_of(Source(Fetched(large))).load(PolicyKey("svc", "Op7"))

    assert policy.timeout is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fetch": 3}, "fetch=3: expected an async function"),
        ({"ttl": 0}, "ttl=0 is out of range"),
        ({"negative_ttl": -1}, "negative_ttl=-1 is out of range"),
        ({"timeout": float("inf")}, "timeout=inf is out of range"),
        ({"max_keys": 0}, "max_keys=0 is out of range"),
        ({"bounds": {"retry.atempts": (1, 2)}}, "there is no such bound; did you mean 'retry.attempts'?"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    """At construction, with the name and the range."""
    arguments: Any = {"fetch": Source(None), **settings}
    with pytest.raises((TypeError, ValueError)) as caught:
        RemoteProvider(**arguments)

    assert message in str(caught.value)


@pytest.mark.parametrize("wrong", [("text", "json"), (b"text", "ini")])
def test_what_a_fetch_gives_is_checked(wrong: tuple[Any, Any]) -> None:
    """Bytes, of a format that is known."""
    with pytest.raises(TypeError, match="expected bytes, and 'json', 'toml' or 'yaml'"):
        Fetched(*wrong)
