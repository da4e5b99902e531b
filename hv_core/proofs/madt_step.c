/* SPDX-License-Identifier: MIT */
/*
 * hv_madt_step, for an entry of any bytes in a table with any number of bytes left: it reads nothing beyond what it was
 * given, and its answer moves the walk forward and never beyond the table. So the walk ends, for tables of any length.
 */
#include "proof.h"

#include "../core/acpi_static.c"

void prove(void)
{
    uint32_t left = any_u32();
    uint32_t given = left < HV_MADT_WINDOW ? left : HV_MADT_WINDOW;
    uint8_t *at = malloc(given); /* exactly: a byte more read is found */
    struct hv_madt_entry entry;
    uint32_t step;

    assume(at != NULL);
    step = hv_madt_step(at, left, &entry);

    assert(step == 0 || (step >= 2 && step <= left));
    assert(step != 0 || entry.kind == HV_MADT_OTHER);
    assert(entry.kind != HV_MADT_IOAPIC || step >= 12);
    assert(entry.kind != HV_MADT_CPU || step >= 8);
}
