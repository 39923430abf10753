"""The command: `python tests/mutation [MODULE ...]`."""

import sys
from pathlib import Path

_TESTS = Path(__file__).parents[1]
sys.path[:1] = [str(_TESTS), str(_TESTS.parent), str(_TESTS.parent / "integrations")]  # this folder is a package

from mutation.run import main  # noqa: E402  only now can it be found

if __name__ == "__main__":
    main()
