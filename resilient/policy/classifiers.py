"""The classifiers that policies can name without registering any: `"always"`, `"auto"` and `"http"`."""

from functools import cache
from importlib import import_module
from typing import Final

from resilient.errors import Rejected
from resilient.outcome import Classifier, Health, Kind, Verdict, own_word, retry_after_of

__all__ = ("ALWAYS", "AUTO", "http")

_MISTAKES: Final = (
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    NotImplementedError,
    SyntaxError,
    TypeError,
)
_MISTAKE: Final = Verdict(Kind.PERMANENT, Health.NEUTRAL, "programming_error")


def _retry(error: Exception) -> Verdict | None:
    if isinstance(error, Rejected):
        return None  # nothing was sent, and trying again at once would be refused again
    return own_word(error) or Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "retryable_error", retry_after_of(error))


def _no_mistake(error: Exception) -> Verdict | None:
    return _MISTAKE if isinstance(error, _MISTAKES) and own_word(error) is None else None


ALWAYS: Final = Classifier(_retry)
"""Every exception of the callee is retried, unless it says of itself that it must not be (`retryable = False`)."""


@cache
def http() -> Classifier | None:
    """HTTP outcomes by the tables of the transport; None where the integrations are not installed."""
    try:
        module = import_module("resilient_integrations._http.outside")
    except ModuleNotFoundError:
        return None
    found: Classifier = module.HTTP
    return found


def _http_errors(error: Exception) -> Verdict | None:
    tables = http()
    return None if tables is None else tables.errors(error)


def _http_values(value: object) -> Verdict | None:
    if not hasattr(value, "status_code"):
        return None
    tables = http()
    return None if tables is None or tables.values is None else tables.values(value)


AUTO: Final = Classifier(_http_errors, _http_values) | Classifier(_no_mistake) | ALWAYS
"""HTTP outcomes by the tables of the transport; mistakes in a program (a `TypeError`, a `KeyError`) are not retried; every other
exception is, unless it says of itself that it must not be."""
