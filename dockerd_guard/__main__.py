"""`python3 -m dockerd_guard`, from a checkout."""

import sys

from dockerd_guard.cli import main

sys.exit(main())
