"""Resilience for ASGI applications: Starlette, FastAPI, Litestar and all others, on any server.

    app = ResilientMiddleware(app, rate_limit=Keyed(TokenBucket(10)), key=client_ip(), bulkhead=Bulkhead(100), timeout=10)
    app = HealthEndpoints(app, parts={"users-api": breaker})

Pure ASGI: nothing is buffered, no task is made. `ResilientMiddleware` limits what comes in, `HealthEndpoints` answers `/livez`
and `/readyz`, and the functions say whom a request counts for. Nothing needs to be installed for it.
"""

from resilient_integrations._asgi.health import HealthEndpoints
from resilient_integrations._asgi.keys import client_ip, header, path_template, user
from resilient_integrations._asgi.middleware import ResilientMiddleware
from resilient_integrations._asgi.shedding import LoadShed, LoopLag, LoopLagStatistics

__all__ = (
    "HealthEndpoints",
    "LoadShed",
    "LoopLag",
    "LoopLagStatistics",
    "ResilientMiddleware",
    "client_ip",
    "header",
    "path_template",
    "user",
)
