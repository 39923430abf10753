"""The key of a call."""

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.policy.key import PolicyKey


@pytest.mark.parametrize(
    ("text", "namespace", "name"),
    [
        ("user-service.GetUser", "user-service", "GetUser"),
        ("  user-service . GetUser ", "user-service", "GetUser"),
        ("db.Users.Query", "db", "Users.Query"),
        ("GetUser", "", "GetUser"),
        ("svc.", "", "svc."),
        ("svc. ", "", "svc."),
        (".x", "", "x"),
        (".a.b", "", "a.b"),
        ("", "", ""),
        ("  ", "", ""),
        (".", "", "."),
        ("..", "", "."),
    ],
)
def test_a_text_is_split_at_the_first_dot(text: str, namespace: str, name: str) -> None:
    """Both parts are trimmed; without a second part the whole text is the name."""
    key = PolicyKey.parse(text)

    assert (key.namespace, key.name) == (namespace, name)


def test_a_key_is_its_text() -> None:
    """It can be used wherever a text can, and the other way round."""
    key = PolicyKey("user-service", "GetUser")

    assert key == "user-service.GetUser"
    assert {"user-service.GetUser": 1}[key] == 1
    assert str(key) == "user-service.GetUser"
    assert repr(key) == "PolicyKey('user-service', 'GetUser')"


def test_a_name_with_a_dot_is_not_taken_for_a_namespace() -> None:
    """The text of a key is that of no other one."""
    assert PolicyKey("", "a.b") == ".a.b"
    assert PolicyKey("", "a.b") != PolicyKey("a", "b")
    assert PolicyKey("", "plain") == "plain"


@given(st.text(), st.text())
def test_the_text_of_a_key_names_it_and_no_other(first: str, second: str) -> None:
    """Whatever the text: its key is written in a way that is read as the same key, with the same parts."""
    key, other = PolicyKey.parse(first), PolicyKey.parse(second)

    assert PolicyKey.parse(str(key)) == key
    assert (PolicyKey.parse(str(key)).namespace, PolicyKey.parse(str(key)).name) == (key.namespace, key.name)
    assert (key == other) == ((key.namespace, key.name) == (other.namespace, other.name))


@given(st.text())
def test_a_key_survives_being_copied(text: str) -> None:
    """Pickled, or deep-copied in a settings object."""
    key = PolicyKey.parse(text)
    pickled: object = pickle.loads(pickle.dumps(key))  # noqa: S301  our own

    assert pickled == copy.deepcopy(key) == key


@pytest.mark.parametrize(
    ("namespace", "name", "message"), [("a.b", "c", "namespace='a.b': a namespace has no dot"), ("svc", " ", "name=''")]
)
def test_parts_that_make_no_key_are_refused(namespace: str, name: str, message: str) -> None:
    """The error names the part, and what to do."""
    with pytest.raises(ValueError, match=message):
        PolicyKey(namespace, name)


def test_what_is_no_text_is_refused() -> None:
    """The error shows what a key looks like."""
    with pytest.raises(TypeError, match=r"key=5: expected a text like 'user-service\.GetUser'"):
        PolicyKey.parse(5)  # type: ignore[arg-type]  # that is the point
