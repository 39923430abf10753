"""`resilient explain`: what policies build, as text."""

from pathlib import Path

import pytest

from resilient import (
    AdaptiveLimit,
    AdaptiveRate,
    BudgetRef,
    Bulkhead,
    Chaos,
    CircuitBreaker,
    CountWindow,
    Fallback,
    Hedge,
    LeakyBucket,
    Policy,
    Retry,
    RetryBudget,
    SlidingWindow,
    Strategy,
    Throttle,
    TokenBucket,
    TokenBudget,
)
from resilient.cli import main
from resilient.cli.explain_words import breaker_words, budget_words, classifier_words, seconds, settings_changed, words
from resilient.policy.presets import PRESETS

ROOT = Path(__file__).parents[2]
EXAMPLE = str(ROOT / "docs" / "example-policies.toml")


def explained(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    path = tmp_path / "policies.toml"
    path.write_text(text)

    assert main(["explain", str(path), *arguments]) == 0
    return capsys.readouterr().out.replace(f"{tmp_path}/", "")


def test_a_policy_is_explained_in_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its pipeline as a tree, the waits as a table and bars, the worst case, and the rest in words."""
    text = """
[policies."user-service.GetUser"]
id = "v2"
classifier = "http"
timeout = "8s"
attempt_timeout = "2s"

[policies."user-service.GetUser".retry]
attempts = 40
backoff = { initial = "200ms", factor = 2, maximum = "1s", jitter = "equal" }
budget = { ratio = 0.1 }

[policies."user-service.GetUser".hedge]
delay = "500ms"

[policies."user-service.GetUser".circuit_breaker]
slow_call = "1.5s"
"""

    assert (
        explained(tmp_path, text, capsys)
        == """\
user-service.GetUser (policies.toml:2, id 'v2')

the pipeline, outermost first (* is not the default)
timeout                  the whole call, waits included, is cut off after 8 s
└ retry                  up to 10 attempts; a server may ask for waits of up to 60 s
  │                      * attempts 10 (default 3), backoff.initial 200 ms (default 100 ms),
  │                        backoff.maximum 1 s (default 5 s), backoff.jitter equal (default full),
  │                        budget.ratio 0.1 (default 0.2)
  └ hedge                an attempt that takes longer than 500 ms gets company, 1 hedge at most; the first
    │                    answer wins
    │                    * delay 500 ms (default none)
    └ circuit_breaker    opens when at least 20 calls in 10 s and half failed or half took 1.5 s or longer;
      │                  is open for 5 s, each time 2 times as long, up to 60 s; closes after a good probe, 1
      │                  probe at a time
      │                  * slow_call 1.5 s (default none), slow_rate 0.5 (default none)
      └ attempt_timeout  each attempt is cut off after 2 s
        └ the call

the waits before retries: exponential, equal jitter
retry   shortest    typical    longest
    1     100 ms     150 ms     200 ms      =--
    2     200 ms     300 ms     400 ms         ====---
    3     400 ms     600 ms     800 ms                ========-------
    4     500 ms     750 ms        1 s                    =========---------
    5     500 ms     750 ms        1 s                    =========---------
    6     500 ms     750 ms        1 s                    =========---------
    7     500 ms     750 ms        1 s                    =========---------
    8     500 ms     750 ms        1 s                    =========---------
    9     500 ms     750 ms        1 s                    =========---------
  all      3.7 s     5.55 s      7.4 s

the worst case of one call
attempts      20: 10 by retry, each with up to 1 hedge
duration      8 s: bounded by timeout

in words
outcomes      'http': the tables for HTTP: status codes, errors of the network, and what is safe
              to send again
retry budget  pays for 10 % of the first attempts of the last 10 s, and for 10 a second in any
              case
hedge budget  none: nothing bounds how many calls do it at the same time
clamped       retry.attempts: 40 is out of bounds and is brought into them when the document is
              read. Give 1 to 10 (how many in total).
lint          note attempts-beyond-timeout at timeout > retry: 10 attempts of up to 2 s and waits
              of up to 7.4 s in all take 27.4 s, but there are 8 s: where each of them is slow,
              the last ones are not made or are cut off. Where all should be made, allow 27.4 s,
              or take fewer attempts, or a shorter timeout for each.
"""
    )


def test_several_policies_have_an_overview(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each, then each of them in full."""
    assert main(["explain", EXAMPLE]) == 0

    told = capsys.readouterr().out
    head, *blocks = told.split("\n\n\n")
    rows = head.splitlines()[3:]
    assert head.startswith(f"{EXAMPLE}, version 12: 5 policies\n\nkey ")
    assert [row.split()[0] for row in rows] == [block.split()[0] for block in blocks]
    assert rows[1].split(maxsplit=4) == [
        "user-service.GetUser",
        "6",
        "8",
        "s",
        "timeout > retry > hedge > rate_limit > circuit_breaker > bulkhead > attempt_timeout",
    ]


def test_a_key_chooses_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Its own policy, or else the default, as a provider does; `default` names that one."""
    for key, begin in (
        ("orders-db.FindOrder", f"orders-db.FindOrder ({EXAMPLE}:"),
        ("nobody.Knows", f"default (what 'nobody.Knows' gets, {EXAMPLE}:"),
        ("default", f"default ({EXAMPLE}:"),
    ):
        assert main(["explain", EXAMPLE, key]) == 0
        assert capsys.readouterr().out.startswith(begin)


def test_a_key_without_a_policy_and_no_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A clear line, which guesses what was meant."""
    path = tmp_path / "policies.json"
    path.write_text('{"policies": {"user-service.GetUser": {}}}')

    assert main(["explain", str(path), "user-service.GetUsers"]) == 2
    assert capsys.readouterr().err == (
        f"resilient explain: {path}: no policy for the key 'user-service.GetUsers', and no default; "
        "did you mean 'user-service.GetUser'?\n"
    )


def test_a_document_that_is_not_valid_is_not_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong is told as `check` does."""
    path = tmp_path / "policies.toml"
    path.write_text("[default]\nretry = { attempts = 'x' }\n")

    assert main(["explain", str(path)]) == 1
    assert capsys.readouterr().out == (
        f"{path}:2: error invalid default.retry.attempts: 'x': expected a whole number\n"
        "nothing is explained before that is mended\n"
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_explained(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without any file."""
    assert main(["explain", "--preset", preset]) == 0

    told = capsys.readouterr().out
    assert told.startswith(f"{preset} (the preset {preset})\n\nthe pipeline")
    assert "the waits before retries: exponential" in told


def test_a_file_or_a_preset_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    """And not both."""
    assert main(["explain"]) == 2
    assert main(["explain", EXAMPLE, "--preset", "http"]) == 2
    assert capsys.readouterr().err == "resilient explain: give either FILE or --preset\n" * 2


def test_a_policy_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Is told as such; also in an overview."""
    told = explained(tmp_path, '[policies."a.b"]\n[default]\n', capsys)

    assert "a.b             1   no limit  nothing\n" in told
    assert "the pipeline, outermost first (* is not the default)\nthe call\n\nthe worst case" in told
    assert "attempts      1: the call itself\n" in told
    assert "the waits" not in told


@pytest.mark.parametrize(
    ("policy", "bound"),
    [
        ('preset = "http"', "no limit: nothing here cuts off an attempt that hangs; a timeout of the callee's may"),
        ("attempt_timeout = 2\nrate_limit = { rate = 5 }", "no limit: nothing limits the wait for a turn"),
        ("timeout = 2\nattempt_timeout = 2", "2 s: bounded by timeout and attempt_timeout"),
        ("attempt_timeout = 2\nretry = { timeout = 3 }", "5 s: bounded by attempt_timeout and retry.timeout"),
        ("timeout = 300", "5 min: bounded by timeout"),
    ],
)
def test_what_bounds_the_duration(policy: str, bound: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The limits without which a call could take longer."""
    assert f"duration      {bound}\n" in explained(tmp_path, f"[default]\n{policy}\n", capsys)


def test_waits_without_jitter_and_of_no_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to draw between two ends that are the same."""
    text = '[default.retry.backoff]\nkind = "constant"\ndelay = "1s"\njitter = "none"\n'

    told = explained(tmp_path, text, capsys)

    assert "the waits before retries: constant, no jitter\n" in told
    assert "    1        1 s        1 s        1 s\n" in told


def test_a_single_attempt_has_no_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And no table of them."""
    told = explained(tmp_path, "[default.retry]\nattempts = 1\n", capsys)

    assert "one attempt: nothing is tried again" in told
    assert "the waits" not in told


def test_a_terminal_gets_bars_and_colours(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The tree and the table are those of plain text."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)

    main(["explain", EXAMPLE])

    told = capsys.readouterr().out
    assert "█░" in told.replace("\x1b[0m\x1b[32m", "")
    assert "\x1b[36mretry\x1b[0m" in told


# Words


@pytest.mark.parametrize(
    ("strategy", "told"),
    [
        (Retry(timeout=6, max_retry_after=3), "up to 3 attempts, none begun after 6 s; a server may ask for waits of up to 3 s"),
        (Hedge(0.2), "an attempt that takes longer than 200 ms gets company, 1 hedge at most; the first answer wins"),
        (
            Hedge(percentile=0.99, max_hedges=2),
            "an attempt that takes longer than 99 % of the calls of late gets company, 2 hedges at most; the first answer wins",
        ),
        (
            Throttle(),
            (
                "refuses what the service would refuse: some of what is more than 2 times as much as it accepted within 10 s, "
                "90 % of it at most"
            ),
        ),
        (TokenBucket(100), "100 calls in 1 s, 100 at once; further ones wait"),
        (TokenBucket(1, per=60, max_wait=0), "1 call in 60 s, 1 at once; further ones are refused"),
        (
            SlidingWindow(10, max_wait=0.5),
            "at most 10 calls in 1 s, estimated from two windows; further ones wait for up to 500 ms",
        ),
        (SlidingWindow(10, exact=True), "at most 10 calls in 1 s, counted one by one; further ones wait"),
        (LeakyBucket(5, capacity=7), "5 calls in 1 s, 7 at once; further ones are refused"),
        (LeakyBucket(5, shape=True), "5 calls in 1 s, evenly spaced; further ones wait"),
        (AdaptiveRate(50, floor=5), "as many as the server takes, from 5 to 50 calls in 1 s, 50 at first; further ones wait"),
        (Bulkhead(1), "at most 1 call at a time; further ones are refused"),
        (Bulkhead(9, max_queue=5), "at most 9 calls at a time; 5 further ones wait"),
        (
            AdaptiveLimit(max_queue=5, queue_timeout=0.2),
            "as many as the service takes, from 1 to 200 calls at a time, 20 at first; 5 further ones wait for up to 200 ms",
        ),
        (Chaos(fault=OSError, fault_rate=0.1), "10 % of the calls fail, on purpose"),
        (
            Chaos(fault=OSError, fault_rate=0.1, latency=1, latency_rate=0.2),
            "10 % of the calls fail and 20 % of the calls wait, on purpose",
        ),
        (Chaos(latency=1, latency_rate=0), "no call is changed, on purpose"),
        (Fallback([1]), "gives a list where the call failed"),
        (Fallback(None), "gives None where the call failed"),
    ],
    ids=repr,
)
def test_what_a_strategy_does_in_words(strategy: Strategy, told: str) -> None:
    """A sentence that is true of its settings."""
    assert words("x", strategy, Policy()) == told


def test_a_hedge_that_somebody_else_triggers() -> None:
    """By a name that the executor knows."""
    policy = Policy(hedge=Hedge(), hedge_trigger="p99")

    assert words("hedge", policy.parts["hedge"], policy).endswith("the first answer wins; 'p99' says when")


def test_a_limit_that_is_a_function() -> None:
    """Documents have none, code may."""
    policy = Policy(timeout=Policy(timeout=1).timeout, hedge=Hedge(lambda: 0.2))

    assert "longer than a time that a function says" in words("hedge", policy.parts["hedge"], policy)


@pytest.mark.parametrize(
    ("breaker", "told"),
    [
        (
            CircuitBreaker(),
            (
                "opens when at least 20 calls in 10 s and half failed; is open for 5 s, each time 2 times as long, up to 60 s; "
                "closes after a good probe, 1 probe at a time"
            ),
        ),
        (
            CircuitBreaker(consecutive_failures=1, open_for=60),
            "opens after 1 failure in a row; is open for 60 s; closes after a good probe, 1 probe at a time",
        ),
        (
            CircuitBreaker(
                window=CountWindow(50), failure_rate=0.25, consecutive_failures=5, slow_call=2, slow_rate=1, open_for_factor=1
            ),
            (
                "opens after 5 failures in a row, or when at least 20 calls of the last 50 and 25 % failed or 100 % took 2 s or "
                "longer; is open for 5 s; closes after a good probe, 1 probe at a time"
            ),
        ),
        (
            CircuitBreaker(consecutive_failures=5, open_for=60, half_open_calls=2, initial="monitor_only"),
            (
                "opens after 5 failures in a row; is open for 60 s; closes after 2 good probes, 2 probes at a time; it begins "
                "monitor-only"
            ),
        ),
    ],
)
def test_a_breaker_in_words(breaker: CircuitBreaker, told: str) -> None:
    """When it opens, for how long, and what closes it."""
    assert words("circuit_breaker", breaker, Policy()) == breaker_words(breaker.settings) == told


@pytest.mark.parametrize(
    ("budget", "told"),
    [
        (RetryBudget(ratio=0.05, floor=1), "pays for 5 % of the first attempts of the last 10 s, and for 1 a second in any case"),
        (TokenBudget(1), "pays with 1 token, 0 a second flow in"),
        (TokenBudget(50, 2), "pays with 50 tokens, 2 a second flow in"),
        (BudgetRef("shared"), "'shared': a budget that the executor must know"),
        (BudgetRef("shared", 2), "'shared', 2 for each attempt: a budget that the executor must know"),
        (None, "none: nothing bounds how many calls do it at the same time"),
    ],
)
def test_a_budget_in_words(budget: RetryBudget | TokenBudget | BudgetRef | None, told: str) -> None:
    """What pays, and with how much."""
    assert budget_words(budget) == told


def test_a_classifier_in_words() -> None:
    """Those that are built in are explained, others must be known to the executor."""
    assert classifier_words(Policy()).startswith("none named")
    assert classifier_words(Policy(classifier="always")).startswith("'always': every exception is tried again")
    assert classifier_words(Policy(classifier="mine")) == "'mine': a classifier that the executor must know"


def test_settings_that_are_the_defaults_are_not_told() -> None:
    """What must be given has no default; a window of calls has a name of its own."""
    assert list(settings_changed(CircuitBreaker(), "circuit_breaker")) == []
    assert list(settings_changed(TokenBucket(5), "rate_limit")) == []
    assert list(settings_changed(SlidingWindow(5, exact=True, name="x"), "rate_limit")) == [
        "name x (default sliding_window)",
        "exact True (default False)",
    ]
    assert list(settings_changed(CircuitBreaker(window=CountWindow(50)), "circuit_breaker")) == [
        "window 50 calls (default 10 s)",
    ]


@pytest.mark.parametrize(
    ("value", "told"), [(0.0, "0 ms"), (0.0125, "12.5 ms"), (0.25, "250 ms"), (1.5, "1.5 s"), (90.0, "90 s"), (300.0, "5 min")]
)
def test_durations_are_told_as_they_were_meant(value: float, told: str) -> None:
    """In the unit that a person would take."""
    assert seconds(value) == told
