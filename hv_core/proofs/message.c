/* SPDX-License-Identifier: MIT */
/*
 * MSI messages, for every address and data, in every format: what hv_message_check lets through goes to the interrupt
 * range, is an edge, Fixed or LowestPriority, with a vector that may be one; what hv_message_compose makes is let
 * through, and names the APIC id and vector it was made for.
 */
#include "proof.h"

#include "../core/msi.c"

static void prove_check(void)
{
    enum hv_format format = (enum hv_format)(any_u8() % 4);
    uint64_t address = any_u64();
    uint32_t data = any_u32();

    if (hv_message_check(format, address, data) != HV_OK)
        return;
    assert(address >> 20 == 0xfee);
    if (hv_message_is_remapped(address, format))
        return;
    assert(((data >> 8) & 7) <= 1 && !(data & 0x8000) && (data >> 16) == 0);
    assert((data & 0xff) >= 0x10 && (data & 0xff) <= 0xfe);
}

static void prove_compose(void)
{
    enum hv_format format = (enum hv_format)(any_u8() % 4);
    uint32_t apic_id = any_u32();
    uint16_t handle = any_u16();
    uint8_t vector = any_u8();
    uint64_t address;
    uint32_t data;

    assume(vector >= 0x10 && vector <= 0xfe);
    if (hv_message_compose(format, apic_id, vector, handle, &address, &data) != HV_OK)
        return;
    assert(hv_message_check(format, address, data) == HV_OK);
    if (format == HV_FORMAT_COMPATIBILITY)
        assert(((address >> 12) & 0xff) == apic_id && (data & 0xff) == vector);
    if (format == HV_FORMAT_EXTENDED_DESTINATION)
        assert((((address >> 12) & 0xff) | ((address >> 5) & 0x7f) << 8) == apic_id);
    if (format == HV_FORMAT_VTD)
        assert((((address >> 5) & 0x7fff) | ((address >> 2) & 1) << 15) == handle);
}

void prove(void)
{
    prove_check();
    prove_compose();
}
