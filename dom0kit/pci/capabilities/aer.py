# SPDX-License-Identifier: MIT
"""Advanced Error Reporting, extended capability 0001h (PCI Express Base 6.0, section 7.8.4)."""

from __future__ import annotations

import enum
import struct
from typing import Final

import msgspec

from dom0kit.finding import Severity, rule
from dom0kit.pci.capabilities import ExtendedCapability, Report
from dom0kit.pci.capabilities.port import EVENT_COLLECTOR, ROOT_PORT, port_type
from dom0kit.serial import Hex

LENGTH = 0x2C


class UncorrectableError(enum.Enum):
    """An uncorrectable error, in the order of the register's bits."""

    TRAINING = "training"
    """Bit 0: link training error in PCI Express 1.0a, undefined since."""
    DATA_LINK_PROTOCOL = "data link protocol"
    SURPRISE_DOWN = "surprise down"
    POISONED_TLP = "poisoned TLP received"
    FLOW_CONTROL_PROTOCOL = "flow control protocol"
    COMPLETION_TIMEOUT = "completion timeout"
    COMPLETER_ABORT = "completer abort"
    UNEXPECTED_COMPLETION = "unexpected completion"
    RECEIVER_OVERFLOW = "receiver overflow"
    MALFORMED_TLP = "malformed TLP"
    ECRC = "ECRC"
    UNSUPPORTED_REQUEST = "unsupported request"
    ACS_VIOLATION = "ACS violation"
    INTERNAL = "uncorrectable internal"
    MULTICAST_BLOCKED = "multicast blocked TLP"
    ATOMIC_EGRESS_BLOCKED = "AtomicOp egress blocked"
    TLP_PREFIX_BLOCKED = "TLP prefix blocked"
    POISONED_EGRESS_BLOCKED = "poisoned TLP egress blocked"
    DMWR_EGRESS_BLOCKED = "DMWr request egress blocked"
    IDE_CHECK = "IDE check failed"
    MISROUTED_IDE = "misrouted IDE TLP"
    PCRC_CHECK = "PCRC check failed"
    TRANSLATION_EGRESS_BLOCKED = "TLP translation egress blocked"


class CorrectableError(enum.Enum):
    """A correctable error, in the order of the register's bits."""

    RECEIVER = "receiver"
    BAD_TLP = "bad TLP"
    BAD_DLLP = "bad DLLP"
    REPLAY_ROLLOVER = "REPLAY_NUM rollover"
    REPLAY_TIMEOUT = "replay timer timeout"
    ADVISORY_NONFATAL = "advisory non-fatal"
    INTERNAL = "corrected internal"
    HEADER_LOG_OVERFLOW = "header log overflow"


_UNCORRECTABLE_BITS: Final = (0, 4, 5, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, *range(22, 32))
_UNCORRECTABLE: Final = {1 << bit: e for bit, e in zip(_UNCORRECTABLE_BITS, UncorrectableError, strict=True)}
_CORRECTABLE: Final = {1 << bit: e for bit, e in zip((0, 6, 7, 8, 12, 13, 14, 15), CorrectableError, strict=True)}
_UNCORRECTABLE_MASK: Final = sum(_UNCORRECTABLE)
_CORRECTABLE_MASK: Final = sum(_CORRECTABLE)


class AerRoot(msgspec.Struct, frozen=True, gc=False):
    """The registers that root ports and root complex event collectors alone have."""

    correctable_reporting: bool
    """Root Error Command: interrupt on ERR_COR."""
    nonfatal_reporting: bool
    """Root Error Command: interrupt on ERR_NONFATAL."""
    fatal_reporting: bool
    """Root Error Command: interrupt on ERR_FATAL."""
    correctable_received: bool
    multiple_correctable_received: bool
    uncorrectable_received: bool
    """ERR_FATAL or ERR_NONFATAL received."""
    multiple_uncorrectable_received: bool
    first_uncorrectable_fatal: bool
    nonfatal_received: bool
    fatal_received: bool
    correctable_subclass: int
    """ERR_COR Subclass, 0 to 3."""
    interrupt_message: int
    """Advanced Error Interrupt Message Number, 0 to 31: which MSI or MSI-X vector."""
    correctable_source: int
    """Requester id of the first ERR_COR."""
    uncorrectable_source: int
    """Requester id of the first ERR_FATAL or ERR_NONFATAL."""


