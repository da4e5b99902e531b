/* SPDX-License-Identifier: MIT */
/*
 * Redirection entries, for all 2^64 values, over all 2^64 values before, in every format. hv_entry_check lets through
 * exactly what may_be says, so no SMI, NMI, INIT or ExtINT but what firmware left and stays masked, no reserved bit,
 * and unmasked no vector that is none. What hv_entry_compose makes for any processor, vector and handle is let through
 * and leads there.
 */
#include "proof.h"

#include "../core/ioapic.c"

#define BITS(entry, high, low) ((entry) >> (low) & ((2ull << ((high) - (low))) - 1))

/* The formats of the specifications (enum hv_format), read field by field. */
static bool may_be(uint64_t entry, uint64_t before, enum hv_format format)
{
    uint64_t mode = BITS(entry, 10, 8);
    bool masked = BITS(entry, 16, 16);
    uint64_t vector = BITS(entry, 7, 0);

    if (BITS(entry, 47, 17) != 0)
        return false;
    if (format == HV_FORMAT_AMD_VI) /* index: 10:0 */
        return BITS(entry, 11, 11) == 0 && BITS(entry, 63, 48) == 0;
    if (format == HV_FORMAT_VTD && BITS(entry, 48, 48)) /* handle: 63:49 and 11 */
        return mode == 0;
    if (BITS(entry, 48, 48) || (format != HV_FORMAT_EXTENDED_DESTINATION && BITS(entry, 55, 49) != 0))
        return false;
    if (masked)
        return mode <= 1 || mode == BITS(before, 10, 8);
    return mode <= 1 && vector >= 0x10 && vector <= 0xfe;
}

static void prove_check(enum hv_format format)
{
    uint64_t entry = any_u64();
    uint64_t before = any_u64();
    enum hv_status status = hv_entry_check(entry, before, format);

    assert(status == (may_be(entry, before, format) ? HV_OK : HV_INVALID));
}

static void prove_compose(enum hv_format format)
{
    uint32_t apic_id = any_u32();
    uint8_t vector = any_u8();
    uint16_t handle = any_u16();
    bool level = any_bool();
    bool active_low = any_bool();
    bool masked = any_bool();
    uint64_t entry;

    assume(vector >= 0x10 && vector <= 0xfe);
    entry = hv_entry_compose(format, apic_id, vector, handle, level, active_low, masked);
    assert(hv_entry_check(entry, any_u64(), format) == HV_OK);
    assert(BITS(entry, 16, 16) == masked && BITS(entry, 15, 15) == level && BITS(entry, 13, 13) == active_low);
    assert((entry & HV_ENTRY_STATUS) == 0);
    switch (format) {
    case HV_FORMAT_COMPATIBILITY:
        assert(BITS(entry, 7, 0) == vector && BITS(entry, 63, 56) == (apic_id & 0xff) && !BITS(entry, 11, 11));
        break;
    case HV_FORMAT_EXTENDED_DESTINATION:
        assert(BITS(entry, 7, 0) == vector && !BITS(entry, 11, 11));
        assert((BITS(entry, 63, 56) | BITS(entry, 55, 49) << 8) == (apic_id & 0x7fff));
        break;
    case HV_FORMAT_VTD:
        assert(hv_entry_is_remapped(entry, format) && BITS(entry, 7, 0) == vector);
        assert((BITS(entry, 63, 49) | BITS(entry, 11, 11) << 15) == handle);
        break;
    case HV_FORMAT_AMD_VI:
        assert(BITS(entry, 10, 0) == (handle & 0x7ff));
        break;
    }
}

void prove(void)
{
    for (uint32_t format = HV_FORMAT_COMPATIBILITY; format <= HV_FORMAT_AMD_VI; format++) {
        prove_check((enum hv_format)format);
        prove_compose((enum hv_format)format);
    }
}
