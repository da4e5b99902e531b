# SPDX-License-Identifier: MIT
"""ACPI facts: static tables, the namespace as an AML interpreter sees it, resources, interrupt routing."""
