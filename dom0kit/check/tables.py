# SPDX-License-Identifier: MIT
"""ACPI tables that contradict themselves or each other: fixed hardware, timers, consoles, and tables that are absent.

What one table's own bytes show is told where it is decoded; here is what takes a second table, or the whole machine.
"""

from __future__ import annotations

from collections.abc import Iterator

from dom0kit.acpi.tables.common import AddressSpace, GenericAddress
from dom0kit.acpi.tables.fadt import Fadt
from dom0kit.acpi.tables.hpet import Hpet
from dom0kit.acpi.tables.madt import Madt
from dom0kit.acpi.tables.mcfg import Mcfg
from dom0kit.acpi.tables.rsdp import Rsdp
from dom0kit.acpi.tables.spcr import Spcr
from dom0kit.check.rules import Told, View, check, shown
from dom0kit.finding import Severity


def _fixed(view: View) -> Iterator[tuple[str, Fadt]]:
    """The FADT of a machine with fixed hardware."""
    if view.fadt is not None and not view.fadt[1].flags.hw_reduced_acpi:
        yield view.fadt


@check(
    "acpi.fadt-missing",
    Severity.WARNING,
    title="no FADT",
    meaning="There are tables with headers, but none of them is the FADT, which names the DSDT, the SCI and the fixed "
    "hardware: no ACPI operating system runs on such a machine, so the recording is incomplete.",
    advice="Record the machine again, as root.",
    specification="ACPI 6.5, section 5.2.9",
)
def fadt_missing(view: View) -> Iterator[Told]:
    signatures = {table.signature for table in view.platform.tables if table.header is not None}
    if signatures - {"SSDT"} and not signatures & {"FACP", "DSDT"}:
        yield "table:FACP", f"there are {shown(sorted(signatures))}"


@check(
    "acpi.madt-missing",
    Severity.WARNING,
    title="no MADT",
    meaning="Without a MADT nobody knows the IOAPICs and the processors: Linux falls back to 8259 interrupts and one "
    "CPU, and a hypervisor that owns APICs and vectors cannot start.",
    advice="Record the machine again, or turn on APIC mode in the firmware's set-up.",
    specification="ACPI 6.5, section 5.2.12",
)
def madt_missing(view: View) -> Iterator[Told]:
    if view.fadt is not None and view.table(Madt) is None:
        yield "table:APIC", f"{view.fadt[0].removeprefix('table:')} is there, APIC is not"


@check(
    "acpi.mcfg-missing",
    Severity.WARNING,
    title="PCI Express without an MCFG",
    meaning="There are PCI Express functions and no MCFG: extended config space (AER, ACS, SR-IOV, ATS) cannot be "
    "reached, and a hypervisor that finds ECAM by this table sees 256 bytes of each function.",
    advice="Update the firmware; record as root, if the table was merely not readable.",
    specification="PCI Firmware Specification 3.3, section 4.1.2",
)
def mcfg_missing(view: View) -> Iterator[Told]:
    if view.fadt is not None and view.express and view.table(Mcfg) is None:
        yield "table:MCFG", f"{len(view.express)} PCI Express functions, the first is {next(iter(view.express))}"


@check(
    "acpi.fadt-sci",
    Severity.WARNING,
    title="the FADT names no SCI",
    meaning="SCI_INT is 0 although the machine has fixed ACPI hardware. Interrupt 0 is the timer's: ACPI events (power "
    "button, hot-plug, lid) never arrive.",
    advice="Update the firmware.",
    specification="ACPI 6.5, table 5.9, SCI_INT",
)
def no_sci(view: View) -> Iterator[Told]:
    for where, fadt in _fixed(view):
        if fadt.sci_int == 0:
            yield where, "SCI_INT is 0, and HW_REDUCED_ACPI is clear"


@check(
    "acpi.fadt-fixed-hardware",
    Severity.WARNING,
    title="fixed hardware without registers",
    meaning="The machine is not hardware-reduced, but the FADT has no address for a register block that then must be "
    "there. An OS that switches to ACPI mode writes to port 0 or gives up.",
    advice="Update the firmware.",
    specification="ACPI 6.5, table 5.9, PM1a_EVT_BLK and PM1a_CNT_BLK: required",
)
def no_fixed_registers(view: View) -> Iterator[Told]:
    for where, fadt in _fixed(view):
        for name, old, new in (
            ("PM1a_EVT_BLK", fadt.pm1a_evt_blk, fadt.x_pm1a_evt_blk),
            ("PM1a_CNT_BLK", fadt.pm1a_cnt_blk, fadt.x_pm1a_cnt_blk),
        ):
            if not old and not (new is not None and new.address):
                yield where, f"{name} has no address"


