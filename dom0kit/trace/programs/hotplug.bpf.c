/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* The steps of a hotplug, in the kernel's order; which function it is about, its own events say (netlink). */
#define STEP(name, kind)             \
    int name(struct pt_regs *ctx)    \
    {                                \
        tell(kind, 0, 0, 0);         \
        return 0;                    \
    }

STEP(on_interrupt, KIND_SLOT_INTERRUPT)
STEP(on_presence, KIND_PRESENCE)
STEP(on_configure, KIND_CONFIGURE)
STEP(on_unconfigure, KIND_UNCONFIGURE)
STEP(on_notify, KIND_ACPI_NOTIFY)
STEP(on_scan, KIND_SCAN)
STEP(on_add, KIND_ADD)
STEP(on_remove, KIND_REMOVE)
