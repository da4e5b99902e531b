# SPDX-License-Identifier: MIT
"""Recipes of the recordings that the package ships in dom0kit/recordings/."""