class AdvancedErrorReporting(ExtendedCapability, frozen=True, tag="aer"):
    """Which errors a function has seen, which it hides and which it calls fatal."""

    uncorrectable_status: tuple[UncorrectableError, ...]
    uncorrectable_mask: tuple[UncorrectableError, ...]
    uncorrectable_severity: tuple[UncorrectableError, ...]
    """Those that are reported as fatal."""
    correctable_status: tuple[CorrectableError, ...]
    correctable_mask: tuple[CorrectableError, ...]
    first_error: int
    """First Error Pointer: bit of the uncorrectable status that the header log belongs to, 0 to 31."""
    ecrc_generation_capable: bool
    ecrc_generation_enabled: bool
    ecrc_check_capable: bool
    ecrc_check_enabled: bool
    multiple_header_recording_capable: bool
    multiple_header_recording_enabled: bool
    tlp_prefix_log_present: bool
    completion_timeout_log_capable: bool
    """Completion Timeout Prefix/Header Log Capable."""
    header_log: Hex
    """The logged TLP's header, 16 bytes in the order sent."""
    prefix_log: Hex | None
    """The logged TLP's end-to-end prefixes, 16 bytes; None unless `tlp_prefix_log_present`."""
    root: AerRoot | None
    """None for what is neither root port nor event collector."""


LOGGED: Final = rule(
    "pci.aer-logged",
    Severity.INFO,
    title="PCI Express errors logged",
    meaning="The function has logged errors that nobody has cleared. Unsupported requests are common while buses are "
    "being scanned; others point to a bad link, card or driver.",
    advice="Clear the status registers (write ones), and see whether the errors come back.",
    specification="PCI Express Base 6.0, sections 6.2 and 7.8.4",
)

_REGISTERS: Final = struct.Struct("<10I")
_ROOT: Final = struct.Struct("<IIHH")
_PREFIX: Final = struct.Struct("<4I")


def decode(config: bytes, offset: int, report: Report) -> AdvancedErrorReporting:
    status, mask, severity, c_status, c_mask, control, h0, h1, h2, h3 = _REGISTERS.unpack_from(config, offset + 4)
    uncorrectable, correctable = _uncorrectable(status), _correctable(c_status)
    if uncorrectable or correctable:
        names = [error.value for error in (*uncorrectable, *correctable)]
        report(LOGGED, f"the status registers hold: {', '.join(names)}")
    root = None
    if offset + 0x38 <= len(config) and port_type(config) in (ROOT_PORT, EVENT_COLLECTOR):
        root = _root(config, offset + 0x2C)
    prefix_log = None
    if control & 0x800 and offset + 0x48 <= len(config):
        prefix_log = "".join(f"{dword:08x}" for dword in _PREFIX.unpack_from(config, offset + 0x38))
    return AdvancedErrorReporting(
        offset=offset,
        version=config[offset + 2] & 0xF,
        uncorrectable_status=uncorrectable,
        uncorrectable_mask=_uncorrectable(mask),
        uncorrectable_severity=_uncorrectable(severity),
        correctable_status=correctable,
        correctable_mask=_correctable(c_mask),
        first_error=control & 0x1F,
        ecrc_generation_capable=control & 0x20 != 0,
        ecrc_generation_enabled=control & 0x40 != 0,
        ecrc_check_capable=control & 0x80 != 0,
        ecrc_check_enabled=control & 0x100 != 0,
        multiple_header_recording_capable=control & 0x200 != 0,
        multiple_header_recording_enabled=control & 0x400 != 0,
        tlp_prefix_log_present=control & 0x800 != 0,
        completion_timeout_log_capable=control & 0x1000 != 0,
        header_log=f"{h0:08x}{h1:08x}{h2:08x}{h3:08x}",
        prefix_log=prefix_log,
        root=root,
    )


def _root(config: bytes, offset: int) -> AerRoot:
    command, status, correctable, uncorrectable = _ROOT.unpack_from(config, offset)
    return AerRoot(
        correctable_reporting=command & 1 != 0,
        nonfatal_reporting=command & 2 != 0,
        fatal_reporting=command & 4 != 0,
        correctable_received=status & 1 != 0,
        multiple_correctable_received=status & 2 != 0,
        uncorrectable_received=status & 4 != 0,
        multiple_uncorrectable_received=status & 8 != 0,
        first_uncorrectable_fatal=status & 0x10 != 0,
        nonfatal_received=status & 0x20 != 0,
        fatal_received=status & 0x40 != 0,
        correctable_subclass=status >> 7 & 3,
        interrupt_message=status >> 27,
        correctable_source=correctable,
        uncorrectable_source=uncorrectable,
    )


def _uncorrectable(value: int) -> tuple[UncorrectableError, ...]:
    value &= _UNCORRECTABLE_MASK
    found = []
    while value:
        bit = value & -value
        found.append(_UNCORRECTABLE[bit])
        value ^= bit
    return tuple(found)


def _correctable(value: int) -> tuple[CorrectableError, ...]:
    value &= _CORRECTABLE_MASK
    found = []
    while value:
        bit = value & -value
        found.append(_CORRECTABLE[bit])
        value ^= bit
    return tuple(found)
