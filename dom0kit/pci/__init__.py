# SPDX-License-Identifier: MIT
"""PCI facts: config space, capabilities, the tree of buses, isolation."""
