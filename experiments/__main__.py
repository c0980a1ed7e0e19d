"""``python -m experiments``."""

import sys

if __name__ == "__main__":
    # Not above: every process that runs trials imports this file under another name.
    from experiments.cli import main

    sys.exit(main())
