/* SPDX-License-Identifier: MIT */
/*
 * hv_bit, hv_bit_set and hv_bit_clear, for any 256 bits and any of them: the one bit is read, set, cleared and no other
 * changes; and they do what the macros do that stand for them in the other proofs. hv_lowest_bit, for any word that is
 * not 0: that bit is set and none below it.
 */
#define PROVE_THE_FUNCTIONS
#include "proof.h"

static bool read_bit(const uint64_t *words, uint32_t bit)
{
    return hv_bit(words, bit);
}

static void set_bit(uint64_t *words, uint32_t bit)
{
    hv_bit_set(words, bit);
}

static void clear_bit(uint64_t *words, uint32_t bit)
{
    hv_bit_clear(words, bit);
}

#undef PROVE_THE_FUNCTIONS
#undef HV_CORE_PROOF_H
#include "proof.h"

static void prove_bits(void)
{
    uint64_t words[4] = {any_u64(), any_u64(), any_u64(), any_u64()};
    uint64_t same[4] = {words[0], words[1], words[2], words[3]};
    uint32_t bit = any_u8();
    uint32_t other = any_u8();
    bool before = hv_bit(words, other);

    assert(read_bit(words, bit) == hv_bit(words, bit));
    set_bit(words, bit);
    hv_bit_set(same, bit);
    assert(read_bit(words, bit) && (other == bit || read_bit(words, other) == before));
    for (uint32_t word = 0; word < 4; word++)
        assert(words[word] == same[word]);
    clear_bit(words, bit);
    hv_bit_clear(same, bit);
    assert(!read_bit(words, bit) && (other == bit || read_bit(words, other) == before));
    for (uint32_t word = 0; word < 4; word++)
        assert(words[word] == same[word]);
}

static void prove_lowest(void)
{
    uint64_t word = any_u64();
    uint32_t lowest;

    assume(word != 0);
    lowest = hv_lowest_bit(word);
    assert(lowest < 64 && (word >> lowest & 1) && (word & ((1ull << lowest) - 1)) == 0);
}

void prove(void)
{
    prove_bits();
    prove_lowest();
}
