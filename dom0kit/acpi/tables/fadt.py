# SPDX-License-Identifier: MIT
"""FADT (signature FACP): fixed hardware, and where FACS and DSDT are (ACPI 6.5, section 5.2.9)."""

from __future__ import annotations

import enum
from typing import Annotated, Final

from dom0kit.acpi.tables.common import AddressSpace, GenericAddress
from dom0kit.acpi.tables.table import Header
from dom0kit.finding import Severity, rule
from dom0kit.layout import U8, U16, U32, U64, Bit, BitField, Int8, OpenRecord, bits, enumerated
from dom0kit.walker import Notes

LENGTH: Final = rule(
    "acpi.fadt-length",
    Severity.WARNING,
    title="a FADT too short for its revision",
    meaning="The FADT ends before fields that its revision has. An OS that goes by the revision reads what is behind "
    "the table.",
    advice="Nothing on Linux and Xen, which go by the length. Report it to the firmware's vendor.",
    specification="ACPI 6.5, table 5.9, and the same table of ACPI 1.0, 2.0 and 5.0: 116, 244, 268 and 276 bytes",
)
MISMATCH: Final = rule(
    "acpi.fadt-address-mismatch",
    Severity.WARNING,
    title="32-bit and 64-bit addresses of the FADT differ",
    meaning="A block or table has an address in an old field and another one in the field that replaces it. Which of "
    "them counts depends on the OS and its version; they may name two different FACS, one of which firmware never "
    "reads.",
    advice="Where power management or waking fails, try acpi_force_32bit_fadt_addr on Linux's command line.",
    specification="ACPI 6.5, table 5.9: where the X_ field is not zero the other one is ignored; where both are set "
    "they are to agree",
)


class PowerProfile(enum.Enum):
    """Preferred power management profile (table 5.9)."""

    UNSPECIFIED = "unspecified"
    DESKTOP = "desktop"
    MOBILE = "mobile"
    WORKSTATION = "workstation"
    ENTERPRISE_SERVER = "enterprise-server"
    SOHO_SERVER = "soho-server"
    APPLIANCE = "appliance"
    PERFORMANCE_SERVER = "performance-server"
    TABLET = "tablet"


class IapcBootArch(BitField, frozen=True, kw_only=True):
    """What of the PC's past is there (table 5.11)."""

    legacy_devices: Bit
    controller_8042: Bit
    vga_not_present: Bit
    msi_not_supported: Bit
    pcie_aspm_controls: Bit
    """The OS must not enable ASPM."""
    cmos_rtc_not_present: Bit
    reserved: Annotated[int, bits(10)] = 0


class ArmBootArch(BitField, frozen=True, kw_only=True):
    """Table 5.12."""

    psci_compliant: Bit
    psci_use_hvc: Bit
    reserved: Annotated[int, bits(14)] = 0


class FadtFlags(BitField, frozen=True, kw_only=True):
    """Fixed feature flags (table 5.10)."""

    wbinvd: Bit
    wbinvd_flush: Bit
    proc_c1: Bit
    p_lvl2_up: Bit
    pwr_button: Bit
    slp_button: Bit
    fix_rtc: Bit
    rtc_s4: Bit
    tmr_val_ext: Bit
    """The PM timer has 32 bits, not 24."""
    dck_cap: Bit
    reset_reg_sup: Bit
    sealed_case: Bit
    headless: Bit
    cpu_sw_slp: Bit
    pci_exp_wak: Bit
    use_platform_clock: Bit
    s4_rtc_sts_valid: Bit
    remote_power_on_capable: Bit
    force_apic_cluster_model: Bit
    force_apic_physical_destination_mode: Bit
    hw_reduced_acpi: Bit
    """No fixed hardware, no SCI, no FACS lock."""
    low_power_s0_idle_capable: Bit
    persistent_cpu_caches: Annotated[int, bits(2)]
    reserved: Annotated[int, bits(8)] = 0


