"""What differs between httpx and httpx2.

The two packages have the same names and the same contracts, and no common base class: a request, a stream or an exception
that crosses the boundary of a transport must be of the family of its client. A `Family` is made once, from the package; it
holds the classes that the engine builds things of, its own streams among them, as real subclasses.
"""

from typing import Any, Final

from resilient_integrations._http.bodies import OneShotBody
from resilient_integrations._http.exchange import BodyStream, UpgradedStream

__all__ = ("Family",)

_NAMES: Final = frozenset({"httpx", "httpx2"})


class Family:
    """One of the two packages, as the engine sees it.

    Args:
        package: the imported package, `httpx` or `httpx2`.

    """

    def __init__(self, package: Any) -> None:
        self.package = package
        self.name = _package_of(package.AsyncBaseTransport)
        self.response: Any = package.Response
        self.headers: Any = package.Headers
        self.byte_stream: Any = package.ByteStream
        self.one_shot_body: Any = type("OneShotBody", (OneShotBody, package.AsyncByteStream), {})
        self.body_stream: Any = type("BodyStream", (BodyStream, package.AsyncByteStream), {})
        self.upgraded_stream: Any = type("UpgradedStream", (UpgradedStream, package.AsyncByteStream), {})

    def check_transport(self, inner: object) -> None:
        """Refuse what this family's asynchronous client could not use.

        Raises:
            TypeError: it is no asynchronous transport, or one of the other family.

        """
        self.refuse_other("inner", inner)
        if not hasattr(inner, "handle_async_request"):
            msg = f"inner={inner!r}: expected an asynchronous transport, e.g. {self.name}.AsyncHTTPTransport()"
            raise TypeError(msg)

    def refuse_other(self, name: str, value: object) -> None:
        """Refuse an object of the other family.

        Raises:
            TypeError: it belongs to the other family.

        """
        others = {_package_of(base) for base in type(value).__mro__} & _NAMES - {self.name}
        for other in others:
            msg = (
                f"{name}={value!r} belongs to {other}, and this is the integration of {self.name}: "
                f"import from resilient_integrations.{other} instead"
            )
            raise TypeError(msg)


def _package_of(kind: type) -> str:
    return kind.__module__.partition(".")[0]
