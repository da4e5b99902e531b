# SPDX-License-Identifier: MIT
"""Which PCI device goes to which domain: written down in a file, judged against a Platform, made into a Plan.

`model` is the file's meaning, `document` reads it; `identity` finds its devices in a machine; `ground` knows what of a
machine bears on isolation, `rules` judge, `check` brings these together; `suggest` searches; `plan` makes operations.
"""
