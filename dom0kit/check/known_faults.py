# SPDX-License-Identifier: MIT
"""Hardware that is known to be broken (`dom0kit.pci.quirks`), where this machine has it and something rests on it."""

from __future__ import annotations

from collections.abc import Iterator

from dom0kit.check.rules import Told, View, capability, check
from dom0kit.finding import Severity
from dom0kit.pci import quirks
from dom0kit.pci.capabilities.ats import AddressTranslationServices
from dom0kit.pci.capabilities.msi import Msi
from dom0kit.pci.capabilities.msix import MsiX
from dom0kit.pci.quirks import AspmState, Wrong

_BITS = {AspmState.L0S: 1, AspmState.L1: 2}
_INTERRUPT_DISABLE = 1 << 10


@check(
    "msi.known-broken",
    Severity.INFO,
    title="hardware on which MSI is known not to work",
    meaning="By Linux's list messages do not arrive on this machine, behind this bridge, or from this function, "
    "whatever the capabilities say: Linux turns MSI off there, and functions must be given INTx, with all who share "
    "the line.",
    advice="Plan these functions with INTx; dom0 must not be told to turn MSI on there.",
    specification="Linux drivers/pci/quirks.c (quirk_disable_all_msi, quirk_disable_msi)",
)
def no_msi(view: View) -> Iterator[Told]:
    for function in view.read:
        for quirk in quirks.no_msi().of(function):
            if quirk.fits(function):
                yield function.where, f"{quirk.about} (reach: {quirk.reach.value})"


@check(
    "msi.interrupt-disable",
    Severity.INFO,
    title="a function whose Interrupt Disable also stops MSI",
    meaning="Whoever turns MSI on usually sets Interrupt Disable in the command register. This function then sends no "
    "messages either: the bit must stay clear.",
    advice="Nothing under Linux, which knows it. A core that sets the bit itself must leave this function out.",
    specification="Linux drivers/pci/quirks.c (quirk_msi_intx_disable_bug)",
)
def interrupt_disable(view: View) -> Iterator[Told]:
    for function in view.read:
        for quirk in quirks.disable_stops_msi().of(function):
            able = capability(function, Msi) is not None or capability(function, MsiX) is not None
            if able and quirk.fits(function):
                state = "set" if function.command & _INTERRUPT_DISABLE else "clear"
                yield function.where, f"{quirk.about}; it is {state} now"


@check(
    "pci.intx-not-maskable",
    Severity.INFO,
    title="a function whose INTx pin cannot be masked",
    meaning="Interrupt Disable of this function does not silence its pin, or its status bit does not say who "
    "interrupted. Given to a guest it needs a line of its own: on a shared one the others wait until the guest has "
    "answered.",
    advice="Use MSI, or give all functions of its GSI to one domain.",
    specification="Linux drivers/pci/quirks.c (quirk_broken_intx_masking), drivers/vfio/pci/vfio_pci_core.c",
)
def not_maskable(view: View) -> Iterator[Told]:
    for function in view.read:
        for quirk in quirks.broken_masking().of(function):
            if function.interrupt_pin is not None:
                yield function.where, quirk.about


@check(
    "pci.aspm-known-broken",
    Severity.WARNING,
    title="a link power state turned on that is known to break this device",
    meaning="By Linux's list the device hangs or loses data in this power state, and the state is turned on in its "
    "link.",
    advice="Let Linux configure the link (without pcie_aspm=off), or turn the state off in the firmware's set-up.",
    specification="Linux drivers/pci/quirks.c (quirk_disable_aspm_l0s)",
)
def aspm(view: View) -> Iterator[Told]:
    for sbdf, express in view.express.items():
        function = view.functions[sbdf]
        for quirk in quirks.broken_aspm().of(function):
            on = [of.value for of in quirk.states if express.link is not None and express.link.aspm_control & _BITS[of]]
            if on:
                yield function.where, f"{quirk.about}: {' '.join(on)}"


@check(
    "iommu.ats-known-broken",
    Severity.WARNING,
    title="address translation services on that give wrong answers",
    meaning="The function's own cache of translations is known to keep what the IOMMU has withdrawn, and it is "
    "enabled: the function can write to memory that it has lost. Linux leaves ATS of this device off.",
    advice="Turn ATS off in the function (pci=noats), before it is given away.",
    specification="Linux drivers/pci/quirks.c (quirk_no_ats)",
)
def ats(view: View) -> Iterator[Told]:
    for function in view.read:
        services = capability(function, AddressTranslationServices)
        for quirk in quirks.broken_ats().of(function):
            if services is not None and services.enabled and quirk.fits(function):
                yield function.where, quirk.about


@check(
    "pci.bars-not-compliant",
    Severity.INFO,
    title="base address registers that are none",
    meaning="Other registers of this function lie where BARs should be. What is shown as its BARs means nothing, and "
    "sizing them would change the registers: Linux does not touch them.",
    advice="Do not assign the function; do not believe findings about its BARs.",
    specification="Linux arch/x86/pci/fixup.c (pci_invalid_bar)",
)
def bars(view: View) -> Iterator[Told]:
    for function in view.read:
        for quirk in quirks.broken_bars().of(function):
            yield function.where, quirk.about


_WRONG = {
    Wrong.WINDOWS: "do not believe _CRS of the root bridges (pci=nocrs)",
    Wrong.SEGMENTS: "do not believe _SEG",
    Wrong.MAP: "the memory map reserves what root bridges pass on (pci=no_e820)",
}


@check(
    "aml.known-broken",
    Severity.INFO,
    title="a machine whose firmware is known to describe PCI wrongly",
    meaning="This machine is on Linux's list by its DMI names. Linux then leaves out what firmware says; so must "
    "whoever else places BARs or counts segments by it.",
    advice="Take the addresses that are set, not those that firmware offers.",
    specification="Linux arch/x86/pci/acpi.c (pci_crs_quirks)",
)
def machine(view: View) -> Iterator[Told]:
    named = view.platform.machine
    for quirk in quirks.machines():
        if quirk.fits(
            system=named.vendor or "",
            product=named.product or "",
            version=named.version or "",
            board=named.board or "",
            firmware=named.firmware or "",
        ):
            yield "machine", f"{quirk.about}: {_WRONG[quirk.wrong]}"
