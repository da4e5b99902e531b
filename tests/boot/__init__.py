# SPDX-License-Identifier: MIT
"""hv_core as a type-1 hypervisor: stock Debian as its dom0, in QEMU."""
