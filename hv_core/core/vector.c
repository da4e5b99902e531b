/* SPDX-License-Identifier: MIT */
/*
 * Processors and their vectors: which are free, who has which.
 *
 * A processor's vectors are 64-bit words, a search is a few shifts and one count of trailing zeros; which processors
 * can still give a run of a length is kept in a two-level index, so that neither the number of processors nor of
 * vectors in use changes the cost of an allocation. Priority classes (vector >> 4; Intel SDM 3A, section 11.8.3.1)
 * take turns, since a local APIC may hold only two interrupts a class.
 */
#include "internal.h"

#define CLASS_VECTORS 16u

static bool is_dynamic(uint32_t vector)
{
    return vector >= HV_VECTOR_FIRST && vector <= HV_VECTOR_LAST && vector != HV_VECTOR_SYSTEM_CALL;
}

/* Bits at which an aligned run of 2^order set bits begins. */
static uint64_t run_starts(uint64_t free, uint32_t order)
{
    static const uint64_t aligned[HV_RUN_ORDERS] = {
        0xffffffffffffffffull, 0x5555555555555555ull, 0x1111111111111111ull,
        0x0101010101010101ull, 0x0001000100010001ull, 0x0000000100000001ull,
    };

    for (uint32_t k = 0; k < order; k++)
        free &= free >> (1u << k);
    return free & aligned[order];
}

uint32_t hv_run_find(const struct hv_cpu *cpu, uint32_t order)
{
    uint32_t from = (cpu->next_class % 16u) * CLASS_VECTORS;

    if (order >= HV_RUN_ORDERS)
        return 0;
    /* The word of the class first, from that class on; at last the whole of it, for the classes before. */
    for (uint32_t i = 0; i <= 4; i++) {
        uint32_t word = (from / 64 + i) % 4;
        uint64_t starts = run_starts(cpu->free[word], order);

        if (i == 0)
            starts &= ~0ull << (from % 64);
        if (starts != 0)
            return word * 64 + hv_lowest_bit(starts);
    }
    return 0;
}

void hv_run_take(struct hv_cpu *cpu, uint32_t first, uint32_t count, uint16_t source)
{
    for (uint32_t i = 0; i < count; i++) {
        cpu->owner[first + i] = (uint16_t)(source + i);
        cpu->free[(first + i) / 64] &= ~(1ull << ((first + i) % 64));
    }
    cpu->next_class = (uint8_t)((first / CLASS_VECTORS + 1) % 16u);
}

void hv_run_give(struct hv_cpu *cpu, uint32_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t vector = first + i;

        cpu->owner[vector] = HV_SOURCE_NONE;
        cpu->free[vector / 64] |= cpu->usable[vector / 64] & 1ull << (vector % 64);
    }
}

/* ---- The index of processors ---- */

static void index_write(struct hv_cpu_index *index, uint32_t cpu, bool can)
{
    uint32_t word = cpu / 64;

    if (can)
        hv_bit_set(index->word, cpu);
    else
        hv_bit_clear(index->word, cpu);
    if (index->word[word] != 0)
        index->summary |= 1ull << word;
    else
        index->summary &= ~(1ull << word);
}

/* The first processor at or after `from`, wrapping, or HV_NONE. from is below HV_LIMIT_CPUS. */
static uint32_t index_next(const struct hv_cpu_index *index, uint32_t from)
{
    uint32_t word = from / 64;
    uint64_t bits = index->word[word] & (~0ull << (from % 64));
    uint64_t above = word == 63 ? 0 : index->summary & (~0ull << (word + 1));

    if (bits != 0)
        return word * 64 + hv_lowest_bit(bits);
    if (above == 0)
        above = index->summary;
    if (above == 0)
        return HV_NONE;
    word = hv_lowest_bit(above);
    return word * 64 + hv_lowest_bit(index->word[word]);
}

static bool is_reachable(const struct hv_cpus *cpus, uint32_t cpu)
{
    return cpus->cpu[cpu].apic_id <= cpus->reachable;
}

static void index_refresh(struct hv_cpus *cpus, uint32_t cpu)
{
    bool reachable = is_reachable(cpus, cpu);

    for (uint32_t order = 0; order < HV_RUN_ORDERS; order++)
        index_write(&cpus->can_give[order], cpu, reachable && hv_run_find(&cpus->cpu[cpu], order) != 0);
}

/* ---- Processors ---- */

