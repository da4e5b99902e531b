# SPDX-License-Identifier: MIT
"""What can be wrong with what comes and goes."""

from __future__ import annotations

from typing import Final

from dom0kit.finding import Severity, rule

SURPRISE: Final = rule(
    "hotplug.surprise-removal",
    Severity.WARNING,
    title="a function was pulled without notice",
    meaning="Its config space read as all ones before the kernel took it out of its list: nobody stopped its driver "
    "first. What it was doing is lost. All that the hypervisor kept of it was given back.",
    advice="Take cards out by their button, the slot's power file, or echo 1 > remove; or look at the link's errors.",
    specification="PCI Express Base 6.0, sections 2.3.2 and 6.7.1.8: a read that nobody completes gives all ones",
)
LOST: Final = rule(
    "hotplug.events-lost",
    Severity.INFO,
    title="more events than the buffer holds",
    meaning="The kernel told of more than the socket's buffer holds, and dropped the rest. Everything was enumerated "
    "again, so no function was missed; how often one came and went in between nobody knows.",
    advice="Run as root, which may have a larger buffer. Look for a link that flaps.",
    specification="netlink(7): ENOBUFS",
)
FLAPPING: Final = rule(
    "hotplug.flapping",
    Severity.WARNING,
    title="a function that comes and goes too often",
    meaning="More arrivals at this address than the policy's limits allow. It is refused until it was quiet as long.",
    advice="Look at the card, its slot and its link; or raise [limits] of the policy.",
    specification="PCI Express Base 6.0, section 4.2.7: a link that cannot hold goes down and is trained again",
)
TOO_MANY: Final = rule(
    "hotplug.too-many",
    Severity.WARNING,
    title="more functions than the policy allows",
    meaning="As many functions as the policy's limit were plugged in already. This one is refused.",
    advice="Raise [limits] functions of the policy, or enable fewer virtual functions.",
    specification="dom0kit: dom0kit/hotplug/policy.py",
)
NOT_DONE: Final = rule(
    "hotplug.not-done",
    Severity.ERROR,
    title="a plan of hotplug could not be applied",
    meaning="Hypervisor or Linux refused. Everything the plan had done was taken back, and it is tried again at the "
    "next event.",
    advice="The message says who refused and why.",
    specification="dom0kit: dom0kit/hypercall/apply.py",
)
NO_DOMAIN: Final = rule(
    "hotplug.no-domain",
    Severity.WARNING,
    title="a function for a domain that is not there",
    meaning="The policy gives the function to a domain that the hypervisor does not have. It stays in quarantine until "
    "there is one.",
    advice="Start the domain, or correct the policy.",
    specification="dom0kit: docs/abi.md, assign_device: NO_DOMAIN",
)
GROUP: Final = rule(
    "hotplug.group-divided",
    Severity.WARNING,
    title="an isolation group that would be divided among domains",
    meaning="An IOMMU cannot keep this function apart from others of its group, which are somebody else's. It stays in "
    "quarantine.",
    advice="Give all functions of the group to one domain; dom0kit enumerate shows what joins them.",
    specification="PCI Express Base 6.0, section 6.12; Linux, drivers/iommu/iommu.c, pci_device_group",
)
SHARED_GSI: Final = rule(
    "hotplug.gsi-shared",
    Severity.INFO,
    title="a pin that stays behind, for others share its GSI",
    meaning="The function's INTx pin leads to a GSI that others use as well. A level-triggered GSI cannot be shared by "
    "domains, so the domain gets the function's messages only.",
    advice="Nothing where its driver uses MSI. Else give all users of the GSI to one domain.",
    specification="Intel 82093AA, section 3.4.2",
)
MUTE: Final = rule(
    "hotplug.no-interrupt",
    Severity.WARNING,
    title="a function that could not interrupt its domain",
    meaning="Its GSI is shared with others, and it has no MSI. It stays in quarantine.",
    advice="Give all users of the GSI to one domain.",
    specification="Intel 82093AA, section 3.4.2",
)
BOUND_FIRST: Final = rule(
    "hotplug.bound-first",
    Severity.INFO,
    title="a driver was quicker than the quarantine",
    meaning="Linux binds a driver to a new function a few milliseconds after it told of it, and nothing but "
    "driver_override keeps it from that (drivers_autoprobe does not). Here it came first. The driver was unbound.",
    advice="Nothing, if the driver let go. Of virtual functions Linux can keep drivers off from the beginning: "
    "echo 0 > sriov_drivers_autoprobe of the physical function. Or do not load the driver (modprobe.blacklist=).",
    specification="Linux, drivers/pci/bus.c, pci_bus_add_device; Documentation/ABI/testing/sysfs-bus-pci",
)
IOAPIC_OVERLAP: Final = rule(
    "hotplug.ioapic-overlap",
    Severity.ERROR,
    title="an IOAPIC that appeared with GSIs of another",
    meaning="Its GSI base lies among the pins of an IOAPIC that the hypervisor has. It is not added.",
    advice="Update the firmware: `_GSB` and `_MAT` give each IOAPIC GSIs of its own.",
    specification="ACPI 6.5, sections 5.2.13 and 6.2.7",
)
IOAPIC_CONTRADICTION: Final = rule(
    "hotplug.ioapic-contradiction",
    Severity.WARNING,
    title="an IOAPIC whose device contradicts itself",
    meaning="`_GSB` and `_MAT` of the IOAPIC's device, or `_CRS` and `_MAT`, say different GSI bases or addresses. "
    "`_GSB` and `_CRS` count, as in Linux.",
    advice="Update the firmware.",
    specification="ACPI 6.5, sections 6.2.7 and 6.2.11; Linux, drivers/acpi/ioapic.c",
)
IOAPIC_IN_USE: Final = rule(
    "hotplug.ioapic-in-use",
    Severity.ERROR,
    title="an IOAPIC that goes while its pins are in use",
    meaning="Its device in the namespace is gone, but the hypervisor still routes some of its GSIs. It stays until the "
    "users that are named have let go.",
    advice="Unbind or remove the users first.",
    specification="ACPI 6.5, section 6.3.3: an ejected device is not used any more",
)
IOAPIC_NO_CALL: Final = rule(
    "hotplug.ioapic-no-call",
    Severity.INFO,
    title="an IOAPIC that the hypervisor cannot be told of",
    meaning="Xen reads the MADT once, at boot, and has no call to add or remove an IOAPIC. Its GSIs cannot be used "
    "until Xen is booted again; functions that lead to them can use MSI.",
    advice="Have firmware list it in the MADT, or boot again.",
    specification="Xen, arch/x86/io_apic.c; physdev.h has no such operation",
)
LEDGER: Final = rule(
    "hotplug.ledger",
    Severity.WARNING,
    title="what was reconciled before cannot be read",
    meaning="The ledger is damaged or somebody else's, so it is not known what went while nobody watched. The "
    "functions that are here count as there from the beginning.",
    advice="Look who wrote it. It is written anew.",
    specification="dom0kit: dom0kit/hotplug/ledger.py",
)
UNREACHABLE: Final = rule(
    "hotplug.rule-unreachable",
    Severity.WARNING,
    title="a rule of a policy that never decides",
    meaning="A rule before it fits whatever it fits, and the first that fits decides.",
    advice="Put the special rules before the general ones, or take it out.",
    specification="dom0kit: dom0kit/hotplug/policy.py",
)
