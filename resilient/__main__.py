"""`python -m resilient`: the command line."""

import sys

from resilient.cli import main

if __name__ == "__main__":
    sys.exit(main())
