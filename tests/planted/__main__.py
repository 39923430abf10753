"""The command: `python tests/planted`."""

import sys
from pathlib import Path

sys.path[:1] = [str(Path(__file__).parents[1])]  # this folder is a package

from planted.run import main  # noqa: E402  only now can it be found

if __name__ == "__main__":
    sys.exit(main())
