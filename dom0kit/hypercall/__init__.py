# SPDX-License-Identifier: MIT
"""Effects: calls of a hypervisor, whichever it is."""
