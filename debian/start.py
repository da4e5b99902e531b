#!/usr/bin/python3 -I
# SPDX-License-Identifier: MIT
"""dom0kit, with the libraries that lie beside it."""

import sys

sys.path.insert(0, "/usr/lib/dom0kit")

from dom0kit.cli import main

sys.exit(main())
