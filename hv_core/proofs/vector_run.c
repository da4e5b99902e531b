/* SPDX-License-Identifier: MIT */
/*
 * Taking and giving back a run of 2^ORDER vectors, anywhere on a processor in any state, keeps the invariant: a bit of
 * `free` is set exactly when it is set in `usable` and the vector has no owner. What is taken has exactly its owners,
 * what is given back none, and no other vector changes.
 */
#include "../core/vector.c"

#include "proof.h"

static struct hv_cpu cpu;

static bool holds_at(uint32_t vector)
{
    uint64_t free = cpu.free[vector / 64] >> (vector % 64) & 1;
    uint64_t usable = cpu.usable[vector / 64] >> (vector % 64) & 1;

    return free == (usable != 0 && cpu.owner[vector] == HV_SOURCE_NONE);
}

void prove(void)
{
    const uint32_t count = 1u << ORDER;
    uint32_t first = any_u8() & ~(count - 1);
    uint16_t source = any_u16();
    uint8_t watched = any_u8(); /* stands for every vector */
    bool inside = watched >= first && watched < first + count;
    uint16_t owner;

    for (uint32_t word = 0; word < 4; word++) {
        cpu.free[word] = any_u64();
        cpu.usable[word] = any_u64();
    }
    owner = any_u16();
    cpu.owner[watched] = owner;
    assume(source != HV_SOURCE_NONE && source <= 0xffff - 32);
    assume(holds_at(watched));
    assume(!inside || (cpu.free[watched / 64] >> (watched % 64) & 1)); /* hv_run_find found it free */
    hv_run_take(&cpu, first, count, source);
    assert(holds_at(watched));
    assert(cpu.owner[watched] == (inside ? source + (watched - first) : owner));
    hv_run_give(&cpu, first, count);
    assert(holds_at(watched));
    assert(cpu.owner[watched] == (inside ? HV_SOURCE_NONE : owner));
}
