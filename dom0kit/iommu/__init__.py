# SPDX-License-Identifier: MIT
"""IOMMU facts: DMAR and IVRS scopes resolved to PCI functions, reserved memory, interrupt remapping."""
