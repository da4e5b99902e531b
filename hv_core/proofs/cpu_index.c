/* SPDX-License-Identifier: MIT */
/*
 * The two-level index of processors, for 4096 of them in any state where the summary is true to its words: writing a
 * processor's bit keeps it so and changes no other; the search gives a processor whose bit is set, the first from any
 * place on, wrapping; it gives none only when no bit is set.
 */
#include "proof.h"

#include "../core/vector.c"

#define WORDS HV_WORDS(HV_LIMIT_CPUS)

static bool word_holds(const struct hv_cpu_index *index, uint32_t word)
{
    return (index->summary >> word & 1) == (index->word[word] != 0);
}

static void prove_write(void)
{
    struct hv_cpu_index index; /* anything */
    uint32_t cpu = any_u16() % HV_LIMIT_CPUS;
    uint32_t watched = any_u16() % HV_LIMIT_CPUS; /* stands for every processor */
    bool can = any_bool();
    bool before = hv_bit(index.word, watched);

    assume(word_holds(&index, watched / 64));
    index_write(&index, cpu, can);
    assert(word_holds(&index, watched / 64));
    assert(hv_bit(index.word, watched) == (watched == cpu ? can : before));
}

static void prove_next(void)
{
    struct hv_cpu_index index;
    uint32_t from = any_u16() % HV_LIMIT_CPUS;
    uint32_t watched = any_u16() % HV_LIMIT_CPUS;
    uint32_t next;

    for (uint32_t word = 0; word < WORDS; word++)
        assume(word_holds(&index, word));
    next = index_next(&index, from);
    if (next == HV_NONE) {
        assert(!hv_bit(index.word, watched));
        return;
    }
    assert(next < HV_LIMIT_CPUS && hv_bit(index.word, next));
    /* None between: from `from` up to it, around the end where it lies before. */
    if (next >= from)
        assert(watched < from || watched >= next || !hv_bit(index.word, watched));
    else if (watched >= from)
        assert(!hv_bit(index.word, watched));
}

void prove(void)
{
    prove_write();
    prove_next();
}
