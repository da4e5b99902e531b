# SPDX-License-Identifier: MIT
"""Downstream Port Containment, extended capability 001Dh (PCI Express Base 6.0, section 7.9.14)."""

from __future__ import annotations

import enum
import struct
from typing import Final

import msgspec

from dom0kit.finding import Severity, rule
from dom0kit.pci.capabilities import TRUNCATED, ExtendedCapability, Report
from dom0kit.serial import Hex

LENGTH = 0xC


class RpPioError(enum.Enum):
    """What can go wrong with a request of the root port itself, in the order of the register's bits."""

    CONFIG_UR = "configuration request: unsupported"
    CONFIG_CA = "configuration request: completer abort"
    CONFIG_TIMEOUT = "configuration request: timeout"
    IO_UR = "I/O request: unsupported"
    IO_CA = "I/O request: completer abort"
    IO_TIMEOUT = "I/O request: timeout"
    MEMORY_UR = "memory request: unsupported"
    MEMORY_CA = "memory request: completer abort"
    MEMORY_TIMEOUT = "memory request: timeout"


class RpPio(msgspec.Struct, frozen=True, gc=False):
    """Root port programmed I/O: errors of requests that the root port sends down."""

    status: tuple[RpPioError, ...]
    mask: tuple[RpPioError, ...]
    severity: tuple[RpPioError, ...]
    """Those handled as uncorrectable; the others are advisory."""
    system_error: tuple[RpPioError, ...]
    """Those that signal a system error."""
    exception: tuple[RpPioError, ...]
    """Those whose request returns an error to the processor."""
    header_log: Hex
    """The logged TLP's header, 16 bytes in the order sent; empty without a log."""
    implementation_log: int | None
    """ImpSpec Log, 32 bits; None without one."""
    prefix_log: Hex
    """The logged TLP's prefixes, 4 bytes each; empty without them."""


class DownstreamPortContainment(ExtendedCapability, frozen=True, tag="dpc"):
    """A downstream port that takes its link down on an error below it."""

    interrupt_message: int
    """DPC Interrupt Message Number, 0 to 31."""
    rp_extensions: bool
    """RP Extensions for DPC: `rp_pio` exists."""
    poisoned_tlp_blocking_capable: bool
    """Poisoned TLP Egress Blocking Supported."""
    software_trigger_capable: bool
    rp_pio_log_size: int
    """Dwords in the RP PIO logs, 0 to 15: 4 of header, 1 of ImpSpec log, the rest of prefixes."""
    dl_active_err_cor_capable: bool
    """DL_Active ERR_COR Signaling Supported."""
    trigger: int
    """DPC Trigger Enable: 0 off, 1 on ERR_FATAL, 2 on ERR_NONFATAL and ERR_FATAL, 3 reserved."""
    completion_unsupported_request: bool
    """DPC Completion Control: unsupported request, not completer abort."""
    interrupt_enabled: bool
    err_cor_enabled: bool
    poisoned_tlp_blocking_enabled: bool
    software_trigger: bool
    """DPC Software Trigger; reads as 0."""
    dl_active_err_cor_enabled: bool
    triggered: bool
    """DPC Trigger Status: the link is down until this is cleared."""
    reason: int
    """0 unmasked uncorrectable error, 1 ERR_NONFATAL, 2 ERR_FATAL, 3 see `reason_extension`."""
    interrupt_status: bool
    rp_busy: bool
    reason_extension: int
    """0 RP PIO error, 1 software trigger; 2 and 3 reserved."""
    rp_pio_first_error: int
    """RP PIO First Error Pointer, 0 to 31."""
    source: int
    """DPC Error Source ID: requester id of the message that triggered."""
    rp_pio: RpPio | None
    """None without `rp_extensions`, and where it cannot be read."""


TRIGGERED: Final = rule(
    "pci.dpc-triggered",
    Severity.WARNING,
    title="downstream port containment has triggered",
    meaning="The port has taken its link down after an error and keeps it down: nothing below it answers.",
    advice="Find the cause in the error registers of the port, then clear DPC Trigger Status and scan below the port "
    "again; the device below was reset.",
    specification="PCI Express Base 6.0, sections 6.2.11 and 7.9.14.4",
)

_REGISTERS: Final = struct.Struct("<HHHH")
_RP_PIO: Final = struct.Struct("<5I")
_ERRORS: Final = tuple(
    (1 << bit, error) for bit, error in zip((0, 1, 2, 8, 9, 10, 16, 17, 18), RpPioError, strict=True)
)
_REASONS: Final = ("an unmasked uncorrectable error", "ERR_NONFATAL from {}", "ERR_FATAL from {}")
_EXTENDED_REASONS: Final = ("an RP PIO error", "software", "reserved reason 2", "reserved reason 3")


def decode(config: bytes, offset: int, report: Report) -> DownstreamPortContainment:
    capability, control, status, source = _REGISTERS.unpack_from(config, offset + 4)
    if status & 1:
        reason = status >> 1 & 3
        text = _EXTENDED_REASONS[status >> 5 & 3] if reason == 3 else _REASONS[reason]
        address = f"{source >> 8:02x}:{source >> 3 & 0x1F:02x}.{source & 7}"
        report(TRIGGERED, f"triggered by {text.format(address)}")
    return DownstreamPortContainment(
        offset=offset,
        version=config[offset + 2] & 0xF,
        interrupt_message=capability & 0x1F,
        rp_extensions=capability & 0x20 != 0,
        poisoned_tlp_blocking_capable=capability & 0x40 != 0,
        software_trigger_capable=capability & 0x80 != 0,
        rp_pio_log_size=capability >> 8 & 0xF,
        dl_active_err_cor_capable=capability & 0x1000 != 0,
        trigger=control & 3,
        completion_unsupported_request=control & 4 != 0,
        interrupt_enabled=control & 8 != 0,
        err_cor_enabled=control & 0x10 != 0,
        poisoned_tlp_blocking_enabled=control & 0x20 != 0,
        software_trigger=control & 0x40 != 0,
        dl_active_err_cor_enabled=control & 0x80 != 0,
        triggered=status & 1 != 0,
        reason=status >> 1 & 3,
        interrupt_status=status & 8 != 0,
        rp_busy=status & 0x10 != 0,
        reason_extension=status >> 5 & 3,
        rp_pio_first_error=status >> 8 & 0x1F,
        source=source,
        rp_pio=_rp_pio(config, offset, capability >> 8 & 0xF, report) if capability & 0x20 else None,
    )


def _rp_pio(config: bytes, offset: int, log_size: int, report: Report) -> RpPio | None:
    end = offset + 0x20 + 4 * log_size
    if end > len(config):
        report(TRUNCATED, f"the RP PIO registers end at {end - 1:#05x}, beyond the {len(config)} readable bytes")
        if offset + 0x20 > len(config):
            return None
        log_size = (len(config) - offset - 0x20) // 4
    log = struct.unpack_from(f"<{log_size}I", config, offset + 0x20)
    status, mask, severity, system_error, exception = _RP_PIO.unpack_from(config, offset + 0xC)
    return RpPio(
        status=_errors(status),
        mask=_errors(mask),
        severity=_errors(severity),
        system_error=_errors(system_error),
        exception=_errors(exception),
        header_log="".join(f"{dword:08x}" for dword in log[:4]) if log_size >= 4 else "",
        implementation_log=log[4] if log_size >= 5 else None,
        prefix_log="".join(f"{dword:08x}" for dword in log[5:]),
    )


def _errors(value: int) -> tuple[RpPioError, ...]:
    return tuple(error for bit, error in _ERRORS if value & bit)
