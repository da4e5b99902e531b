/* SPDX-License-Identifier: MIT */
/*
 * Redirection entries, for all 2^64 values before and after, in every format: what hv_entry_check lets through carries
 * no SMI, NMI, INIT or ExtINT unless firmware left it and it stays masked, no reserved bit, and when unmasked a vector
 * that may be one; what hv_entry_compose makes is always let through.
 */
#include "proof.h"

#include "../core/ioapic.c"

static bool has_mode(uint64_t entry, enum hv_format format)
{
    return !hv_entry_is_remapped(entry, format);
}

static void prove_check(void)
{
    uint64_t entry = any_u64();
    uint64_t before = any_u64();
    enum hv_format format = (enum hv_format)(any_u8() % 4);
    uint64_t mode = (entry >> 8) & 7;
    bool masked = (entry & HV_ENTRY_MASKED) != 0;
    enum hv_status status = hv_entry_check(entry, before, format);

    assert(status == HV_OK || status == HV_INVALID);
    if (status != HV_OK)
        return;
    if (has_mode(entry, format)) {
        assert(mode <= 1 || (masked && mode == ((before >> 8) & 7)));
        assert(masked || ((entry & 0xff) >= 0x10 && (entry & 0xff) <= 0xfe));
    }
    /* Bits 17 to 47 mean nothing in any format. */
    assert((entry & 0x0000fffffffe0000ull) == 0);
    if (format == HV_FORMAT_COMPATIBILITY)
        assert((entry & 0x00fffffffffe0000ull) == 0);
    if (format == HV_FORMAT_VTD && (entry & HV_ENTRY_REMAPPABLE))
        assert(mode == 0);
}

static void prove_compose(void)
{
    enum hv_format format = (enum hv_format)(any_u8() % 4);
    uint8_t vector = any_u8();
    bool masked = any_bool();
    uint64_t entry;

    assume(vector >= 0x10 && vector <= 0xfe);
    entry = hv_entry_compose(format, any_u32(), vector, any_u16(), any_bool(), any_bool(), masked);
    assert(hv_entry_check(entry, any_u64(), format) == HV_OK);
    assert(((entry & HV_ENTRY_MASKED) != 0) == masked);
    assert((entry & HV_ENTRY_STATUS) == 0);
}

void prove(void)
{
    prove_check();
    prove_compose();
}
