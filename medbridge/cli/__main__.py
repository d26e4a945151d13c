"""``python -m medbridge.cli``, for launchers that start a module in several processes."""

import sys

from medbridge.cli.app import main

sys.exit(main())
