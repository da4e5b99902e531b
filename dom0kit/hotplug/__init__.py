# SPDX-License-Identifier: MIT
"""Functions and IOAPICs come and go: watched, understood (a Platform from the one before), reconciled with the plan."""
