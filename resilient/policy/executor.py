"""Resilience: the executor. It asks a provider which policy a key has, keeps a pipeline for each key, and runs calls in it.

The way of a call is short: look up the entry of its key, ask the provider whether the same policy is still valid (by identity),
run the pipeline. Everything else is off that way: a key that is new, a policy that is another one, a provider that must be
awaited, an override. A call that has begun keeps the pipeline that it began with.

All mutable state: the entries by key, bounded as in `Keyed`; where these are used up, those of keys that share one, by policy.
"""

import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from typing import Any, Final, Literal, ParamSpec, TypeVar, get_args

from resilient import clock
from resilient.context import Attempt, current
from resilient.errors import BudgetDenied, NoClassifier, NoPolicy, ProviderError
from resilient.observe.events import CallStarted, PolicyApplied
from resilient.observe.listeners import Listener, ears, emit, listening, sink
from resilient.observe.timeline import Timeline, record_timeline
from resilient.outcome import Classifier, Outcome
from resilient.parts import Part
from resilient.pipeline import Pipeline
from resilient.policy.cooking import cook
from resilient.policy.entries import NO_POLICY, UNSEEN, Denial, Entries, Entry, states_of
from resilient.policy.key import PolicyKey
from resilient.policy.names import BudgetRef, Names, Share
from resilient.policy.override import block_here, open_blocks
from resilient.policy.providers.base import NOT_FOUND, Provider
from resilient.policy.providers.static import StaticProvider
from resilient.policy.schema import Policy
from resilient.strategies.base import Step, Strategy, watched
from resilient.strategies.budget import Budget, UnlimitedBudget
from resilient.strategies.latency import Trigger

__all__ = ("MissingBudget", "MissingClassifier", "MissingPolicy", "MissingTrigger", "Protected", "Resilience", "current_policy")

P = ParamSpec("P")
T = TypeVar("T")

MissingPolicy = Literal["fallback", "allow", "deny"]
MissingBudget = Literal["deny", "allow", "allow_unsafe"]
MissingClassifier = Literal["fallback", "deny"]
MissingTrigger = Literal["fallback", "deny"]

_NAME: Final = "resilience"
_SHARED: Final = 64
"""How many policies may have an entry of their own for keys that share one."""
_STALE: Final = object()
"""What an entry has seen whose policy is to be looked at again."""


