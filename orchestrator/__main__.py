"""`python -m orchestrator` runs the command line, as `mergefront` does."""

import sys

from orchestrator.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
