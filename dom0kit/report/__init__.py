# SPDX-License-Identifier: MIT
"""A machine to look at: one HTML file with everything in it, no network, readable without a mouse and on paper.

    from dom0kit.report.page import page

    text = page(platform, findings)    # str, the whole file; with a partition's domains these are in colour, too

All of it is written as text; ``report.js`` only hides what a filter leaves out, so nothing is lost without it.
"""
