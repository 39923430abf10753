"""A document as it was read at one time: what providers swap in a single assignment, so that nobody sees half of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

from resilient.errors import InvalidPolicy, Problem
from resilient.policy.document import PolicyDocument, load_document
from resilient.policy.fields import Bounds
from resilient.policy.formats import Format
from resilient.policy.providers.static import StaticProvider

__all__ = ("LARGEST", "Snapshot")

LARGEST: Final = 1_000_000
"""Bytes of a document. A thousand policies are a tenth of it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A document as it was read at one time.

    Attributes:
        text: what was read.
        document: what it says.
        policies: the same, by key.
        source: where its policies say that they come from.

    """

    text: bytes
    document: PolicyDocument
    policies: StaticProvider
    source: str

    @classmethod
    def read(cls, text: bytes, format: Format, bounds: Mapping[str, Bounds] | None, source: str) -> Self:  # noqa: A002  the word that users know
        """Make one from text. It changes nothing, and may run in a thread.

        Raises:
            InvalidPolicy: it is bad, or too large.

        """
        if len(text) > LARGEST:
            raise InvalidPolicy((Problem((), f"too large: more than {LARGEST} bytes"),))
        document = load_document(text, format, bounds=bounds, source=source)
        return cls(text, document, StaticProvider(document.policies, default=document.default), source)

    def come_from(self, source: str) -> Self:
        """The same policies, which say that they come from elsewhere."""
        if source == self.source:
            return self
        document = self.document
        default = document.default and document.default.replace(source=source)
        policies = {key: policy.replace(source=source) for key, policy in document.policies.items()}
        return replace(self, policies=StaticProvider(policies, default=default), source=source)
