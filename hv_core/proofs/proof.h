/* SPDX-License-Identifier: MIT */
/* What the proofs have in common. A nondet function returns anything. */
#ifndef HV_CORE_PROOF_H
#define HV_CORE_PROOF_H

#include <assert.h>
#include <stdlib.h>

#include "../core/internal.h"

uint8_t nondet_u8(void);
uint16_t nondet_u16(void);
uint32_t nondet_u32(void);
uint64_t nondet_u64(void);
bool nondet_bool(void);

#define any_u8 nondet_u8
#define any_u16 nondet_u16
#define any_u32 nondet_u32
#define any_u64 nondet_u64
#define any_bool nondet_bool
#define assume(condition) __CPROVER_assume(condition)

#endif
