"""``python -m crossfade``: the same commands as the ``crossfade`` script."""

import sys

from crossfade.serving.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
