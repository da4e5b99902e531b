# SPDX-License-Identifier: MIT
"""IOAPIC facts: controllers and their GSI ranges, redirection entries, the way from an INTx pin to a GSI."""
