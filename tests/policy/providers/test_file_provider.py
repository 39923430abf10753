"""Policies from a file: read at once, reloaded when it changes; a bad document never replaces a good one."""
# ruff: noqa: ASYNC240  files are what is tested here

import logging
import os
import sys
from pathlib import Path

import anyio
import pytest

from resilient.errors import InvalidPolicy, PolicyNotFound
from resilient.observe import listening
from resilient.observe.events import Event, PolicyRefused, PolicyReloaded
from resilient.policy.key import PolicyKey
from resilient.policy.providers.background import Watching
from resilient.policy.providers.base import NOT_FOUND
from resilient.policy.providers.file import FileProvider

pytestmark = pytest.mark.anyio

OP = PolicyKey("svc", "Op")

REAL = [
    pytest.mark.usefixtures("real_backend"),
    pytest.mark.parametrize("anyio_backend", ["real-plain", "real-trio"], indirect=True),
]


def text(attempts: int) -> str:
    return f"version = {attempts}\n[policies.'svc.Op'.retry]\nattempts = {attempts}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "policies.toml"
    file.write_text(text(3))
    return file


def attempts(provider: FileProvider) -> int | None:
    retry = provider.current(OP).retry
    return retry.attempts if retry is not None else None


async def until(provider: FileProvider, wanted: int) -> None:
    while attempts(provider) != wanted:  # noqa: ASYNC110  the file system sets no event
        await anyio.sleep(0.005)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.toml", "[policies.'svc.Op']\ntimeout = 2"),
        ("p.yaml", "policies: {svc.Op: {timeout: 2}}"),
        ("p.YML", "policies: {svc.Op: {timeout: 2}}"),
        ("p.json", '{"policies": {"svc.Op": {"timeout": 2}}}'),
    ],
)
def test_the_name_tells_the_format(tmp_path: Path, name: str, content: str) -> None:
    """Policies of files say so."""
    (tmp_path / name).write_text(content)

    policy = FileProvider(tmp_path / name).current(OP)

    assert (policy.timeout is not None, policy.source) == (True, "file")


def test_a_name_that_tells_no_format_needs_one(tmp_path: Path) -> None:
    """As the file of a service's own might have."""
    (tmp_path / "policies").write_text("default: {}")

    with pytest.raises(ValueError, match="the name does not tell the format; say format='toml', 'yaml' or 'json'"):
        FileProvider(tmp_path / "policies")
    assert FileProvider(tmp_path / "policies", format="yaml").document.default is not None


def test_at_first_a_bad_document_raises(path: Path) -> None:
    """A program does not start with half of its policies."""
    path.write_text("[policies.a]\ntimeout = 'x'\n[policies.b]\nretry = 3")

    with pytest.raises(InvalidPolicy, match=r"(?s)2 problems:.*line 2: policies.a.timeout.*line 4: policies.b.retry"):
        FileProvider(path)
    with pytest.raises(FileNotFoundError):
        FileProvider(path.with_name("nowhere.toml"))


async def test_a_key_without_a_policy_has_none(path: Path) -> None:
    """Unless there is a default."""
    provider = FileProvider(path)

    assert provider.current(PolicyKey.parse("other")) is NOT_FOUND
    assert await provider.load(OP) is provider.current(OP)
    with pytest.raises(PolicyNotFound):
        await provider.load(PolicyKey.parse("other"))


def test_reload_takes_what_is_new_and_tells_it(path: Path) -> None:
    """The same text again is no news, and the same objects stay."""
    heard: list[Event] = []
    provider = FileProvider(path)
    before = provider.current(OP)

    with listening(heard.append):
        assert provider.reload()
        assert provider.current(OP) is before
        path.write_text(text(400))
        assert provider.reload()

    (event,) = heard
    assert isinstance(event, PolicyReloaded)
    assert (event.source, event.version, event.policies, event.clamped) == ("file", 400, 1, 1)
    assert (attempts(provider), repr(provider)) == (10, f"<FileProvider {str(path)!r}: 1 policies>")


@pytest.mark.parametrize("bad", ["[policies", "", "[policies.a]\nx = 1", "#" * 1_000_001])
def test_a_bad_document_is_refused_and_never_replaces_a_good_one(path: Path, bad: str, caplog: pytest.LogCaptureFixture) -> None:
    """Torn, empty, wrong, too large: an event and a log line say why, once."""
    heard: list[Event] = []
    provider = FileProvider(path)
    before = provider.current(OP)
    path.write_text(bad)

    with listening(heard.append), caplog.at_level(logging.WARNING, "resilient"):
        told = [provider.reload(), provider.reload()]

    (event,) = heard
    assert isinstance(event, PolicyRefused)
    assert (told, event.problems, event.origin) == ([False, False], 1, str(path))
    assert provider.current(OP) is before
    (line,) = caplog.messages
    assert line.startswith("resilient.policy_refused provider=file")


