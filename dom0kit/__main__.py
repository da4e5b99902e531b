# SPDX-License-Identifier: MIT
"""``python -m dom0kit``: the same as the command ``dom0kit``."""

import sys

from dom0kit.cli import main

if __name__ == "__main__":
    sys.exit(main())
