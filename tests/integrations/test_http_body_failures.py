"""What happens after the header: the user has a response by then, and the engine a permit that is still out."""

import pytest

from integrations.families import BACKENDS, LEFT_BELOW, Family, failures
from integrations.scenes import Setting, Stage, h1, h2
from integrations.servers import answer, hang_up, head, reset, serve, stall
from integrations.servers_h2 import cut_off
from resilient import record_timeline, timeline_of

pytestmark = BACKENDS

BODY_BEGAN = head(200, {"Content-Length": "10"}) + b"abc"

CUT_SHORT = [
    pytest.param(h1(hang_up(BODY_BEGAN)), "RemoteProtocolError", id="a body that ends too early"),
    pytest.param(h1(reset(BODY_BEGAN)), "ReadError", id="a reset within the body"),
    pytest.param(h1(stall(BODY_BEGAN)), "ReadTimeout", id="a body that stalls"),
    pytest.param(
        h1(hang_up(head(200, {"Transfer-Encoding": "chunked"}) + b"zz\r\n")), "RemoteProtocolError", id="a broken chunk"
    ),
    pytest.param(h2(cut_off(b"abc")), "RemoteProtocolError", id="RST_STREAM within the body"),
]


@pytest.mark.parametrize(("setting", "error"), CUT_SHORT)
async def test_a_body_that_fails_was_processed_and_is_never_asked_for_again(
    family: Family, stage: Stage, setting: Setting, error: str
) -> None:
    """The user has the header by then: the error surfaces where the body is read, and the breaker hears of it."""
    async with setting(stage) as scene, family.client(scene.inner) as client:
        with record_timeline() as timeline:
            async with client.stream("GET", scene.url, timeout=family.lib.Timeout(5.0, read=0.1)) as response:
                with pytest.raises(getattr(family.lib, error)) as caught:
                    await response.aread()

        assert (response.status_code, len(timeline.attempts)) == (200, 1)
        assert caught.value.request is response.request
        assert failures(client) == 1


async def test_a_body_without_a_length_that_is_cut_cannot_be_told_from_a_whole_one(family: Family) -> None:
    """The end of the connection is the end of the body: no error, and a success for the breaker."""
    async with serve(hang_up(head(200) + b"abc")) as server, family.client() as client:
        response = await client.get(server.url)

        assert (response.content, failures(client)) == (b"abc", 0)


@LEFT_BELOW
async def test_a_body_that_cannot_be_decoded_is_not_the_breakers_affair(family: Family) -> None:
    """`DecodingError` is raised above the stream; the permit is back all the same."""
    async with serve(answer(200, b"not gzip", {"Content-Encoding": "gzip"})) as server, family.client() as client:
        with record_timeline() as timeline, pytest.raises(family.lib.DecodingError):
            await client.get(server.url)

        assert (len(timeline.attempts), failures(client)) == (1, 0)


async def test_too_many_redirects_are_the_clients_affair(family: Family) -> None:
    """Each hop is a success; what the client makes of them is not tried again."""
    async with (
        serve(answer(302, headers={"Location": "/"})) as server,
        family.client(client={"follow_redirects": True, "max_redirects": 3}) as client,
    ):
        with pytest.raises(family.lib.TooManyRedirects):
            await client.get(server.url)

        assert (len(server.requests), failures(client)) == (4, 0)


async def test_what_surfaces_is_the_last_error_itself_with_a_note_of_all(family: Family) -> None:
    """No wrapper, no context of earlier attempts; a note and a timeline tell of them."""
    async with serve(reset(), hang_up()) as server, family.client() as client:
        with pytest.raises(family.lib.RemoteProtocolError) as caught:
            await client.get(server.url)

        error = caught.value
        timeline = timeline_of(error)
        assert timeline is not None
        assert [attempt.error for attempt in timeline.attempts] == ["ReadError", "RemoteProtocolError", "RemoteProtocolError"]
        assert [note for note in error.__notes__ if "3 attempts" in note]
        assert not isinstance(error.__context__, (family.lib.ReadError, type(error)))
