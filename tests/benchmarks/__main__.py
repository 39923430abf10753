"""The command: `python tests/benchmarks [--only GROUP] [--rounds N] [--json FILE] [--quick]`."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # this folder is a package: its files are not top-level modules

from benchmarks.command import main  # noqa: E402  only now can it be found

if __name__ == "__main__":
    main()
