"""`python -m capstan` is the `capstan` command."""

import sys

from capstan.cli import main

if __name__ == "__main__":
    sys.exit(main())
