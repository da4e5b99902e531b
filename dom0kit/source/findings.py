# SPDX-License-Identifier: MIT
"""What can be wrong with a source itself: the rules, and a list that cannot grow without bound."""

from __future__ import annotations

from typing import Final

from dom0kit.finding import Finding, Rule, Severity, rule

NEEDS_ROOT: Final = rule(
    "source.needs-root",
    Severity.INFO,
    title="Root would see more",
    meaning="Some files of this machine can be read by root only: ACPI tables (mode 0400), config space beyond byte 64 "
    "(the capabilities), addresses in /proc/iomem, serial numbers, the kernel's log. What depends on them is missing.",
    advice="Run the same command with sudo.",
    specification="Linux drivers/acpi/sysfs.c (table attributes), drivers/pci/pci-sysfs.c (pci_read_config)",
)
ASLEEP: Final = rule(
    "source.asleep",
    Severity.INFO,
    title="Function asleep, not read",
    meaning="The function is in D3cold, or a bridge above it is suspended. Reading its config space would have woken "
    "it or the bridge, and reading leaves the machine as it was; only what the kernel remembers is known.",
    advice="Use the device, or repeat with --wake.",
    specification="PCI Express Base 6.0, section 5.3.1.4 (D3cold); Linux drivers/pci/pci.c (pci_config_pm_runtime_get)",
)
UNREADABLE_FILE: Final = rule(
    "source.unreadable-file",
    Severity.WARNING,
    title="A file could not be read",
    meaning="The file is there but reading it failed; what it holds is missing from the picture.",
    advice="Read the file by hand; an I/O error on config space means that the device has gone or does not answer.",
    specification="Linux Documentation/filesystems/sysfs.rst",
)
DAMAGED: Final = rule(
    "source.damaged",
    Severity.WARNING,
    title="Recording or dump is damaged",
    meaning="Part of the recording or text is cut off, garbled or out of order. What came before the damage is kept.",
    advice="Ask for the file again, as an attachment or compressed; mail programs wrap and cut long text.",
    specification="acpidump(8), lspci(8) option -xxxx, POSIX.1-2017 pax (ustar interchange format), RFC 1952 (gzip)",
)
DUPLICATE: Final = rule(
    "source.duplicate",
    Severity.WARNING,
    title="Something is in the source twice",
    meaning="The same PCI function or file occurs more than once; the first is used.",
    advice="Check whether two machines' dumps were joined in one file.",
    specification="lspci(8); POSIX.1-2017 pax (ustar interchange format)",
)
TOO_MUCH: Final = rule(
    "source.too-much",
    Severity.WARNING,
    title="More than a machine can have",
    meaning="The source holds more entries or longer files than any real machine; the rest is left out.",
    advice="Check where the file comes from.",
    specification="dom0kit limits: 65,536 functions, 1,024 tables of 32 MiB, 16 MiB a file, 64 MiB a recording",
)
NO_CONFIG: Final = rule(
    "source.no-config-space",
    Severity.WARNING,
    title="Function listed without config space",
    meaning="The lspci text names the function but has no hexadecimal dump of it.",
    advice="Make the text with lspci -Dvvvxxxx as root.",
    specification="lspci(8), options -x, -xxx, -xxxx",
)

MAXIMUM: Final = 200
"""Findings that one source keeps; the last one then says that there were more."""


class Findings:
    """A bounded list of findings."""

    def __init__(self) -> None:
        self._list: list[Finding] = []

    def add(self, rule: Rule, where: str, message: str) -> None:
        if len(self._list) < MAXIMUM:
            self._list.append(rule.at(where, message))
        elif len(self._list) == MAXIMUM:
            self._list.append(TOO_MUCH.at("source", f"more than {MAXIMUM} findings about the source itself"))

    def all(self) -> tuple[Finding, ...]:
        return tuple(self._list)
