# SPDX-License-Identifier: MIT
"""MSI and MSI-X of each PCI function as its config space shows them: on or off, how many vectors, which message.

Sources: PCI Local Bus 3.0 sections 6.8.1 and 6.8.2. The entries of an MSI-X table lie in device memory and are not
read. What Linux says of the same function is compared: Documentation/ABI/testing/sysfs-bus-pci, ``msi_irqs``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from dom0kit.acpi.tables.madt import LocalApic, LocalX2apic, Madt
from dom0kit.acpi.tables.table import Table
from dom0kit.address import DeliveryMode, Sbdf
from dom0kit.finding import Finding, Severity, rule
from dom0kit.msi import pages
from dom0kit.msi.messages import MessageFormat, MsiMessage, decode
from dom0kit.pci.capabilities.msi import Msi
from dom0kit.pci.capabilities.msix import MsiX
from dom0kit.pci.function import BarKind, Function

BOTH: Final = rule(
    "msi.both-enabled",
    Severity.ERROR,
    title="MSI and MSI-X enabled together",
    meaning="Software must not enable both; which of them the function then uses is undefined.",
    advice="Unbind and bind the driver; if firmware left it so, update it.",
    specification="PCI Local Bus 3.0, section 6.8: system software is prohibited from enabling both",
)
NO_INTERRUPT: Final = rule(
    "msi.not-an-interrupt",
    Severity.ERROR,
    title="an enabled MSI message that is no interrupt",
    meaning="The message's address is not 0xFEExxxxx: the function writes into memory instead of interrupting a "
    "CPU. On a machine without local APICs (Arm, RISC-V) this is as it must be.",
    advice="Look which driver set it up. On x86, disable MSI of this function.",
    specification="Intel SDM volume 3, section 11.11.1: bits 31:20 are 0FEEh",
)
BAD_VECTOR: Final = rule(
    "msi.vector",
    Severity.WARNING,
    title="an enabled MSI message with a vector that no device may use",
    meaning="Vectors below 16 are illegal in a message, and 16 to 31 are the CPU's exceptions. Firmware that "
    "enabled MSI for its own use and never disabled it leaves such things.",
    advice="Look which driver set it up; without a driver, disable MSI of this function.",
    specification="Intel SDM volume 3, sections 11.5.2 and 11.11.2",
)
BAD_MODE: Final = rule(
    "msi.delivery-mode",
    Severity.ERROR,
    title="an enabled MSI message that is no ordinary interrupt",
    meaning="The message asks for SMI, NMI, INIT, ExtINT or a reserved delivery mode. A device whose messages do "
    "this can stop or take over the machine.",
    advice="Look which driver set it up. On a machine that remaps interrupts this message is refused.",
    specification="Intel SDM volume 3, section 11.11.2, table 11-3",
)
WITHOUT_MASTER: Final = rule(
    "msi.no-bus-master",
    Severity.INFO,
    title="MSI enabled, but the function may not write to memory",
    meaning="A message is a memory write, and Bus Master Enable of the command register is off: no interrupt arrives.",
    advice="Nothing, if no driver uses the function now.",
    specification="PCI Local Bus 3.0, section 6.8.3.3; PCI Express Base 6.0, section 7.5.1.1.3",
)
KERNEL_DIFFERS: Final = rule(
    "msi.kernel-differs",
    Severity.WARNING,
    title="the kernel and config space disagree about MSI",
    meaning="Config space shows MSI or MSI-X enabled and the kernel lists no such interrupt of the function, or the "
    "other way round, or more vectors are listed than enabled.",
    advice="Under Xen this is normal: Xen owns the registers. Else firmware or another program changed them; reload "
    "the driver.",
    specification="Linux, Documentation/ABI/testing/sysfs-bus-pci, msi_irqs",
)


_VECTORED: Final = (DeliveryMode.FIXED, DeliveryMode.LOWEST_PRIORITY)


class InterruptMode(enum.Enum):
    """How a function interrupts now."""

    NONE = "none"
    """Neither pin nor MSI enabled: it has none, or Interrupt Disable is set."""
    INTX = "INTx"
    MSI = "MSI"
    MSIX = "MSI-X"


class MsiUse(msgspec.Struct, frozen=True):
    """A function's MSI capability."""

    enabled: bool
    vectors_capable: int
    vectors_allocated: int
    """What the register says; `message` is that of the first, the others have the next vectors."""
    message: MsiMessage | None
    """None when address and data are both zero: nobody has written one."""
    masked: int | None
    """One bit a vector; None without per-vector masking."""
    pending: int | None


class MsixUse(msgspec.Struct, frozen=True):
    """A function's MSI-X capability."""

    enabled: bool
    masked: bool
    """Function Mask: all vectors together."""
    vectors: int
    """In the table; how many are unmasked only the table tells."""
    table_bar: int
    table_offset: int
    table_address: int | None
    """Physical address of the table; None where the BAR has none."""
    pba_bar: int
    pba_offset: int
    pba_address: int | None


class MsiState(msgspec.Struct, frozen=True):
    """How one function interrupts."""

    sbdf: Sbdf
    mode: InterruptMode
    msi: MsiUse | None
    msix: MsixUse | None
    kernel_irqs: tuple[int, ...]
    """Linux's numbers of its MSI or MSI-X interrupts, where recorded."""


