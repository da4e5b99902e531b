# SPDX-License-Identifier: MIT
"""The boot-time service: hands the machine over, applies what /etc/dom0kit says, and keeps it true through hotplug."""
