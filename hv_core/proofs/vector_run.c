/* SPDX-License-Identifier: MIT */
/*
 * Taking a free run of 2^ORDER vectors anywhere on a processor in any state, and giving it back, keeps the invariant: a
 * bit of `free` is set exactly when it is set in `usable` and the vector has no owner. What is taken has exactly its
 * owners, what is given back none, and no other vector changes.
 */
#include "proof.h"

#include "../core/vector.c"

static bool holds_at(const struct hv_cpu *cpu, uint32_t vector)
{
    return hv_bit(cpu->free, vector) == (hv_bit(cpu->usable, vector) && cpu->owner[vector] == HV_SOURCE_NONE);
}

void prove(void)
{
    struct hv_cpu cpu; /* anything */
    const uint32_t count = 1u << ORDER;
    uint32_t first = any_u8() & ~(count - 1);
    uint16_t source = any_u16();
    uint8_t watched = any_u8(); /* stands for every vector */
    bool inside = watched >= first && watched < first + count;
    uint16_t owner = cpu.owner[watched];

    assume(source != HV_SOURCE_NONE && source <= 0xffff - 32);
    assume(holds_at(&cpu, watched));
    assume(!inside || hv_bit(cpu.free, watched)); /* hv_run_find found it free: see vector_find.c */
    hv_run_take(&cpu, first, count, source);
    assert(holds_at(&cpu, watched));
    assert(cpu.owner[watched] == (inside ? source + (watched - first) : owner));
    assert(cpu.next_class < 16);
    hv_run_give(&cpu, first, count);
    assert(holds_at(&cpu, watched));
    assert(cpu.owner[watched] == (inside ? HV_SOURCE_NONE : owner));
}
