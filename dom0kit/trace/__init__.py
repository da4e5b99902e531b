# SPDX-License-Identifier: MIT
"""Interrupts, hotplug and hypercalls as they happen, each joined with what the Platform knows of it."""
