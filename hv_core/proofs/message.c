/* SPDX-License-Identifier: MIT */
/*
 * MSI messages, for every address and data, in every format. hv_message_check lets through exactly what may_be says: to
 * the interrupt range, an edge, Fixed or LowestPriority, with a vector that is one, no reserved bit. What
 * hv_message_compose makes for any processor, vector and handle is let through and leads there; a processor that does
 * not fit the format is refused.
 */
#include "proof.h"

#include "../core/msi.c"

#define BITS(word, high, low) ((word) >> (low) & ((2ull << ((high) - (low))) - 1))

/* The formats of the specifications (enum hv_format), read field by field. */
static bool may_be(enum hv_format format, uint64_t address, uint32_t data)
{
    uint64_t vector = BITS(data, 7, 0);

    if (BITS(address, 63, 20) != 0xfee)
        return false;
    if (format == HV_FORMAT_AMD_VI) /* index: data 10:0; the rest of the address is ignored */
        return BITS(data, 31, 11) == 0;
    if (format == HV_FORMAT_VTD && BITS(address, 4, 4)) /* handle: address 19:5 and 2; data: the subhandle */
        return BITS(data, 31, 16) == 0;
    if (BITS(address, 1, 0) != 0 || BITS(address, 4, 4) != 0)
        return false;
    if (format != HV_FORMAT_EXTENDED_DESTINATION && BITS(address, 11, 5) != 0)
        return false;
    return BITS(data, 31, 15) == 0 && BITS(data, 13, 11) == 0 && BITS(data, 10, 8) <= 1 && vector >= 0x10 &&
           vector <= 0xfe;
}

static void prove_check(enum hv_format format)
{
    uint64_t address = any_u64();
    uint32_t data = any_u32();

    assert(hv_message_check(format, address, data) == (may_be(format, address, data) ? HV_OK : HV_INVALID));
}

static void prove_compose(enum hv_format format)
{
    uint32_t apic_id = any_u32();
    uint16_t handle = any_u16();
    uint8_t vector = any_u8();
    uint64_t address;
    uint32_t data;
    enum hv_status status;

    assume(vector >= 0x10 && vector <= 0xfe);
    status = hv_message_compose(format, apic_id, vector, handle, &address, &data);
    if (status == HV_OK)
        assert(hv_message_check(format, address, data) == HV_OK);
    switch (format) {
    case HV_FORMAT_COMPATIBILITY:
        assert(status == (apic_id <= 0xfe ? HV_OK : HV_OUT_OF_RANGE));
        if (status == HV_OK)
            assert(BITS(address, 19, 12) == apic_id && BITS(address, 3, 2) == 0 && data == vector);
        break;
    case HV_FORMAT_EXTENDED_DESTINATION:
        assert(status == (apic_id <= 0x7fff ? HV_OK : HV_OUT_OF_RANGE));
        if (status == HV_OK)
            assert((BITS(address, 19, 12) | BITS(address, 11, 5) << 8) == apic_id && BITS(address, 3, 2) == 0 &&
                   data == vector);
        break;
    case HV_FORMAT_VTD:
        assert(status == HV_OK && hv_message_is_remapped(address, format) && BITS(address, 3, 3) == 0);
        assert((BITS(address, 19, 5) | BITS(address, 2, 2) << 15) == handle);
        break;
    case HV_FORMAT_AMD_VI:
        assert(status == (handle <= 0x7ff ? HV_OK : HV_OUT_OF_RANGE));
        if (status == HV_OK)
            assert(BITS(data, 10, 0) == handle);
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