def test_trouble_that_is_over_is_told(path: Path) -> None:
    """The good text comes back: the policies are the same objects, and it is news that all is well."""
    heard: list[Event] = []
    provider = FileProvider(path)
    before = provider.current(OP)

    with listening(heard.append):
        path.unlink()
        assert not provider.reload()
        path.write_text(text(3))
        assert provider.reload()

    assert [type(event) for event in heard] == [PolicyRefused, PolicyReloaded]
    assert provider.current(OP) is before


class TestWatching:
    """Real files, real time."""

    pytestmark = REAL

    async def test_a_file_that_is_written_over_is_reloaded(self, path: Path) -> None:
        """In the block; nothing has to be done."""
        async with FileProvider(path) as provider:
            await anyio.sleep(0.05)
            path.write_text(text(5))
            await until(provider, 5)

    async def test_a_file_that_is_replaced_by_another_one_is_reloaded(self, path: Path) -> None:
        """As editors save."""
        async with FileProvider(path) as provider:
            for number in (5, 6):
                await anyio.sleep(0.05)
                other = path.with_suffix(".tmp")
                other.write_text(text(number))
                other.replace(path)
                await until(provider, number)

    async def test_a_directory_that_is_swapped_by_a_link_is_reloaded(self, tmp_path: Path) -> None:
        """As Kubernetes changes a config map: `policies.toml -> ..data/policies.toml`, and `..data` becomes another link."""
        for number in (3, 5):
            (tmp_path / f"..{number}").mkdir()
            (tmp_path / f"..{number}" / "policies.toml").write_text(text(number))
        (tmp_path / "..data").symlink_to("..3")
        (tmp_path / "policies.toml").symlink_to("..data/policies.toml")

        async with FileProvider(tmp_path / "policies.toml") as provider:
            await anyio.sleep(0.05)
            (tmp_path / "..new").symlink_to("..5")
            (tmp_path / "..new").replace(tmp_path / "..data")
            await until(provider, 5)

    async def test_a_change_that_nobody_tells_of_is_found_after_a_while(self, path: Path, tmp_path: Path) -> None:
        """The file is a link to another place, whose own place changes."""
        far = tmp_path / "far"
        (far / "a").mkdir(parents=True)
        (far / "b").mkdir()
        (far / "a" / "p.toml").write_text(text(3))
        (far / "b" / "p.toml").write_text(text(5))
        (far / "now").symlink_to("a")
        path.unlink()
        path.symlink_to(far / "now" / "p.toml")

        async with FileProvider(path, look_every=0.05) as provider:
            (far / "new").symlink_to("b")
            (far / "new").replace(far / "now")
            await until(provider, 5)

    async def test_the_blocks_own_error_surfaces_as_it_is(self, path: Path) -> None:
        """Not in a group; and the provider can be entered again."""
        provider = FileProvider(path)

        with pytest.raises(KeyError):
            async with provider:
                raise KeyError
        async with provider:
            with pytest.raises(RuntimeError, match="is being watched already"):
                await provider.__aenter__()

    async def test_a_cancelled_block_ends(self, path: Path) -> None:
        """The cancellation passes through."""
        with anyio.move_on_after(0.05) as scope:
            async with FileProvider(path):
                await anyio.sleep(10)

        assert scope.cancelled_caught

    async def test_a_watch_that_fails_is_told_and_leaves_what_there_is(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The program goes on."""
        provider = FileProvider(path)
        path.unlink()
        path.parent.rmdir()

        async with provider:
            while not caplog.messages:  # noqa: ASYNC110  a log sets no event
                await anyio.sleep(0.005)

        assert "is no longer watched" in caplog.text
        assert attempts(provider) == 3


async def test_without_watchfiles_the_message_says_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only to watch needs it."""
    monkeypatch.setitem(sys.modules, "watchfiles", None)

    with pytest.raises(ModuleNotFoundError, match=r"pip install 'resilient-anyio\[config\]'"):
        await FileProvider(path).watch()


async def test_what_watches_says_how() -> None:
    """`Watching` is a base."""
    with pytest.raises(TypeError, match="abstract"):
        Watching()  # type: ignore[abstract]


def test_a_path_may_be_a_text(path: Path) -> None:
    """Or anything that names a file."""
    assert FileProvider(os.fspath(path)).path == path