class Fadt(OpenRecord, frozen=True, kw_only=True, tag="fadt"):
    """Fixed ACPI Description Table: 116 bytes (ACPI 1.0), 132, 244 (2.0 to 4.0), 268 (5.0) or 276 (6.0 and later)."""

    firmware_ctrl: U32
    """Physical address of the FACS."""
    dsdt: U32
    """Physical address of the DSDT."""
    int_model: U8
    """ACPI 1.0: 0 dual 8259, 1 multiple APIC; reserved since."""
    preferred_pm_profile: Annotated[PowerProfile | int, enumerated(Int8, dict(enumerate(PowerProfile)))]
    sci_int: U16
    """GSI of the SCI, or its 8259 interrupt where there is one."""
    smi_cmd: U32
    acpi_enable: U8
    acpi_disable: U8
    s4bios_req: U8
    pstate_cnt: U8
    pm1a_evt_blk: U32
    pm1b_evt_blk: U32
    pm1a_cnt_blk: U32
    pm1b_cnt_blk: U32
    pm2_cnt_blk: U32
    pm_tmr_blk: U32
    gpe0_blk: U32
    gpe1_blk: U32
    pm1_evt_len: U8
    pm1_cnt_len: U8
    pm2_cnt_len: U8
    pm_tmr_len: U8
    gpe0_blk_len: U8
    gpe1_blk_len: U8
    gpe1_base: U8
    cst_cnt: U8
    p_lvl2_lat: U16
    p_lvl3_lat: U16
    flush_size: U16
    flush_stride: U16
    duty_offset: U8
    duty_width: U8
    day_alrm: U8
    mon_alrm: U8
    century: U8
    iapc_boot_arch: IapcBootArch
    reserved: U8 = 0
    flags: FadtFlags
    reset_reg: GenericAddress | None = None
    reset_value: U8 | None = None
    arm_boot_arch: ArmBootArch | None = None
    fadt_minor_version: U8 | None = None
    x_firmware_ctrl: U64 | None = None
    x_dsdt: U64 | None = None
    x_pm1a_evt_blk: GenericAddress | None = None
    x_pm1b_evt_blk: GenericAddress | None = None
    x_pm1a_cnt_blk: GenericAddress | None = None
    x_pm1b_cnt_blk: GenericAddress | None = None
    x_pm2_cnt_blk: GenericAddress | None = None
    x_pm_tmr_blk: GenericAddress | None = None
    x_gpe0_blk: GenericAddress | None = None
    x_gpe1_blk: GenericAddress | None = None
    sleep_control_reg: GenericAddress | None = None
    sleep_status_reg: GenericAddress | None = None
    hypervisor_vendor_identity: U64 | None = None


_LENGTHS: Final = {1: 116, 2: 132, 3: 244, 4: 244, 5: 268, 6: 268}
"""Least length by revision. Revision 2 is ACPI 1.0b's, with a reset register; ACPI 6.0 counted 268 for revision 6."""
_BLOCKS: Final = (
    "pm1a_evt_blk",
    "pm1b_evt_blk",
    "pm1a_cnt_blk",
    "pm1b_cnt_blk",
    "pm2_cnt_blk",
    "pm_tmr_blk",
    "gpe0_blk",
    "gpe1_blk",
)


def check(fadt: Fadt, header: Header, notes: Notes) -> None:
    """Length against revision, old addresses against new ones."""
    least = _LENGTHS.get(header.revision, 276 if header.revision > 6 else 116)
    if header.length < least:
        notes.add(LENGTH, f"revision {header.revision} has at least {least} bytes, this one {header.length}")
    for name in ("firmware_ctrl", "dsdt"):
        old, new = getattr(fadt, name), getattr(fadt, f"x_{name}")
        if old and new and old != new:
            notes.add(MISMATCH, f"{name.upper()} is {old:#x}, X_{name.upper()} is {new:#x}")
    for name in _BLOCKS:
        old, block = getattr(fadt, name), getattr(fadt, f"x_{name}")
        if not old or block is None or not block.address:
            continue
        if block.space is not AddressSpace.SYSTEM_IO or block.address != old:
            space = block.space.value if isinstance(block.space, AddressSpace) else f"space {block.space:#x}"
            notes.add(MISMATCH, f"{name.upper()} is I/O port {old:#x}, X_{name.upper()} is {space} {block.address:#x}")
