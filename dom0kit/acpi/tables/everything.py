# SPDX-License-Identifier: MIT
"""The union of all table contents: imports every table's module, so it is imported only when JSON types are needed."""

from __future__ import annotations

from dom0kit.acpi.tables.dmar import Dmar
from dom0kit.acpi.tables.fadt import Fadt
from dom0kit.acpi.tables.ivrs import Ivrs
from dom0kit.acpi.tables.madt import Madt
from dom0kit.acpi.tables.mcfg import Mcfg
from dom0kit.acpi.tables.srat import Srat
from dom0kit.acpi.tables.table import Other

Content = Dmar | Fadt | Ivrs | Madt | Mcfg | Srat | Other
