"""Too much to do: the lag of the event loop, and who is sent away first."""

import math
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from integrations.asgi_client import Request, Service, get, scope_of
from resilient import AdaptiveLimit, Bulkhead, clock
from resilient.observe.timeline import record_timeline
from resilient_integrations.asgi import LoadShed, LoopLag, ResilientMiddleware


def test_a_hiccup_weighs_little_and_a_long_lag_much() -> None:
    """What was measured is smoothed over a second, and no single measurement weighs more than a tenth."""
    hiccup, steady = LoopLag(), LoopLag()
    smoothed = [steady.hear(0.2, 0.02) for _ in range(100)]

    assert hiccup.hear(1.0, math.inf) == LoopLag().hear(1.0, 4.0) == pytest.approx(0.095, abs=0.001)
    assert smoothed[-1] == pytest.approx(0.2 * (1 - math.exp(-2)), abs=0.001)
    assert steady.hear(0.0, 5.0) == 0.0


@pytest.mark.parametrize("limit", [0, -1, math.inf, "0.1"])
def test_a_limit_of_lag_is_checked_at_construction(limit: Any) -> None:
    """In seconds."""
    with pytest.raises((TypeError, ValueError), match="limit="):
        LoopLag(limit)


@pytest.mark.anyio
async def test_the_lag_is_measured_by_requests_and_forgotten_without_them() -> None:
    """Every 20 ms at most; after five seconds nothing is known."""
    lag = LoopLag(0.5)
    await lag.measure()
    lag.hear(10.0, 0.1)
    known = lag.lag
    await lag.measure()

    assert lag.lag == known == pytest.approx(0.95, abs=0.01)
    assert lag.load == 2 * known
    assert repr(lag) == f"<LoopLag: {known * 1000:.3g} of 500 ms>"

    await anyio.sleep(0.02)
    await lag.measure()

    assert 0 < lag.lag < known

    await anyio.sleep(5)

    assert lag.statistics().lag == 0.0


@pytest.mark.anyio
async def test_while_the_loop_lags_requests_are_shed_by_priority() -> None:
    """The lower the share, the sooner; who has none above the load is answered 503, and who may have all of it is not asked."""
    lag = LoopLag(1.0)
    await lag.measure()
    lag.hear(6.0, 0.1)  # a load of 0.57
    shares = {"/bulk": 0.5, "/": 1.0, "/pay": math.inf}
    app = ResilientMiddleware(Service(), loop_lag=lag, priority=lambda scope: shares[scope["path"]])
    with record_timeline() as timeline:
        answers = [await get(app, path) for path in shares]

    assert [answer.status for answer in answers] == [503, 200, 200]
    assert answers[0].json["reason"] == LoadShed.reason == "load_shed"
    assert "retry-after" in answers[0].fields
    assert "load_shed" in timeline.render()

    lag.hear(100.0, 0.1)

    assert [(await get(app, path)).status for path in shares] == [503, 503, 200]
    assert (await get(ResilientMiddleware(Service(), loop_lag=lag))).status == 503


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [Bulkhead(4), Bulkhead(4, max_queue=1), AdaptiveLimit(4)], ids=repr)
async def test_the_last_slots_are_kept_for_those_who_matter(limit: Any) -> None:
    """Low ones are shed first: they take half of the slots at most, and never wait for one."""
    limit = limit.sibling()
    app = ResilientMiddleware(Service(seconds=1), bulkhead=limit, priority=lambda scope: 0.5 if scope["path"] == "/bulk" else 1.0)
    requests = [Request(scope_of(path)) for path in ["/bulk"] * 3 + ["/"] * 2 + ["/bulk", "/"] + ["/"] * limit.max_queue]
    async with anyio.create_task_group() as tasks:
        for request in requests:
            await request.begin(tasks, app)
    statuses = [request.status for request in requests]

    assert statuses == [200, 200, 503, 200, 200, 503, *([200] if limit.max_queue else []), 503]


def test_a_refusal_says_why() -> None:
    """To those who read the log."""
    assert str(LoadShed("load", None, 0.9, 0.5)) == (
        "load: the load is 90%, and requests like this one are taken below 50%; it was not run"
    )


@pytest.mark.anyio
@pytest.mark.usefixtures("real_backend")
async def test_handlers_that_keep_the_loop_busy_are_noticed() -> None:
    """In real time: ten at once, each of which computes for 5 ms again and again, until a request is refused."""
    lag = LoopLag(0.005)
    app = ResilientMiddleware(Service(), loop_lag=lag)
    idle = await get(app)

    async def computes(*_arguments: Any) -> None:
        while not noticed.is_set():
            until = clock.now() + 0.005
            while clock.now() < until:
                pass
            await anyio.lowlevel.checkpoint()

    noticed = anyio.Event()
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(Request(scope_of()).run, computes)
        while (await get(app)).status == 200:
            await anyio.lowlevel.checkpoint()
        noticed.set()

    assert idle.status == 200
