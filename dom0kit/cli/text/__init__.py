# SPDX-License-Identifier: MIT
"""The text report of a machine, for people."""
