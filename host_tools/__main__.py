"""`python -m edgepost` is the `edgepost` command."""

import sys

from .cli import main

sys.exit(main())
