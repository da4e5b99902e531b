/* SPDX-License-Identifier: MIT */
/*
 * hv_run_find for a run of 2^ORDER vectors, on a processor with any set of free vectors, searched from any class: the
 * run found is aligned and free; none is found only when there is none.
 */
#include "proof.h"

#include "../core/vector.c"

void prove(void)
{
    static struct hv_cpu cpu;
    const uint32_t count = 1u << ORDER;
    uint32_t candidate = any_u8() & ~(count - 1); /* stands for every place a run may begin */
    uint64_t run = count == 64 ? ~0ull : (1ull << count) - 1;
    uint32_t first;

    for (uint32_t word = 0; word < 4; word++)
        cpu.free[word] = any_u64();
    assume(!(cpu.free[0] & 1)); /* vector 0 is never free */
    cpu.next_class = any_u8();
    first = hv_run_find(&cpu, ORDER);
    assert(first % count == 0 && first < 256);
    if (first != 0)
        assert(((cpu.free[first / 64] >> (first % 64)) & run) == run);
    else
        assert(((cpu.free[candidate / 64] >> (candidate % 64)) & run) != run);
}