def reading(tables: Sequence[Table], chips: Iterable[str] = ()) -> tuple[MessageFormat, bool]:
    """How to read the messages of a machine, and whether that is sure enough to find fault with them.

    `chips`: the names of the kernel's interrupt controllers, where they are known. With a DMAR each message says
    itself what it is. With an IVRS only the kernel knows whether it remaps; Xen, whose messages a PV dom0 sees, does so
    unless told otherwise. Without local APICs (Arm), without a MADT, and under Xen the messages are somebody else's.
    """
    names = set(chips)
    signatures = {table.signature for table in tables}
    apic = any(
        isinstance(entry, LocalApic | LocalX2apic)
        for table in tables
        if isinstance(table.content, Madt)
        for entry in table.content.entries
    )
    judge = apic and not any(name.startswith("xen-") for name in names)
    if signatures & {"DMAR", "RMAD"}:
        return MessageFormat.VTD, judge
    remaps = any(name.startswith("IR-") or name == "xen-pirq" for name in names)
    if "IVRS" in signatures:
        return (MessageFormat.AMD_VI if remaps else MessageFormat.COMPATIBILITY), judge and bool(names)
    return MessageFormat.COMPATIBILITY, judge and not remaps


def observe(
    functions: Iterable[Function],
    format: MessageFormat = MessageFormat.COMPATIBILITY,
    *,
    judge: bool = True,
    kernel: bool = False,
) -> tuple[tuple[MsiState, ...], tuple[Finding, ...]]:
    """The state of each function that has a pin, MSI or MSI-X, ascending, and what is wrong.

    `format`: how the machine reads messages, and `judge`: whether that is sure enough to find fault with them; both
    from `reading`. `kernel`: the source has what the kernel says of every function.
    """
    functions = tuple(functions)
    states: list[MsiState] = []
    findings: list[Finding] = [*pages.check(functions)]
    for function in functions:
        msi = next((each for each in function.capabilities if isinstance(each, Msi)), None)
        msix = next((each for each in function.capabilities if isinstance(each, MsiX)), None)
        if msi is None and msix is None and function.interrupt_pin is None:
            continue
        state = MsiState(
            sbdf=function.sbdf,
            mode=_mode(function, msi, msix),
            msi=_msi(msi, format) if msi is not None else None,
            msix=_msix(msix, function) if msix is not None else None,
            kernel_irqs=function.msi_irqs,
        )
        states.append(state)
        findings.extend(_check(function, state, judge))
        if kernel and not function.asleep and function.power_state in (None, "D0", "unknown"):
            findings.extend(_compare(function, state))
    states.sort(key=lambda state: state.sbdf)
    return tuple(states), tuple(findings)


def _mode(function: Function, msi: Msi | None, msix: MsiX | None) -> InterruptMode:
    if msix is not None and msix.enabled:
        return InterruptMode.MSIX
    if msi is not None and msi.enabled:
        return InterruptMode.MSI
    if function.interrupt_pin is not None and not function.command & 0x400:
        return InterruptMode.INTX
    return InterruptMode.NONE


def _msi(msi: Msi, format: MessageFormat) -> MsiUse:
    return MsiUse(
        enabled=msi.enabled,
        vectors_capable=msi.capable,
        vectors_allocated=msi.allocated,
        message=decode(msi.address, msi.data, format) if msi.address or msi.data else None,
        masked=msi.mask,
        pending=msi.pending,
    )


def _msix(msix: MsiX, function: Function) -> MsixUse:
    bases = {bar.index: bar.address for bar in function.bars if bar.kind is not BarKind.IO and bar.address}
    table, pba = bases.get(msix.table_bar), bases.get(msix.pba_bar)
    return MsixUse(
        enabled=msix.enabled,
        masked=msix.masked,
        vectors=msix.vectors,
        table_bar=msix.table_bar,
        table_offset=msix.table_offset,
        table_address=None if table is None else table + msix.table_offset,
        pba_bar=msix.pba_bar,
        pba_offset=msix.pba_offset,
        pba_address=None if pba is None else pba + msix.pba_offset,
    )


def _check(function: Function, state: MsiState, judge: bool) -> Iterable[Finding]:
    where = function.where
    msi = state.msi
    if msi is not None and msi.enabled and state.msix is not None and state.msix.enabled:
        yield BOTH.at(where, "the enable bits of both capabilities are set")
    if state.mode in (InterruptMode.MSI, InterruptMode.MSIX) and not function.command & 4 and not function.asleep:
        yield WITHOUT_MASTER.at(
            where, f"{state.mode.value} is enabled; the command register is {function.command:#06x}"
        )
    if msi is None or not msi.enabled or not judge:
        return
    message = msi.message
    if message is None or not message.is_interrupt:
        address = 0 if message is None else message.encode()[0]
        yield NO_INTERRUPT.at(where, f"the address is {address:#x}")
        return
    if message.vector is not None and message.vector < 0x20 and message.delivery_mode in _VECTORED:
        yield BAD_VECTOR.at(where, f"the vector is {message.vector:#04x}")
    if message.delivery_mode is not None and message.delivery_mode not in _VECTORED:
        yield BAD_MODE.at(where, f"the delivery mode is {message.delivery_mode.value}")


def _compare(function: Function, state: MsiState) -> Iterable[Finding]:
    """Of a live machine: the interrupts that the kernel lists against the enable bits."""
    listed = len(state.kernel_irqs)
    enabled = state.mode in (InterruptMode.MSI, InterruptMode.MSIX)
    if bool(listed) is not enabled:
        says = f"the kernel lists {listed} MSI interrupts" if listed else "the kernel lists no MSI interrupt"
        yield KERNEL_DIFFERS.at(function.where, f"{says}, config space shows {state.mode.value}")
        return
    limit = state.msix.vectors if state.msix is not None and state.mode is InterruptMode.MSIX else None
    if state.msi is not None and state.mode is InterruptMode.MSI:
        limit = state.msi.vectors_allocated
    if limit is not None and listed > limit:
        yield KERNEL_DIFFERS.at(function.where, f"the kernel lists {listed} vectors, {limit} are there")
