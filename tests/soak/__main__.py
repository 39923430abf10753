"""The command: `python tests/soak [--minutes N] [--seed N]`."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # this folder is a package: its files are not top-level modules
sys.path.insert(1, str(Path(__file__).parents[2] / "integrations"))

from soak.run import main  # noqa: E402  only now can it be found

if __name__ == "__main__":
    sys.exit(main())