@check(
    "acpi.fadt-register-length",
    Severity.WARNING,
    title="a register block of fixed hardware with an impossible length",
    meaning="PM1_EVT_LEN is below 4, PM1_CNT_LEN below 2, PM_TMR_LEN is not 4, or a GPE block's length is odd: "
    "half of such a block is status and the other half enable bits.",
    advice="Update the firmware. Linux logs it and uses the lengths of the specification, or drops the GPE block.",
    specification="ACPI 6.5, table 5.9; Linux drivers/acpi/acpica/tbfadt.c",
)
def register_lengths(view: View) -> Iterator[Told]:
    for where, fadt in _fixed(view):
        if fadt.pm1a_evt_blk and fadt.pm1_evt_len < 4:
            yield where, f"PM1_EVT_LEN is {fadt.pm1_evt_len}, not 4"
        if fadt.pm1a_cnt_blk and fadt.pm1_cnt_len < 2:
            yield where, f"PM1_CNT_LEN is {fadt.pm1_cnt_len}, not 2"
        if fadt.pm_tmr_blk and fadt.pm_tmr_len != 4:
            yield where, f"PM_TMR_LEN is {fadt.pm_tmr_len}, not 4"
        for name, address, length in (
            ("GPE0_BLK", fadt.gpe0_blk, fadt.gpe0_blk_len),
            ("GPE1_BLK", fadt.gpe1_blk, fadt.gpe1_blk_len),
        ):
            if address and length % 2:
                yield where, f"{name}_LEN is {length}"


@check(
    "acpi.fadt-half-block",
    Severity.INFO,
    title="an optional register block with half a description",
    meaning="An optional block of the FADT has a length and no address, or an address and no length. It is not there; "
    "Linux says so in its log.",
    advice="Nothing.",
    specification="ACPI 6.5, table 5.9; Linux drivers/acpi/acpica/tbfadt.c (acpi_tb_convert_fadt)",
)
def half_blocks(view: View) -> Iterator[Told]:
    for where, fadt in _fixed(view):
        for name, old, new, length in (
            ("PM2_CNT_BLK", fadt.pm2_cnt_blk, fadt.x_pm2_cnt_blk, fadt.pm2_cnt_len),
            ("PM_TMR_BLK", fadt.pm_tmr_blk, fadt.x_pm_tmr_blk, fadt.pm_tmr_len),
            ("GPE0_BLK", fadt.gpe0_blk, fadt.x_gpe0_blk, fadt.gpe0_blk_len),
            ("GPE1_BLK", fadt.gpe1_blk, fadt.x_gpe1_blk, fadt.gpe1_blk_len),
        ):
            address = old or (new.address if new is not None else 0)
            if bool(address) != bool(length):
                yield where, f"{name} at {address:#x} with {length} bytes"


@check(
    "acpi.fadt-gpe-overlap",
    Severity.WARNING,
    title="the two blocks of general purpose events overlap",
    meaning="GPE1_BASE is below the number of events that GPE0_BLK has: one event number means two bits of hardware. "
    "Linux drops the second block, and what is wired to it never wakes or interrupts.",
    advice="Update the firmware.",
    specification="ACPI 6.5, table 5.9, GPE1_BASE; Linux drivers/acpi/acpica/evgpeinit.c",
)
def gpe_overlap(view: View) -> Iterator[Told]:
    for where, fadt in _fixed(view):
        events = fadt.gpe0_blk_len * 4
        if fadt.gpe0_blk and fadt.gpe1_blk and fadt.gpe1_blk_len and fadt.gpe1_base < events:
            yield where, f"GPE0 has events 0 to {events - 1}, GPE1 begins at {fadt.gpe1_base}"


