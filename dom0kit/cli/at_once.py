# SPDX-License-Identifier: MIT
"""A verb's own small plan, applied as ``dom0kit apply`` applies any; no verb itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dom0kit.plan import Plan


def apply_at_once(plan: Plan, *, dry_run: bool = False, irreversible: bool = False) -> int:
    """Applies it, with the journal and the way back of any plan; the exit status is that of ``dom0kit apply``."""
    from dom0kit.cli.apply import apply_plan

    return apply_plan(plan, dry_run=dry_run, irreversible=irreversible)
