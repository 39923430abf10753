"""What a scenario is made of: services, the clients that call them, and what goes wrong when.

All of it is frozen data without behaviour of its own, but for what follows from it: how long work takes, and how strong a
condition is at a time. `resilient.simulation.run` brings it to life. Times are virtual seconds since the begin of the run.

The queue with workers behind it is what overload does its damage with: work that the client has given up is done all the
same, and is lost. See N. Bronson, A. Aghayev, A. Charapko and T. Zhu, "Metastable Failures in Distributed Systems" (2021).
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from random import Random
from typing import Final, Literal, Self

from resilient._arguments import integer, number, seconds
from resilient.policy.schema import Policy

__all__ = ("Clients", "Condition", "Latency", "Scenario", "Service")


def _texts_and_flags(part: "Service | Clients | Condition | Scenario") -> None:
    """A name that is no text, or a switch that is neither true nor false, would be taken for something else later."""
    kinds = {"str": (str, "a text"), "bool": (bool, "true or false")}
    for each in fields(part):
        kind, expected = kinds.get(str(getattr(each.type, "__name__", each.type)), (object, ""))
        value = getattr(part, each.name)
        if not isinstance(value, kind):
            msg = f"{each.name}={value!r}: expected {expected}, got {type(value).__name__}"
            raise TypeError(msg)


def _choice(name: str, value: str, *known: str) -> None:
    if value not in known:
        msg = f"{name}={value!r}: expected one of {', '.join(map(repr, known))}"
        raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long work takes.

    Args:
        mean: seconds on average, without the tail, above 0 (default 0.08).
        shape: `"exponential"` (the default), `"constant"` or `"lognormal"`.
        sigma: how wide a lognormal one is, at least 0 (default 0.5).
        tail: the share of the requests that take much longer, from 0 (the default) to 1: 0.02 for `2 % x 50`.
        tail_factor: how many times as long those take, at least 1 (default 50).

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of range.

    """

    mean: float = 0.08
    shape: Literal["exponential", "constant", "lognormal"] = "exponential"
    sigma: float = 0.5
    tail: float = 0.0
    tail_factor: float = 50.0

    def __post_init__(self) -> None:
        seconds("mean", self.mean, above=0.0)
        _choice("shape", self.shape, "exponential", "constant", "lognormal")
        number("sigma", self.sigma, at_least=0.0)
        number("tail", self.tail, at_least=0.0, at_most=1.0)
        number("tail_factor", self.tail_factor, at_least=1.0)

    @property
    def average(self) -> float:
        """Seconds on average, with the tail."""
        return self.mean * (1 + self.tail * (self.tail_factor - 1))

    def draw(self, random: Random) -> float:
        """Seconds for one piece of work."""
        mean = self.mean
        if self.shape == "exponential":
            drawn = random.expovariate(1 / mean)
        elif self.shape == "constant":
            drawn = mean
        else:
            drawn = random.lognormvariate(math.log(mean) - self.sigma**2 / 2, self.sigma)
        return drawn * self.tail_factor if self.tail and random.random() < self.tail else drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Workers, and a queue before them.

    Args:
        name: what it is called.
        workers: requests that are worked on at a time, at least 1 (default 10).
        latency: how long a worker takes for one.
        queue: how many may wait, at least 0 (default 1000). One that finds no room is refused at once.
        discipline: which of those that wait is next: the oldest, `"fifo"` (the default), or the newest, `"lifo"`.
        notices: whether a request is dropped from the queue when its client has given up (default False: it is worked on).
        optimistic: concurrency control of a contended record: a request succeeds only if no other one has succeeded since it
            began (default False).
        calls: the name of another service, which each request calls after its own work while it keeps its worker, or "".
        policy: the policy by which it calls that one: a name, or "" (the default) for the policy that is tried.
        patience: seconds after which it gives up such an attempt by itself, above 0 (default 5).

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of range.

    """

    name: str = "service"
    workers: int = 10
    latency: Latency = Latency()
    queue: int = 1000
    discipline: Literal["fifo", "lifo"] = "fifo"
    notices: bool = False
    optimistic: bool = False
    calls: str = ""
    policy: str = ""
    patience: float = 5.0

    def __post_init__(self) -> None:
        _texts_and_flags(self)
        integer("workers", self.workers)
        integer("queue", self.queue, at_least=0)
        _choice("discipline", self.discipline, "fifo", "lifo")
        seconds("patience", self.patience, above=0.0)

    @property
    def capacity(self) -> float:
        """Requests a second that it can do, all being well and without those that it calls."""
        return self.workers / self.latency.average


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """Those who call. Just one of `rate`, `users` and `together` says when.

    Args:
        name: what they are called.
        rate: open loop: calls a second, whatever becomes of them, from 0 to a million.
        arrivals: of an open loop: `"poisson"` (the default) or `"constant"`.
        users: closed loop: so many, each of whom makes a call after the other, at least 0.
        think: seconds between two calls of a user, exponentially distributed, above 0 (default 1).
        together: so many calls at once, one second after the begin, at least 0.
        calls: the name of the service that they call; "" (the default) for the first one.
        fan_out: how many requests one call makes side by side, each through the policy, at least 1 (default 1). All must succeed.
        pipelines: how many processes they are, at least 1 (default 1): each has breakers and budgets of its own.
        patience: seconds after which the client library gives up an attempt by itself, above 0 (default 5, as httpx does).
        good_within: seconds within which a call must succeed to count, above 0 (default: any time).
        counted: whether their calls are what is measured (default True); else they are load that the others suffer from.
        policy: the policy by which they call: a name, or "" (the default) for the policy that is tried.

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of range.

    """

    name: str = "clients"
    rate: float = 0.0
    arrivals: Literal["poisson", "constant"] = "poisson"
    users: int = 0
    think: float = 1.0
    together: int = 0
    calls: str = ""
    fan_out: int = 1
    pipelines: int = 1
    patience: float = 5.0
    good_within: float = math.inf
    counted: bool = True
    policy: str = ""

    def __post_init__(self) -> None:
        _texts_and_flags(self)
        number("rate", self.rate, at_least=0.0, at_most=1e6)
        _choice("arrivals", self.arrivals, "poisson", "constant")
        integer("users", self.users, at_least=0)
        seconds("think", self.think, above=0.0)
        integer("together", self.together, at_least=0)
        integer("fan_out", self.fan_out)
        integer("pipelines", self.pipelines)
        seconds("patience", self.patience, above=0.0)
        if self.good_within < math.inf:
            seconds("good_within", self.good_within, above=0.0)
        if sum(map(bool, (self.rate, self.users, self.together))) != 1:
            msg = f"clients {self.name!r}: just one of rate, users and together must be given, e.g. Clients(rate=100)"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Something that is so for a while. Each effect that is given holds between `begin` and `end`.

    Args:
        on: the name of a service, or of clients (for `rate`).
        begin: when it begins, in seconds, at least 0.
        end: when it ends, in seconds, after `begin`.
        eases: seconds over which it fades away after its end, at least 0 (default 0): a slow recovery.
        period: it comes and goes: it is there for the first half of each so many seconds; 0 (the default) for always there.
        slow: a brown-out: work takes so many times as long, above 0 (default 1).
        errors: the share of requests that fail after their work, from 0 (the default) to 1.
        refuses: an outage: the share of requests that are refused at once, from 0 (the default) to 1.
        hangs: the share of requests that are never answered, from 0 (the default) to 1.
        workers: a loss of capacity: the share of workers that remains, from 0 to 1 (the default).
        rate: clients make so many times as many calls, at least 0 (default 1).

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of range.

    """

    on: str
    begin: float
    end: float
    eases: float = 0.0
    period: float = 0.0
    slow: float = 1.0
    errors: float = 0.0
    refuses: float = 0.0
    hangs: float = 0.0
    workers: float = 1.0
    rate: float = 1.0

    def __post_init__(self) -> None:
        _texts_and_flags(self)
        seconds("begin", self.begin)
        seconds("end", self.end, above=self.begin)
        seconds("eases", self.eases)
        seconds("period", self.period)
        number("slow", self.slow, above=0.0)
        for name in ("errors", "refuses", "hangs", "workers"):
            number(name, getattr(self, name), at_least=0.0, at_most=1.0)
        number("rate", self.rate, at_least=0.0)

    def strength(self, now: float) -> float:
        """How strong it is, from 0 to 1."""
        if not self.begin <= now < self.end + self.eases:
            return 0.0
        if now >= self.end:
            return 1 - (now - self.end) / self.eases
        return 0.0 if self.period and (now - self.begin) % self.period >= self.period / 2 else 1.0

    @property
    def over(self) -> float:
        """When nothing is left of it."""
        return self.end + self.eases