@check(
    "acpi.fadt-register-width",
    Severity.INFO,
    title="the width of a register block contradicts its length",
    meaning="An X_ block says another number of bits than the length field of the old block. Linux takes the length "
    "field and logs a firmware bug.",
    advice="Nothing.",
    specification="ACPI 6.5, table 5.9; Linux drivers/acpi/acpica/tbfadt.c",
)
def register_widths(view: View) -> Iterator[Told]:
    for where, fadt in _fixed(view):
        for name, length, block in (
            ("PM1a_EVT_BLK", fadt.pm1_evt_len, fadt.x_pm1a_evt_blk),
            ("PM1a_CNT_BLK", fadt.pm1_cnt_len, fadt.x_pm1a_cnt_blk),
            ("PM2_CNT_BLK", fadt.pm2_cnt_len, fadt.x_pm2_cnt_blk),
            ("PM_TMR_BLK", fadt.pm_tmr_len, fadt.x_pm_tmr_blk),
            ("GPE0_BLK", fadt.gpe0_blk_len, fadt.x_gpe0_blk),
            ("GPE1_BLK", fadt.gpe1_blk_len, fadt.x_gpe1_blk),
        ):
            # A GPE block above 31 bytes does not fit the eight bits of the width.
            if block is not None and block.address and length < 32 and block.bit_width != length * 8:
                yield where, f"X_{name} has {block.bit_width} bits, its length is {length} bytes"


@check(
    "acpi.fadt-reset-register",
    Severity.WARNING,
    title="a reset register that cannot be used",
    meaning="RESET_REG_SUP says that the register resets the machine, but it has no address, is not eight bits wide, "
    "or lies neither in memory, I/O nor PCI config space. Rebooting falls back to the keyboard controller.",
    advice="Update the firmware; on Linux reboot=k or reboot=p chooses another way.",
    specification="ACPI 6.5, section 4.8.3.6",
)
def reset_register(view: View) -> Iterator[Told]:
    if view.fadt is None or not view.fadt[1].flags.reset_reg_sup:
        return
    where, fadt = view.fadt
    register = fadt.reset_reg
    if register is None or register.address == 0:
        yield where, "RESET_REG_SUP is set, and RESET_REG has no address"
    elif register.space not in _RESET_SPACES:
        yield where, f"RESET_REG lies in {_named(register)}"
    elif register.bit_width != 8 or register.bit_offset:
        yield where, f"RESET_REG has {register.bit_width} bits at bit {register.bit_offset}"


_RESET_SPACES = (AddressSpace.SYSTEM_MEMORY, AddressSpace.SYSTEM_IO, AddressSpace.PCI_CONFIG)


def _named(register: GenericAddress) -> str:
    return register.space.value if isinstance(register.space, AddressSpace) else f"address space {register.space:#x}"


@check(
    "acpi.fadt-msi-not-supported",
    Severity.WARNING,
    title="firmware says that MSI does not work",
    meaning="IAPC_BOOT_ARCH has the flag MSI Not Supported. Linux and Xen then use no MSI at all: all devices share "
    "the few INTx lines, SR-IOV and NVMe queues do not work, and functions that share a line cannot be kept apart.",
    advice="Where the machine is known to be good, update the firmware; Linux has no option against it.",
    specification="ACPI 6.5, table 5.11; Linux drivers/pci/pci-acpi.c (acpi_pci_init)",
)
def msi_not_supported(view: View) -> Iterator[Told]:
    if view.fadt is not None and view.fadt[1].iapc_boot_arch.msi_not_supported:
        yield view.fadt[0], "IAPC_BOOT_ARCH bit 3 is set"


@check(
    "acpi.fadt-aspm",
    Severity.INFO,
    title="firmware asks not to enable ASPM",
    meaning="IAPC_BOOT_ARCH has the flag PCIe ASPM Controls: Linux leaves active state power management as firmware "
    "set it.",
    advice="Nothing; pcie_aspm=force overrides it at your own risk.",
    specification="ACPI 6.5, table 5.11; Linux drivers/pci/pci-acpi.c (acpi_pci_init)",
)
def no_aspm(view: View) -> Iterator[Told]:
    if view.fadt is not None and view.fadt[1].iapc_boot_arch.pcie_aspm_controls:
        yield view.fadt[0], "IAPC_BOOT_ARCH bit 4 is set"


@check(
    "acpi.fadt-apic-model",
    Severity.WARNING,
    title="two APIC destination models asked for at once",
    meaning="The FADT forces both the cluster model and physical destination mode. Linux and Xen take physical mode.",
    advice="Update the firmware.",
    specification="ACPI 6.5, table 5.10, FORCE_APIC_CLUSTER_MODEL and FORCE_APIC_PHYSICAL_DESTINATION_MODE",
)
def apic_models(view: View) -> Iterator[Told]:
    for where, fadt in view.tables(Fadt):
        if fadt.flags.force_apic_cluster_model and fadt.flags.force_apic_physical_destination_mode:
            yield where, "both flags are set"


