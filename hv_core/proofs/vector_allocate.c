/* SPDX-License-Identifier: MIT */
/*
 * hv_vector_allocate, hv_vector_claim and hv_vector_free on the processor of a machine of one, in any state that keeps
 * the invariant (see vector_run.c): they keep it, for every vector and source, and make the index say of each length of
 * run whether there is one; what is allocated was free and dynamic; a refusal changes nothing. A processor that does
 * not exist is refused. STEP is 0: claim, 1: free, 2: what is refused, 3 to 8: allocate a run of 2^(STEP - 3).
 */
#include "proof.h"

#include "../core/vector.c"

static bool vector_holds(const struct hv_cpus *cpus, uint32_t vector)
{
    const struct hv_cpu *cpu = &cpus->cpu[0];
    bool usable = hv_bit(cpu->usable, vector);

    return hv_bit(cpu->free, vector) == (usable && cpu->owner[vector] == HV_SOURCE_NONE) &&
           (!usable || (vector >= HV_VECTOR_FIRST && vector <= HV_VECTOR_LAST));
}

/* The index says of each length whether there is a run. */
static bool index_holds(const struct hv_cpus *cpus)
{
    bool reachable = cpus->cpu[0].apic_id <= cpus->reachable;
    bool holds = true;

    for (uint32_t order = 0; order < HV_RUN_ORDERS; order++) {
        bool can = reachable && hv_run_find(&cpus->cpu[0], order) != 0;

        holds = holds && cpus->can_give[order].word[0] == can && cpus->can_give[order].summary == can;
    }
    return holds;
}

static bool index_is_unchanged(const struct hv_cpus *cpus, const struct hv_cpus *before)
{
    bool is = true;

    for (uint32_t order = 0; order < HV_RUN_ORDERS; order++)
        is = is && cpus->can_give[order].word[0] == before->can_give[order].word[0] &&
             cpus->can_give[order].summary == before->can_give[order].summary;
    return is;
}

void prove(void)
{
    struct hv_cpus cpus; /* anything */
    struct hv_cpus before;
    struct hv_binding binding = {0};
    uint8_t watched = any_u8(); /* stands for every vector */
    uint8_t vector = any_u8();
    uint16_t source = any_u16();
    uint16_t owner;
    uint32_t count;
    enum hv_status status = HV_INVALID;

    cpus.count = 1;
    cpus.by_apic_id[0] = 0;
    assume(vector_holds(&cpus, watched));
    assume(!hv_bit(cpus.cpu[0].free, 0));
    for (uint32_t order = 0; order < HV_RUN_ORDERS; order++)
        assume(cpus.can_give[order].word[0] <= 1 && cpus.can_give[order].summary == cpus.can_give[order].word[0]);
    before = cpus;
    assume(source != HV_SOURCE_NONE && source <= 0xffff - 32);
    owner = cpus.cpu[0].owner[watched];
    switch (STEP) {
    case 0:
        status = hv_vector_claim(&cpus, 0, vector, source);
        assert(status == HV_OK || status == HV_EXISTS || status == HV_OUT_OF_RANGE);
        assert((status == HV_OUT_OF_RANGE) == (vector < 0x10 || vector > 0xfe));
        if (watched == vector && status != HV_OUT_OF_RANGE)
            assert((status == HV_EXISTS) == (owner != HV_SOURCE_NONE && owner != source));
        if (watched == vector && status == HV_OK)
            owner = source;
        break;
    case 1:
        status = vector != 0 ? HV_OK : HV_INVALID;
        hv_vector_free(&cpus, (struct hv_binding){.cpu = any_u16(), .vector = 0});
        hv_vector_free(&cpus, (struct hv_binding){.cpu = 1, .vector = vector});
        hv_vector_free(&cpus, (struct hv_binding){.cpu = 0, .vector = vector});
        if (vector != 0 && watched == vector)
            owner = HV_SOURCE_NONE;
        break;
    case 2:
        assert(hv_vector_allocate(&cpus, 1, 0, source, &binding) == HV_OUT_OF_RANGE);
        assert(hv_vector_allocate(&cpus, 0, HV_RUN_ORDERS, source, &binding) == HV_INVALID);
        assert(hv_vector_claim(&cpus, 1, vector, source) == HV_OUT_OF_RANGE);
        assert(hv_vector_owner(&cpus, 1, vector) == HV_SOURCE_NONE);
        assert(hv_vector_owner(&cpus, 0, watched) == owner);
        break;
    default:
        count = 1u << (STEP - 3);
        status = hv_vector_allocate(&cpus, 0, STEP - 3, source, &binding);
        assert(status == HV_OK || status == HV_NO_SPACE || status == HV_OUT_OF_RANGE);
        if (status == HV_OK && watched >= binding.vector && watched < binding.vector + count) {
            assert(owner == HV_SOURCE_NONE && hv_bit(cpus.cpu[0].usable, watched));
            owner = (uint16_t)(source + (watched - binding.vector));
        }
        break;
    }
    assert(cpus.cpu[0].owner[watched] == owner);
    assert(vector_holds(&cpus, watched));
    assert(status == HV_OK ? index_holds(&cpus) : index_is_unchanged(&cpus, &before));
}
