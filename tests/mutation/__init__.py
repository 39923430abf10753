"""How good the tests are: they are tried on state machines that are broken in every small way."""
