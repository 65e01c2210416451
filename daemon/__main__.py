"""`python -m daemon` is `oarlock`."""

import sys

from daemon.cli import main

sys.exit(main())
