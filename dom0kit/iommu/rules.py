# SPDX-License-Identifier: MIT
"""What can be wrong with the IOMMU tables when they are held against the machine.

What is wrong inside a table (a register base of 0, a region that ends before it begins, an INCLUDE_PCI_ALL that is not
the last) is told where the table is decoded: ``acpi.dmar-*`` and ``acpi.ivrs-*``.
"""

from __future__ import annotations

from typing import Final

from dom0kit.finding import Severity, rule

ABSENT: Final = rule(
    "iommu.scope-absent",
    Severity.INFO,
    title="a device scope of a function that is not there",
    meaning="The table names a function that the PCI bus does not show: it is hidden or turned off, or a step of the "
    "path is no bridge. Firmware often lists what another model of the machine has. A reserved region for it is kept "
    "for nobody.",
    advice="Nothing, unless the function should be there.",
    specification="Intel VT-d 4.1, section 8.3.1",
)
KIND: Final = rule(
    "iommu.scope-kind",
    Severity.WARNING,
    title="a device scope of the wrong type",
    meaning="A scope for one function names a bridge, or a scope for a bridge and all behind it names a function "
    "without anything behind. Linux ignores such a scope unless it is sure what is meant.",
    advice="Update the firmware.",
    specification="Intel VT-d 4.1, section 8.3.1; Linux drivers/iommu/intel/dmar.c (dmar_insert_dev_scope)",
)
TWO_UNITS: Final = rule(
    "iommu.two-units",
    Severity.ERROR,
    title="a function in the scopes of two units",
    meaning="Two remapping units claim the function. Only one of them sees its requests; with the other's page tables "
    "the function is either not confined or cannot reach memory. The first is taken, as Linux does.",
    advice="Update the firmware.",
    specification="Intel VT-d 4.1, section 8.3; AMD IOMMU 3.09, section 5.2.2",
)
UNSERVED: Final = rule(
    "iommu.function-unserved",
    Severity.WARNING,
    title="functions that no IOMMU serves",
    meaning="There are IOMMUs, but no scope covers these functions that can do DMA: their requests are not translated. "
    "They cannot be assigned, and they can reach all memory.",
    advice="Do not assign them; update the firmware. A second segment without a unit of its own looks like this.",
    specification="Intel VT-d 4.1, section 8.3; AMD IOMMU 3.09, section 5.2.2",
)
SHARED_REGION: Final = rule(
    "iommu.region-shared",
    Severity.WARNING,
    title="reserved memory shared by functions of two groups",
    meaning="Functions that could be assigned apart have a reserved region (RMRR or IVMD) in common: they can talk to "
    "each other through it. Xen refuses to assign such a function unless told to relax; Linux refuses most of them.",
    advice="Assign the groups together, or leave them. rdm policy=relaxed in Xen accepts the risk.",
    specification="Intel VT-d 4.1, section 8.4; Linux drivers/iommu/intel/iommu.c (device_rmrr_is_relaxable)",
)
IOAPIC_UNNAMED: Final = rule(
    "iommu.ioapic-unnamed",
    Severity.WARNING,
    title="an IOAPIC that no IOMMU names",
    meaning="Interrupt remapping must know which id an IOAPIC's messages carry. Of this IOAPIC of the MADT no unit "
    "says so: Linux and Xen then leave interrupt remapping off, or lose its interrupts.",
    advice="Update the firmware. AMD: ivrs_ioapic= on the kernel command line names it.",
    specification="Intel VT-d 4.1, section 8.3.1.1; AMD IOMMU 3.09, section 5.2.2.6; Linux "
    "drivers/iommu/intel/irq_remapping.c (parse_ioapics_under_ir), drivers/iommu/amd/init.c (check_ioapic_information)",
)
IOAPIC_UNKNOWN: Final = rule(
    "iommu.ioapic-unknown",
    Severity.WARNING,
    title="an IOMMU names an IOAPIC that is not there",
    meaning="The id is not that of any IOAPIC of the MADT. The entry is for nobody, and the IOAPIC that is meant may "
    "be the one that no unit names.",
    advice="Update the firmware. AMD: ivrs_ioapic= on the kernel command line names it.",
    specification="Intel VT-d 4.1, section 8.3.1.1; AMD IOMMU 3.09, section 5.2.2.6",
)
IOAPIC_TWICE: Final = rule(
    "iommu.ioapic-twice",
    Severity.WARNING,
    title="an IOAPIC or HPET named twice",
    meaning="Two entries give different ids or units for the messages of one IOAPIC or HPET. The first is taken.",
    advice="Update the firmware.",
    specification="Intel VT-d 4.1, section 8.3.1.1; AMD IOMMU 3.09, section 5.2.2.6",
)
UNIT_ABSENT: Final = rule(
    "iommu.unit-absent",
    Severity.WARNING,
    title="an AMD IOMMU whose PCI function is not there",
    meaning="An IVHD block names the function that the IOMMU is, and the PCI bus does not show it. Linux cannot use "
    "the unit.",
    advice="Enable the IOMMU in the firmware's set-up; update the firmware.",
    specification="AMD IOMMU 3.09, section 5.2.2.1",
)
TOO_MANY: Final = rule(
    "iommu.too-many",
    Severity.ERROR,
    title="more units or regions than a machine can have",
    meaning="The table lists more than 1,024 units or reserved regions. Those beyond are left out.",
    advice="The table is damaged; record it again.",
    specification="Linux drivers/iommu/intel/iommu.h (DMAR_UNITS_SUPPORTED)",
)
BOTH: Final = rule(
    "iommu.both-tables",
    Severity.WARNING,
    title="a DMAR and an IVRS",
    meaning="A machine has IOMMUs of one vendor. Tables of two machines were mixed, or one is left over. The DMAR is "
    "taken.",
    advice="Record the machine again.",
    specification="Intel VT-d 4.1, section 8.1; AMD IOMMU 3.09, section 5.2.1",
)

MOST: Final = 1024
"""Units, and reserved regions, that are looked at."""
