"""``python -m astroquery_lis`` is ``astroquery-lis``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
