# SPDX-License-Identifier: MIT
"""Where bytes come from: this machine, a recording, or a dump somebody mailed. Bytes and nothing else.

Nothing above this package opens a file of the machine.
"""
