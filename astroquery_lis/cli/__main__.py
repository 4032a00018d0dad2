"""``python -m astroquery_lis.cli`` is ``astroquery-lis``."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