@check(
    "acpi.fadt-physical-destination",
    Severity.INFO,
    title="interrupts must be sent to one processor each",
    meaning="The FADT forces physical destination mode: the machine cannot deliver an interrupt to one of several "
    "processors by logical ids. Redirection entries and messages are made for one processor.",
    advice="Nothing; a hypervisor core must follow it.",
    specification="ACPI 6.5, table 5.10, FORCE_APIC_PHYSICAL_DESTINATION_MODE",
)
def physical_destination(view: View) -> Iterator[Told]:
    if view.fadt is not None and view.fadt[1].flags.force_apic_physical_destination_mode:
        yield view.fadt[0], "the flag is set"


@check(
    "acpi.fadt-boot-profile",
    Severity.INFO,
    title="a reserved power management profile",
    meaning="Preferred_PM_Profile is none of the values that are defined. It is taken as unspecified.",
    advice="Nothing.",
    specification="ACPI 6.5, table 5.9, Preferred_PM_Profile",
)
def profile(view: View) -> Iterator[Told]:
    for where, fadt in view.tables(Fadt):
        if isinstance(fadt.preferred_pm_profile, int):
            yield where, f"it is {fadt.preferred_pm_profile}"


@check(
    "acpi.dsdt-32-bit",
    Severity.INFO,
    title="AML integers have 32 bits",
    meaning="The DSDT's revision is below 2, which makes integers of all AML on this machine 32 bits wide: addresses "
    "above 4 GiB cannot be computed, and firmware that does so computes others.",
    advice="Nothing, unless a _CRS lacks a window above 4 GiB.",
    specification="ACPI 6.5, sections 5.2.11.1 and 19.3.5",
)
def narrow_integers(view: View) -> Iterator[Told]:
    for table in view.platform.tables:
        if table.signature == "DSDT" and table.header is not None and table.header.revision < 2:
            yield f"table:{table.name}", f"its revision is {table.header.revision}"


@check(
    "acpi.xsdt-missing",
    Severity.INFO,
    title="no XSDT",
    meaning="The RSDP is one of ACPI 1.0, or its 64-bit address is 0: tables are found by 32-bit addresses alone.",
    advice="Nothing.",
    specification="ACPI 6.5, section 5.2.5.3",
)
def no_xsdt(view: View) -> Iterator[Told]:
    for where, rsdp in view.tables(Rsdp):
        if not rsdp.xsdt_address:
            yield where, f"revision {rsdp.revision}, RSDT at {rsdp.rsdt_address:#x}"


@check(
    "acpi.hpet-address",
    Severity.WARNING,
    title="an HPET without a usable address",
    meaning="The registers of the timer block are at address 0, not in memory, or not aligned to 1 KiB: an OS or "
    "hypervisor that takes it as its clock reads something else.",
    advice="Update the firmware, or run with hpet=disable.",
    specification="IA-PC HPET Specification 1.0a, sections 2.3.1 and 3.2.4",
)
def hpet_address(view: View) -> Iterator[Told]:
    for where, hpet in view.tables(Hpet):
        register = hpet.base_address
        if register.space is not AddressSpace.SYSTEM_MEMORY:
            yield where, f"it lies in {_named(register)}"
        elif register.address == 0 or register.address & 0x3FF:
            yield where, f"its address is {register.address:#x}"


@check(
    "acpi.hpet-twice",
    Severity.WARNING,
    title="two HPETs with one number",
    meaning="Two HPET tables have the same sequence number, by which device scopes and IVRS entries name them.",
    advice="Update the firmware.",
    specification="IA-PC HPET Specification 1.0a, section 3.2.4, HPET Number",
)
def hpet_twice(view: View) -> Iterator[Told]:
    numbers: dict[int, str] = {}
    for where, hpet in view.tables(Hpet):
        if numbers.setdefault(hpet.hpet_number, where) != where:
            yield where, f"{numbers[hpet.hpet_number]} is number {hpet.hpet_number}, too"


@check(
    "acpi.spcr-gsi",
    Severity.INFO,
    title="the serial console's interrupt is no pin",
    meaning="The SPCR says that the console interrupts through a GSI which no IOAPIC has: the console takes no input.",
    advice="Nothing where the console is not used; else it works by polling.",
    specification="Microsoft Serial Port Console Redirection Table, Global System Interrupt",
)
def spcr_gsi(view: View) -> Iterator[Told]:
    ioapics = view.platform.ioapics
    for where, spcr in view.tables(Spcr):
        if spcr.interrupt_type.ioapic and ioapics and not any(of.gsi_base <= spcr.gsi <= of.gsi_last for of in ioapics):
            yield where, f"GSI {spcr.gsi}, the highest is {max(of.gsi_last for of in ioapics)}"