/* Place in by_apic_id of the first APIC id that is not below this one. */
static uint32_t place_of(const struct hv_cpus *cpus, uint32_t apic_id)
{
    uint32_t low = 0;
    uint32_t high = cpus->count;

    while (low < high) {
        uint32_t middle = (low + high) / 2;

        if (cpus->cpu[cpus->by_apic_id[middle]].apic_id < apic_id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint32_t hv_cpu_by_apic_id(const struct hv_cpus *cpus, uint32_t apic_id)
{
    uint32_t place = place_of(cpus, apic_id);

    if (place == cpus->count || cpus->cpu[cpus->by_apic_id[place]].apic_id != apic_id)
        return HV_NONE;
    return cpus->by_apic_id[place];
}

enum hv_status hv_cpu_add(struct hv_cpus *cpus, uint32_t apic_id)
{
    uint32_t index = cpus->count;
    uint32_t place = place_of(cpus, apic_id);
    struct hv_cpu *cpu;

    if (hv_cpu_by_apic_id(cpus, apic_id) != HV_NONE)
        return HV_EXISTS;
    if (index >= HV_LIMIT_CPUS)
        return HV_NO_SPACE;
    for (uint32_t i = index; i > place; i--)
        cpus->by_apic_id[i] = cpus->by_apic_id[i - 1];
    cpus->by_apic_id[place] = (uint16_t)index;
    cpus->count = index + 1;

    cpu = &cpus->cpu[index];
    cpu->apic_id = apic_id;
    cpu->logical_id = index < 8 ? 1u << index : 0;
    cpu->next_class = HV_VECTOR_FIRST / CLASS_VECTORS;
    for (uint32_t vector = 0; vector < 256; vector++) {
        cpu->owner[vector] = HV_SOURCE_NONE;
        if (is_dynamic(vector))
            hv_bit_set(cpu->usable, vector);
    }
    for (uint32_t word = 0; word < 4; word++)
        cpu->free[word] = cpu->usable[word];
    index_refresh(cpus, index);
    return HV_OK;
}

void hv_vectors_reserve(struct hv_cpus *cpus, uint8_t first, uint8_t last)
{
    for (uint32_t i = 0; i < cpus->count; i++) {
        for (uint32_t vector = first; vector <= last; vector++) {
            hv_bit_clear(cpus->cpu[i].usable, vector);
            hv_bit_clear(cpus->cpu[i].free, vector);
        }
        index_refresh(cpus, i);
    }
}

/* ---- Vectors ---- */

enum hv_status hv_vector_allocate(struct hv_cpus *cpus, uint32_t cpu, uint32_t order, uint16_t source,
                                  struct hv_binding *binding)
{
    uint32_t first;

    if (order >= HV_RUN_ORDERS)
        return HV_INVALID;
    if (cpu == HV_NONE) {
        cpu = index_next(&cpus->can_give[order], cpus->next);
        if (cpu == HV_NONE)
            return HV_NO_SPACE;
        cpus->next = (cpu + 1) % cpus->count;
    } else if (cpu >= cpus->count || !is_reachable(cpus, cpu)) {
        return HV_OUT_OF_RANGE;
    }
    first = hv_run_find(&cpus->cpu[cpu], order);
    if (first == 0)
        return HV_NO_SPACE;
    hv_run_take(&cpus->cpu[cpu], first, 1u << order, source);
    index_refresh(cpus, cpu);
    *binding = (struct hv_binding){.cpu = (uint16_t)cpu, .vector = (uint8_t)first};
    return HV_OK;
}

enum hv_status hv_vector_claim(struct hv_cpus *cpus, uint32_t cpu, uint8_t vector, uint16_t source)
{
    struct hv_cpu *taken;

    if (cpu >= cpus->count || vector < 0x10 || vector > 0xfe)
        return HV_OUT_OF_RANGE;
    taken = &cpus->cpu[cpu];
    if (taken->owner[vector] != HV_SOURCE_NONE && taken->owner[vector] != source)
        return HV_EXISTS;
    taken->owner[vector] = source;
    hv_bit_clear(taken->free, vector);
    index_refresh(cpus, cpu);
    return HV_OK;
}

void hv_vector_free(struct hv_cpus *cpus, struct hv_binding binding)
{
    if (binding.vector == 0 || binding.cpu >= cpus->count)
        return;
    hv_run_give(&cpus->cpu[binding.cpu], binding.vector, 1);
    index_refresh(cpus, binding.cpu);
}

uint16_t hv_vector_owner(const struct hv_cpus *cpus, uint32_t cpu, uint8_t vector)
{
    if (cpu >= cpus->count)
        return HV_SOURCE_NONE;
    return __atomic_load_n(&cpus->cpu[cpu].owner[vector], __ATOMIC_RELAXED);
}
