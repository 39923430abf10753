"""Request bodies: what can be sent again is, what cannot never is, and never as an empty one."""

import io
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from integrations.families import BACKENDS, LEFT_BELOW, Family
from integrations.servers import answer, nobody, reset, serve
from resilient import record_timeline

pytestmark = BACKENDS

CONTENT = b"hello world"


class Fresh:
    """An async iterable that makes a new iterator each time."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield CONTENT[:5]
        yield CONTENT[5:]


class OneShot:
    """An async iterator object: it is its own iterator."""

    def __init__(self) -> None:
        self.parts = [CONTENT[5:], CONTENT[:5]]

    def __aiter__(self) -> "OneShot":
        return self

    async def __anext__(self) -> bytes:
        if not self.parts:
            raise StopAsyncIteration
        return self.parts.pop()


class AsyncFile(OneShot):
    """A file as anyio and aiofiles have them."""

    async def aread(self, _size: int = -1) -> bytes:
        return self.parts.pop() if self.parts else b""


class Pipe(io.BytesIO):
    """A file that cannot seek."""

    def seekable(self) -> bool:
        return False

    def seek(self, _offset: int, _whence: int = 0) -> int:
        raise io.UnsupportedOperation

    def tell(self) -> int:
        raise io.UnsupportedOperation


class ReadOnly:
    """A file with nothing but `read`."""

    def __init__(self) -> None:
        self.rest = CONTENT

    def read(self, _size: int = -1) -> bytes:
        rest, self.rest = self.rest, b""
        return rest


async def generator() -> AsyncIterator[bytes]:
    yield CONTENT


def at_offset_4() -> io.BytesIO:
    file = io.BytesIO(CONTENT)
    file.seek(4)
    return file


def form(file: object) -> dict[str, Any]:
    return {"files": {"file": ("name.txt", file)}}


Make = Callable[[], dict[str, Any]]

REPLAYABLE: list[tuple[str, Make]] = [
    ("no body", dict),
    ("bytes", lambda: {"content": CONTENT}),
    ("str", lambda: {"content": CONTENT.decode()}),
    ("json", lambda: {"json": {"text": CONTENT.decode()}}),
    ("a form", lambda: {"data": {"text": CONTENT.decode()}}),
    ("multipart of bytes", lambda: form(CONTENT)),
    ("multipart of str", lambda: {**form("text"), "data": {"more": "text"}}),
    ("multipart of a seekable file", lambda: form(io.BytesIO(CONTENT))),
    ("multipart of a seekable file given at offset 4", lambda: form(at_offset_4())),
    ("an async iterable with a fresh iterator each time", lambda: {"content": Fresh()}),
]
ONE_SHOT: list[tuple[str, Make]] = [
    ("multipart of a file that cannot seek", lambda: form(Pipe(CONTENT))),
    ("multipart of a file with nothing but read", lambda: form(ReadOnly())),
    ("multipart of which one file cannot seek", lambda: {"files": {"a": ("a", b"a"), "b": ("b", Pipe(CONTENT))}}),
    ("an async generator", lambda: {"content": generator()}),
    ("an async iterator", lambda: {"content": OneShot()}),
    ("an async iterator with a Content-Length", lambda: {"content": OneShot(), "headers": {"Content-Length": "11"}}),
    ("a file with aread", lambda: {"content": AsyncFile()}),
]


def rows(table: list[tuple[str, Make]]) -> list[Any]:
    return [pytest.param(make, id=name) for name, make in table]


@pytest.mark.parametrize("body", rows(REPLAYABLE))
async def test_a_body_that_can_be_read_again_is_sent_again_unchanged(family: Family, body: Make) -> None:
    """The second attempt carries the same bytes as the first, and so does the third."""
    async with serve(answer(503), answer(502), answer(200)) as server, family.client() as client:
        response = await client.put(server.url, **body())

        assert response.status_code == 200
        assert server.bodies[0] == server.bodies[1] == server.bodies[2]
        assert all(request.complete for request in server.requests)


@pytest.mark.parametrize("body", rows(ONE_SHOT))
async def test_a_one_shot_body_that_was_begun_is_not_sent_again(family: Family, body: Make) -> None:
    """The response that would be retried is handed out; the server never sees a second, empty body."""
    async with serve(answer(503, b"busy"), answer(200)) as server, family.client() as client:
        response = await client.put(server.url, **body())

        assert (response.status_code, response.content) == (503, b"busy")
        assert len(server.requests) == 1
        assert CONTENT in server.bodies[0]


@pytest.mark.parametrize("body", rows(ONE_SHOT))
async def test_the_real_failure_surfaces_when_a_one_shot_body_was_begun(family: Family, body: Make) -> None:
    """It is the error of the connection, not the `StreamConsumed` of a second try to read the body."""
    async with serve(reset(), answer(200)) as server, family.client() as client:
        with pytest.raises(family.lib.TransportError):
            await client.put(server.url, **body())

        assert len(server.requests) == 1


@pytest.mark.parametrize("body", rows(ONE_SHOT))
async def test_a_one_shot_body_that_was_never_begun_is_sent_after_all(family: Family, body: Make) -> None:
    """The first attempt finds nobody at home, so nothing of the body was read: whatever its kind, the next one sends it."""
    attempts: list[int] = []

    def nobody_at_first(request: Any, number: int) -> None:
        attempts.append(number)
        if number == 1:
            request.url = request.url.copy_with(port=port)

    with nobody() as port:
        async with serve(answer(200)) as server, family.client(before_attempt=nobody_at_first) as client:
            response = await client.post(server.url, **body())

        assert (response.status_code, attempts) == (200, [1, 2])
        assert CONTENT in server.bodies[0]


async def test_a_request_whose_body_was_never_begun_can_be_sent_by_its_user_again(family: Family) -> None:
    """All attempts found nobody at home; later, somebody is."""
    failed: list[Exception] = []

    def nobody_at_first(request: Any, _number: int) -> None:
        if not failed:
            request.url = request.url.copy_with(port=port)

    with nobody() as port:
        async with serve(answer(200)) as server, family.client(before_attempt=nobody_at_first) as client:
            request = client.build_request("POST", server.url, content=generator())
            with pytest.raises(family.lib.ConnectError) as caught:
                await client.send(request)
            failed.append(caught.value)
            await client.send(request)

        assert server.bodies == [CONTENT]


@pytest.mark.parametrize("body", rows(ONE_SHOT))
async def test_spooling_makes_any_body_one_that_can_be_sent_again(family: Family, body: Make) -> None:
    """`spool=` reads a body of at most so many bytes into memory before it is sent for the first time."""
    async with serve(answer(503), answer(200)) as server, family.client(spool=1024) as client:
        response = await client.put(server.url, **body())

        assert response.status_code == 200
        assert server.bodies[0] == server.bodies[1]
        assert CONTENT in server.bodies[1]


async def test_a_body_longer_than_the_spool_is_sent_whole_and_once(family: Family) -> None:
    """What was read to find that out is not lost."""
    async with serve(answer(503), answer(200)) as server, family.client(spool=6) as client:
        response = await client.put(server.url, content=OneShot())

        assert response.status_code == 503
        assert server.bodies == [CONTENT]


async def test_an_unattached_stream_is_refused_as_the_plain_client_does(family: Family) -> None:
    """A request that was pickled has lost its stream: no attempt is repeated for it."""
    async with serve(answer(200)) as server, family.client() as client:
        request = pickle.loads(pickle.dumps(client.build_request("PUT", server.url, content=generator())))  # noqa: S301  our own

        with record_timeline() as timeline, pytest.raises(family.lib.StreamClosed):
            await client.send(request)

        assert len(timeline.attempts) == 1


@pytest.mark.parametrize(
    "content", [pytest.param(lambda: iter([b"a"]), id="iterator"), pytest.param(lambda: io.BytesIO(b"a"), id="file")]
)
async def test_a_sync_stream_is_refused_before_the_transport(family: Family, content: Callable[[], Iterator[bytes]]) -> None:
    """An asynchronous client takes no synchronous iterator or file as content, resilient or not."""
    async with serve() as server, family.client() as client:
        with record_timeline() as timeline, pytest.raises(RuntimeError, match="sync"):
            await client.put(server.url, content=content())

        assert timeline.attempts == []


@LEFT_BELOW
async def test_a_body_that_was_half_sent_is_not_sent_again(family: Family) -> None:
    """The server resets the connection while the body is on its way: a generator cannot begin again."""
    begun: list[int] = []

    async def endless() -> AsyncIterator[bytes]:
        begun.append(1)
        while True:
            yield b"x" * 65536

    async with serve(reset(at="headers"), answer(200)) as server, family.client() as client:
        with pytest.raises(family.lib.TransportError):
            await client.put(server.url, content=endless())

        assert (len(begun), len(server.requests)) == (1, 1)


async def test_an_error_of_the_users_own_body_surfaces_and_is_not_retried(family: Family) -> None:
    """What an iterator raises is the caller's own affair."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"a"
        raise KeyError("broken")

    async with serve() as server, family.client() as client:
        with record_timeline() as timeline, pytest.raises(KeyError, match="broken"):
            await client.put(server.url, content=broken())

        assert len(timeline.attempts) == 1


async def test_an_early_answer_to_a_half_sent_body_is_an_answer(family: Family) -> None:
    """413 while the body is still being sent is handed out; it is neither lost nor retried."""
    early = answer(413, b"too long", {"Connection": "close"}, at="headers")
    async with serve(early) as server, family.client() as client:
        response = await client.put(server.url, content=b"x" * 1000)

        assert (response.status_code, response.content) == (413, b"too long")
        assert len(server.requests) == 1


@LEFT_BELOW
async def test_httpcore_refuses_a_wrong_content_length_and_nobody_repeats_it(family: Family) -> None:
    """The raw `h11.LocalProtocolError` of the library below surfaces as it does from the plain client."""
    async with serve(answer(200)) as server, family.client() as client:
        with record_timeline() as timeline, pytest.raises(Exception, match="Too"):
            await client.put(server.url, content=CONTENT, headers={"Content-Length": "5"})

        assert len(timeline.attempts) == 1
