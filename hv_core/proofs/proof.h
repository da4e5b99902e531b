/* SPDX-License-Identifier: MIT */
/* What the proofs have in common. Preprocessed with HV_CORE_NO_HEADERS: nothing of a C library is needed. */
#ifndef HV_CORE_PROOF_H
#define HV_CORE_PROOF_H

#include "../core/internal.h"

/* To CBMC, a function of this name without a body returns anything. */
uint8_t nondet_u8(void);
uint16_t nondet_u16(void);
uint32_t nondet_u32(void);
uint64_t nondet_u64(void);
int32_t nondet_i32(void);
void *malloc(size_t bytes);

#define any_u8 nondet_u8
#define any_u16 nondet_u16
#define any_u32 nondet_u32
#define any_u64 nondet_u64
#define any_i32 nondet_i32
#define any_bool() ((nondet_u8() & 1) != 0)
#define assume(condition) __CPROVER_assume(condition)
#define assert(condition) __CPROVER_assert(condition, #condition)

/*
 * CBMC sees through an array inside a structure, but a pointer into one costs it a choice among all bytes of the
 * structure. So the sources included after this file use these in place of the functions; bits.c proves them equal.
 */
#ifndef PROVE_THE_FUNCTIONS
#define hv_bit(words, bit) ((bool)((words)[(bit) / 64] >> ((bit) % 64) & 1))
#define hv_bit_set(words, bit) ((void)((words)[(bit) / 64] |= 1ull << ((bit) % 64)))
#define hv_bit_clear(words, bit) ((void)((words)[(bit) / 64] &= ~(1ull << ((bit) % 64))))
#endif

#endif