_WHERE_AND_WHEN: Final = {"on", "begin", "end", "eases", "period"}
_NO_EFFECT: Final = {each.name: each.default for each in fields(Condition) if each.name not in _WHERE_AND_WHEN}
_MOST_STEPS: Final = 1_000_000  # of the series, for which there is room in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """An outage, or another day in the life of a service.

    Args:
        name: what it is called.
        title: the same in a few words.
        about: what it shows.
        seconds: how long calls are made, above 0 (default 60).
        warm_up: seconds at first that are not measured, at least 0 (default 5).
        step: seconds between two points of a series, above 0 (default 1).
        services: at least one; the first one is what clients call.
        clients: at least one group.
        conditions: what goes wrong, and when.
        policies: those that it compares, by name; services and clients can name them, too.
        claims: what it shows, to be checked: see `resilient.simulation.claims`.

    Raises:
        TypeError, ValueError: an argument is out of range, or a name names nothing.

    """

    name: str = "scenario"
    title: str = ""
    about: str = ""
    seconds: float = 60.0
    warm_up: float = 5.0
    step: float = 1.0
    services: tuple[Service, ...] = (Service(),)
    clients: tuple[Clients, ...] = (Clients(rate=100),)
    conditions: tuple[Condition, ...] = ()
    policies: Mapping[str, Policy] = field(default_factory=dict[str, Policy])
    claims: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _texts_and_flags(self)
        seconds("seconds", self.seconds, above=0.0)
        seconds("warm_up", self.warm_up)
        seconds("step", self.step, above=0.0)
        if self.seconds / self.step > _MOST_STEPS:
            least = self.seconds / _MOST_STEPS
            msg = f"step={self.step:g} is out of range: expected at least {least:g}, for seconds={self.seconds:g}"
            raise ValueError(msg)
        if not self.services:
            raise ValueError("services: at least one is needed")
        if not any(group.counted for group in self.clients):
            raise ValueError("clients: at least one group whose calls are counted is needed")
        services = [service.name for service in self.services]
        callers: list[Clients | Service] = [*self.clients, *self.services]
        self._check("calls", services, *(caller.calls for caller in callers))
        self._check("policy", self.policies, *(caller.policy for caller in callers))
        groups = [group.name for group in self.clients]
        self._check("on", [*services, *groups], *(one.on for one in self.conditions))
        for name, count in Counter([*services, *groups]).items():
            if count > 1:  # chance is drawn by name: groups that share one would call in step
                msg = f"name={name!r}: {count} services or groups of clients are called so: give each a name of its own"
                raise ValueError(msg)
        for one in self.conditions:
            self._check_effects(one)
        for service in self.services:
            if service.calls and services.index(service.calls) <= services.index(service.name):
                msg = f"services: {service.name!r} calls {service.calls!r}: a service can call only one that stands below it"
                raise ValueError(msg)

    def _check(self, what: str, known: Mapping[str, object] | list[str], *names: str) -> None:
        for name in names:
            if name and name not in known:
                msg = f"{what}={name!r}: there is no such name; there are {', '.join(map(repr, known)) or 'none'}"
                raise ValueError(msg)

    def _check_effects(self, condition: Condition) -> None:
        """An effect on what it does nothing to would make another experiment than the one that was asked for."""
        group = next((group for group in self.clients if group.name == condition.on), None)
        takes = [name for name in _NO_EFFECT if name != "rate"] if group is None else ["rate"] if group.rate else []
        for name, nothing in _NO_EFFECT.items():
            given = getattr(condition, name)
            if given != nothing and name not in takes:
                expected = " or ".join(takes) or "clients with a rate"
                msg = f"conditions: {name}={given:g} does nothing to {condition.on!r}: expected {expected}"
                raise ValueError(msg)

    def replace(self, **changes: object) -> Self:
        """A copy with other fields."""
        return replace(self, **changes)  # type: ignore[arg-type]  # checked at construction

    @property
    def disturbance(self) -> tuple[float, float] | None:
        """From when to when not all is well, or None where nothing goes wrong."""
        if not self.conditions:
            return None
        return min(one.begin for one in self.conditions), max(one.over for one in self.conditions)
