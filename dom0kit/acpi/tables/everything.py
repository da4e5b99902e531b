# SPDX-License-Identifier: MIT
"""The union of all table contents: imports every table's module, so it is imported only when JSON types are needed."""

from __future__ import annotations

from dom0kit.acpi.tables.bert import Bert
from dom0kit.acpi.tables.bgrt import Bgrt
from dom0kit.acpi.tables.cedt import Cedt
from dom0kit.acpi.tables.dbg2 import Dbg2
from dom0kit.acpi.tables.definition_block import DefinitionBlock
from dom0kit.acpi.tables.dmar import Dmar
from dom0kit.acpi.tables.ecdt import Ecdt
from dom0kit.acpi.tables.einj import Einj
from dom0kit.acpi.tables.erst import Erst
from dom0kit.acpi.tables.facs import Facs
from dom0kit.acpi.tables.fadt import Fadt
from dom0kit.acpi.tables.hest import Hest
from dom0kit.acpi.tables.hmat import Hmat
from dom0kit.acpi.tables.hpet import Hpet
from dom0kit.acpi.tables.ivrs import Ivrs
from dom0kit.acpi.tables.madt import Madt
from dom0kit.acpi.tables.mcfg import Mcfg
from dom0kit.acpi.tables.pcct import Pcct
from dom0kit.acpi.tables.pptt import Pptt
from dom0kit.acpi.tables.rsdp import Rsdp
from dom0kit.acpi.tables.rsdt import Rsdt
from dom0kit.acpi.tables.slit import Slit
from dom0kit.acpi.tables.spcr import Spcr
from dom0kit.acpi.tables.srat import Srat
from dom0kit.acpi.tables.table import Other
from dom0kit.acpi.tables.tpm2 import Tpm2, Tpm2Revision5
from dom0kit.acpi.tables.viot import Viot
from dom0kit.acpi.tables.waet import Waet
from dom0kit.acpi.tables.xsdt import Xsdt

Content = (
    Bert
    | Bgrt
    | Cedt
    | Dbg2
    | DefinitionBlock
    | Dmar
    | Ecdt
    | Einj
    | Erst
    | Facs
    | Fadt
    | Hest
    | Hmat
    | Hpet
    | Ivrs
    | Madt
    | Mcfg
    | Other
    | Pcct
    | Pptt
    | Rsdp
    | Rsdt
    | Slit
    | Spcr
    | Srat
    | Tpm2
    | Tpm2Revision5
    | Viot
    | Waet
    | Xsdt
)
