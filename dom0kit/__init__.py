# SPDX-License-Identifier: MIT
"""dom0kit: the dom0 half of a hypervisor that owns only APICs and vectors.

Nothing is imported here: ``dom0kit --version`` must cost no more than Python itself.
"""

__version__ = "0.1.0"
