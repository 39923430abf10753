"""The soak: `python tests/soak` from a clone. See docs/testing.md."""