class Resilience:
    """Runs calls by key: `await resilience.call("user-service.GetUser", fetch_user, 42)`.

    Args:
        policies: from keys to policies; for more than that give a `provider`.
        provider: hands out the policy of a key, in place of `policies`.
        classifiers: classifiers by name, beside `"auto"`, `"always"` and `"http"`.
        budgets: budgets by name, beside `"unlimited"`. Those who name the same one share it.
        triggers: triggers of hedges by name, beside `"fixed_delay"`, `"p50"`, `"p90"`, `"p95"` and `"p99"`.
        default_classifier: says what outcomes mean where a policy does not (default `"auto"`).
        listeners: hear the events of this executor's calls, beside those of `add_listener` and `listening`.
        missing_policy: what to do where the provider has no policy for a key or cannot be asked: `"fallback"` (default) to
            `Policy.default()`, `"allow"` one attempt and nothing else, `"deny"` with `NoPolicy`.
        missing_budget: what to do where a policy names a budget that nobody has registered: `"deny"` (default) with
            `BudgetDenied`, `"allow"` or `"allow_unsafe"` retries that nobody pays for. Either is recorded, the second for those
            who want it to be seen in reviews.
        missing_classifier: the same for classifiers: `"fallback"` (default) to the default one, `"deny"` with `NoClassifier`.
        missing_trigger: the same for triggers: `"fallback"` (default) to a fixed delay, `"deny"` hedges.
        max_keys: how many keys may have state of their own at a time, at least 1 (default 10 000). Only keys whose state
            equals a fresh one are forgotten; where there are none, new keys share one state for each policy.

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of range, at construction.

    """

    def __init__(
        self,
        *,
        policies: Mapping[str, Policy] | None = None,
        provider: Provider | None = None,
        classifiers: Mapping[str, Classifier] | None = None,
        budgets: Mapping[str, Budget] | None = None,
        triggers: Mapping[str, Trigger] | None = None,
        default_classifier: Classifier | str = "auto",
        listeners: Iterable[Listener] = (),
        missing_policy: MissingPolicy = "fallback",
        missing_budget: MissingBudget = "deny",
        missing_classifier: MissingClassifier = "fallback",
        missing_trigger: MissingTrigger = "fallback",
        max_keys: int = 10_000,
    ) -> None:
        if policies is not None and provider is not None:
            msg = "policies= and provider= both say where policies come from: give one of them"
            raise TypeError(msg)
        self.provider: Provider = provider if provider is not None else StaticProvider(policies)
        self.names = Names(classifiers=classifiers, budgets=budgets, triggers=triggers)
        for registry in (self.names.classifiers, self.names.budgets, self.names.triggers):
            registry.changed = self._look_again
        self.default_classifier = self.names.classifier(default_classifier)
        self.missing_policy: MissingPolicy = _mode("missing_policy", missing_policy, MissingPolicy)
        self.missing_budget: MissingBudget = _mode("missing_budget", missing_budget, MissingBudget)
        self.missing_classifier: MissingClassifier = _mode("missing_classifier", missing_classifier, MissingClassifier)
        self.missing_trigger: MissingTrigger = _mode("missing_trigger", missing_trigger, MissingTrigger)
        self._default = Policy.default().replace(source="default")
        self._listeners = tuple(listeners)
        self._entries = Entries(max_keys)
        self._shared = Entries(_SHARED)
        self._find = self._entries.find
        self._current = self.provider.current

    # Calls

    def call(self, key: str, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """Call `fn(*args, **kwargs)` under the policy of the key.

        The key says what is called, e.g. `"user-service.GetUser"`: of low cardinality, never an id.

        Raises:
            NoPolicy, NoClassifier, BudgetDenied: the executor was told to deny such calls.
            Rejected, TimeoutExceeded: as the strategies of the policy do; else what the callee raises.

        """
        entry = self._find(key)
        if entry is None or open_blocks or self._current(entry.key) is not entry.seen:
            return self._call_slowly(key, fn, args, kwargs)
        attempt = Attempt(fn, args, kwargs)
        attempt.key = entry.name
        attempt.siblings = entry.siblings
        attempt.plain = False
        if self._listeners or (ears and sink()):
            return self._watched(entry, attempt)
        attempt.classifier = entry.classifier
        return entry.step(attempt)

    async def _call_slowly(self, key: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = PolicyKey.parse(key)
        entry = await self._entry(name)
        attempt = Attempt(fn, args, kwargs)
        attempt.key = str(name)
        attempt.siblings = entry.siblings
        attempt.plain = False
        if self._listeners or (ears and sink()):
            return await self._watched(entry, attempt)
        return await entry.pipeline.start(attempt)

    async def _watched(self, entry: Entry, attempt: Attempt) -> Any:
        """A call that somebody listens to."""
        with contextlib.ExitStack() as stack:
            for listener in self._listeners:
                stack.enter_context(listening(listener))
            emit(sink(), CallStarted(at=clock.now(), key=attempt.key, call_id=attempt.identify(), **entry.facts))
            return await watched(entry.pipeline, attempt)

    def protect(self, key: str) -> "Protected":
        """Decorate an async function, or an async generator function, to run under the policy of the key.

        `@resilience.protect("user-service.GetUser")` keeps the signature.
        """
        return Protected(lambda: self, key)

    async def call_with_timeline(
        self, key: str, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[Outcome[T], Timeline]:
        """As `call`, and gives what happened too, however it ended: `outcome, timeline = await ...`.

        It does not raise what the callee raises: that is `outcome.error`, and `outcome.unwrap()` raises it. Cancellation always
        propagates.
        """
        with record_timeline() as timeline:
            try:
                return Outcome(await self.call(key, fn, *args, **kwargs)), timeline
            except Exception as error:  # noqa: BLE001  it is the outcome
                return Outcome(error=error), timeline

    # What there is

    def pipeline(self, key: str) -> Pipeline:
        """The pipeline that calls of the key run in now, e.g. to open its breaker by hand.

        Raises:
            LookupError: none was made yet: the provider must be awaited first, or calls of the key are denied.

        """
        name = PolicyKey.parse(key)
        found = self._current(name)
        entry = self._find(name)
        if found is not None and (entry is None or entry.seen is not found):
            entry = self._applied(name, found, "policy_not_found" if found is NOT_FOUND else "")
        if entry is None or not isinstance(entry.pipeline, Pipeline):
            msg = f"there is no pipeline for {str(name)!r}: call it once, and see whether it is denied"
            raise LookupError(msg)
        return entry.pipeline

    def statistics(self) -> dict[str, dict[str, Any]]:
        """A snapshot for each key: the statistics of each part of its policy that has some, by the name of the field."""
        seen: dict[str, dict[str, Any]] = {key: {} for key in self._entries}
        for key, name, part in self.parts():
            seen[key][name] = part.statistics()
        return seen

    def parts(self) -> Iterator[Part]:
        """What has a state in the policies of all keys, by the name of the field: see `parts_of`."""
        for key in self._entries:
            for name, part in self._entries[key].counted.items():
                yield Part(key, name, part)

    def __repr__(self) -> str:
        return f"<Resilience: {len(self._entries)} keys, {self.provider!r}>"

    # Which policy applies

    async def _entry(self, key: PolicyKey) -> Entry:
        """The entry of a key, with the policy that is valid now."""
        block = block_here()
        overridden = block.policy_of(key) if block is not None else None
        if overridden is not None:
            by, policy = overridden
            entries: Entries = by.state.setdefault(self, Entries(self._entries.max_keys))
            return self._applied(key, policy, "", entries)
        found = self._current(key)
        error = "policy_not_found"
        if found is None:
            try:
                found = await self.provider.load(key)
            except Exception as raised:  # noqa: BLE001  a broken provider is one that has no policy
                found = NOT_FOUND
                error = raised.kind if isinstance(raised, ProviderError) else "provider_raised"
        return self._applied(key, found, error if found is NOT_FOUND else "")

    def _applied(self, key: PolicyKey, found: Policy, error: str, entries: Entries | None = None) -> Entry:
        """The entry of a key, brought up to what the provider found."""
        entries = self._entries if entries is None else entries
        name = str(key)  # a dictionary is faster where all its keys are plain texts
        entry = entries[name]
        if name not in entries:  # there is no room for it: it shares an entry with others of the same policy
            entry = self._shared[str(id(found))]
        else:
            entry.key, entry.name = key, name
        if entry.seen is not found or entry.error != error:
            self._apply(entry, found, error, overridden=entries is not self._entries)
        return entry

    def _apply(self, entry: Entry, found: Policy, error: str, *, overridden: bool) -> None:
        """Make a pipeline of a policy. What only has other settings goes on with its state."""
        policy, mode = found, ""
        if found is NOT_FOUND:
            mode = self.missing_policy
            policy = self._default if mode == "fallback" else Policy(source="default")
        missing: list[tuple[str, str, str]] = []
        before, parts, was_seen = entry.parts, entry.parts, entry.seen is not UNSEEN
        pipeline: Strategy
        if mode == "deny":
            pipeline = Denial(lambda: NoPolicy(_NAME, None, error))
        else:
            try:
                classifier = self._classifier(policy, missing)
                policy = self._with_trigger(policy, missing)
                parts = cook(
                    policy,
                    self.names,
                    used=before,
                    find_budget=lambda ref: self._budget(ref, missing),
                    key=entry.name or None,  # those that share an entry have none
                )
                pipeline = Pipeline(*parts.values(), classify=classifier)
            except (NoClassifier, BudgetDenied) as denied:
                kind, name = type(denied), denied.name
                pipeline = Denial(lambda: kind(_NAME, None, name))
        source = "override" if overridden else policy.source
        entry.facts = {
            "policy_id": policy.id,
            "policy_source": source,
            "policy_error": error,
            "missing_policy_mode": mode,
            "clamped_fields": policy.normalisation.fields,
            "missing": tuple(missing),
        }
        entry.siblings = (((NO_POLICY,), (policy,)),)
        entry.step, entry.classifier = pipeline.start, None
        if isinstance(pipeline, Pipeline):
            entry.step, entry.classifier = pipeline.step, pipeline.classifier
        entry.seen, entry.error, entry.policy, entry.parts, entry.pipeline = found, error, policy, parts, pipeline
        if was_seen:
            self._tell_applied(entry, source, before)

    def _tell_applied(self, entry: Entry, source: str, before: Mapping[str, Strategy]) -> None:
        if not (self._listeners or (ears and sink())):
            return
        states, old = states_of(entry.parts), states_of(before)
        kept = tuple(name for name, state in states.items() if state is old.get(name))
        made = tuple(name for name in states if name not in kept)
        event = PolicyApplied(
            at=clock.now(), key=entry.name, policy_id=entry.policy.id, policy_source=source, kept=kept, made=made
        )
        emit((*sink(), *self._listeners), event)

    def _classifier(self, policy: Policy, missing: list[tuple[str, str, str]]) -> Classifier:
        named = policy.classifier
        if named is None:
            return self.default_classifier
        found = named if isinstance(named, Classifier) else self.names.classifiers.get(named)
        if found is not None:
            return found
        missing.append(("classifier", str(named), self.missing_classifier))
        if self.missing_classifier == "deny":
            raise NoClassifier(_NAME, None, str(named))
        return self.default_classifier

    def _budget(self, ref: BudgetRef, missing: list[tuple[str, str, str]]) -> Budget:
        found = self.names.budgets.get(ref.name)
        if found is not None:
            return Share(ref.name, found, ref.cost)
        missing.append(("budget", ref.name, self.missing_budget))
        if self.missing_budget == "deny":
            raise BudgetDenied(_NAME, None, ref.name)
        return Share(ref.name, UnlimitedBudget(), ref.cost, self.missing_budget)

    def _with_trigger(self, policy: Policy, missing: list[tuple[str, str, str]]) -> Policy:
        name = policy.hedge_trigger
        if name is None or policy.hedge is None or self.names.triggers.get(name) is not None:
            return policy
        missing.append(("trigger", name, self.missing_trigger))
        if self.missing_trigger == "deny":
            return policy.replace(hedge=None)
        return policy.replace(hedge_trigger="fixed_delay")

    def _look_again(self) -> None:
        """Something was registered: names may now mean something else."""
        for entry in (*self._entries.all(), *self._shared.all()):
            entry.seen = _STALE


class Protected(Strategy):
    """A decorator, and a strategy: what it wraps runs under the policy of a key."""

    __slots__ = ("_executor", "key")

    def __init__(self, executor: Callable[[], Resilience], key: str) -> None:
        self._executor = executor
        self.key = str(PolicyKey.parse(key))

    def begin(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Coroutine[Any, Any, Any]:
        return self._executor().call(self.key, fn, *args, **kwargs)

    async def run(self, call: Step, attempt: Attempt) -> Any:
        deadline = attempt.deadline
        try:
            return await self._executor().call(self.key, call, attempt)
        finally:
            attempt.deadline = deadline  # that of our own call is none of those around us

    def __repr__(self) -> str:
        return f"<protect {self.key!r}>"


def current_policy() -> Policy | None:
    """The policy of the call that runs now, or None outside of an executor's calls: its `id`, or how many attempts it allows."""
    attempt = current()
    policy = None if attempt is None else attempt.sibling(NO_POLICY)
    return None if policy is NO_POLICY else policy


def _mode(name: str, value: Any, modes: Any) -> Any:
    allowed = get_args(modes)
    if value not in allowed:
        msg = f"{name}={value!r}: expected one of {', '.join(map(repr, allowed))}"
        raise ValueError(msg)
    return value
