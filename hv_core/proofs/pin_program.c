/* SPDX-License-Identifier: MIT */
/*
 * hv_pin_program, for every entry before and after and whatever the hardware answers (invariant 4 of the design): the
 * high word is written only while the entry is masked; a low word changes more than the mask only where the entry is
 * masked before or after; a pure mask is one write; the trigger mode changes only after remote IRR was read clear with
 * the entry masked. At the end the hardware has what was asked for and the books say so, or, refused, what it had. The
 * pins looked at are the first two and the last.
 */
#include "proof.h"

#include "../core/ioapic.c"

#define MASKED ((uint32_t)HV_ENTRY_MASKED)
#define LEVEL ((uint32_t)HV_ENTRY_LEVEL)

static struct hv_core core;
static uint32_t pin;
static uint32_t low, high; /* the hardware's entry without its status */
static uint32_t writes;
static bool seen_clear; /* remote IRR was read clear since the entry is masked */

static uint32_t hardware_read(void *home, uint64_t address, uint8_t index)
{
    uint32_t status = any_u32() & (uint32_t)HV_ENTRY_STATUS;

    (void)home;
    assert(address == core.ioapic[0].address && index == 0x10 + 2 * pin);
    if ((low & MASKED) && !(status & HV_ENTRY_REMOTE_IRR))
        seen_clear = true;
    return low | status;
}

static void hardware_write(void *home, uint64_t address, uint8_t index, uint32_t value)
{
    (void)home;
    assert(address == core.ioapic[0].address && (index == 0x10 + 2 * pin || index == 0x11 + 2 * pin));
    writes++;
    if (index % 2) {
        assert(low & MASKED);
        high = value;
        return;
    }
    assert(((low ^ value) & ~MASKED) == 0 || ((low | value) & MASKED));
    assert(((low ^ value) & LEVEL) == 0 || seen_clear);
    if (!(value & MASKED))
        seen_clear = false;
    low = value;
}

static const struct hv_operations operations = {.ioapic_read = hardware_read, .ioapic_write = hardware_write};

static void prove_at(uint32_t number)
{
    uint64_t before = any_u64() & ~HV_ENTRY_STATUS;
    uint64_t entry = any_u64() & ~HV_ENTRY_STATUS;
    enum hv_status status;

    pin = number;
    writes = 0;
    seen_clear = false;
    core.ioapic[0].pin[pin].entry = before;
    low = (uint32_t)before;
    high = (uint32_t)(before >> 32);
    status = hv_pin_program(&core, &core.ioapic[0], pin, entry);

    if (status != HV_OK)
        entry = before;
    assert(status == HV_OK || status == HV_BUSY);
    assert(core.ioapic[0].pin[pin].entry == entry);
    assert(low == (uint32_t)entry && high == (uint32_t)(entry >> 32));
    if ((before ^ entry) == HV_ENTRY_MASKED)
        assert(writes <= 1);
    if ((before ^ entry) == 0 && status == HV_OK)
        assert(writes == 0);
}

void prove(void)
{
    core.operations = &operations;
    core.ioapic[0].address = 0xfec00000;
    prove_at(0);
    prove_at(1);
    prove_at(HV_PINS - 1);
}
