"""The key of a call: which dependency, and which of its operations. Policies and state are kept by it."""

from typing import Self

__all__ = ("PolicyKey",)


class PolicyKey(str):  # a text, so that it can be used wherever a key is asked for, and costs nothing to look up
    """What is called, as a text `"namespace.name"`: `PolicyKey("user-service", "GetUser")`.

    It is a `str` and equals the same text; wherever a key is asked for either will do. It must be of low cardinality: the name
    of an operation, never an id, a URL or a tenant.

    The text is unambiguous: two keys are equal only where both parts are. A name with a dot of its own and no namespace is
    therefore written with a dot in front: `PolicyKey("", "a.b")` is `".a.b"`.

    Args:
        namespace: the service, without a dot; may be empty.
        name: the operation; may be empty only where the namespace is, too.

    Raises:
        ValueError: a namespace with a dot in it, or without a name.

    """

    __slots__ = ()

    def __new__(cls, namespace: str = "", name: str = "") -> Self:
        namespace, name = namespace.strip(), name.strip()
        if "." in namespace:
            msg = f"namespace={namespace!r}: a namespace has no dot in it; PolicyKey.parse() splits a text at the first dot"
            raise ValueError(msg)
        if namespace and not name:
            msg = f"name={name!r}: the namespace {namespace!r} needs a name; a key of one part is PolicyKey('', {namespace!r})"
            raise ValueError(msg)
        if namespace:
            return str.__new__(cls, f"{namespace}.{name}")
        return str.__new__(cls, name if _split(name) == ("", name) else f".{name}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key that a text names. It is split at the first dot, and both parts are trimmed.

        Without a dot, or with nothing after it (`"svc."`), the whole text is the name; `".x"` is the name `x`.
        """
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]  users pass what they have
            msg = f"key={text!r}: expected a text like 'user-service.GetUser', or a PolicyKey"
            raise TypeError(msg)
        return cls(*_split(text))

    @property
    def namespace(self) -> str:
        """The part before the first dot, or ""."""
        return _split(self)[0]

    @property
    def name(self) -> str:
        """The part after the first dot, or all of it where there is none."""
        return _split(self)[1]

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]  # of the constructor's own arguments, for pickle
        return _split(self)

    def __repr__(self) -> str:
        return f"PolicyKey({self.namespace!r}, {self.name!r})"


def _split(text: str) -> tuple[str, str]:
    text = text.strip()
    namespace, _, name = text.partition(".")
    namespace, name = namespace.strip(), name.strip()
    return (namespace, name) if name else ("", text)
