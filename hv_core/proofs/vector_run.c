/* SPDX-License-Identifier: MIT */
/*
 * Taking a free run of 2^ORDER vectors anywhere on a processor in any state, and giving back any run, keeps the
 * invariant: a bit of `free` is set exactly when it is set in `usable` and the vector has no owner. What is taken has
 * exactly its owners, what is given back none, and no other vector changes.
 */
#include "proof.h"

#include "../core/vector.c"

#define COUNT (1u << ORDER)

static bool holds_at(const struct hv_cpu *cpu, uint32_t vector)
{
    return hv_bit(cpu->free, vector) == (hv_bit(cpu->usable, vector) && cpu->owner[vector] == HV_SOURCE_NONE);
}

static void prove_take(void)
{
    struct hv_cpu cpu; /* anything */
    uint32_t first = any_u8() & ~(COUNT - 1);
    uint16_t source = any_u16();
    uint8_t watched = any_u8(); /* stands for every vector */
    bool inside = watched >= first && watched < first + COUNT;
    uint16_t owner = cpu.owner[watched];

    assume(source != HV_SOURCE_NONE && source <= 0xffff - 32);
    assume(holds_at(&cpu, watched));
    assume(!inside || hv_bit(cpu.free, watched)); /* hv_run_find found it free: see vector_find.c */
    hv_run_take(&cpu, first, COUNT, source);
    assert(holds_at(&cpu, watched));
    assert(cpu.owner[watched] == (inside ? source + (watched - first) : owner));
    assert(cpu.next_class < 16);
}

static void prove_give(void)
{
    struct hv_cpu cpu;
    uint32_t first = any_u8() & ~(COUNT - 1);
    uint8_t watched = any_u8();
    bool inside = watched >= first && watched < first + COUNT;
    uint16_t owner = cpu.owner[watched];

    assume(holds_at(&cpu, watched));
    hv_run_give(&cpu, first, COUNT);
    assert(holds_at(&cpu, watched));
    assert(cpu.owner[watched] == (inside ? HV_SOURCE_NONE : owner));
}

void prove(void)
{
    prove_take();
    prove_give();
}
