# SPDX-License-Identifier: MIT
"""The two ways in which a source fails as a whole. Whatever is wrong *inside* one is a finding instead."""

from __future__ import annotations


class UnreadableSource(Exception):
    """Nothing can be read here: the path is missing, no regular file, empty, or of no known form.

    The text is one sentence for people; it names the path.
    """


class UnwritableRecording(Exception):
    """A recording could not be written; nothing was changed. The text is one sentence for people."""
