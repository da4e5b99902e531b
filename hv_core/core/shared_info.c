/* SPDX-License-Identifier: MIT */
/* The two pages dom0 may read: Xen's layout (zero here), our block behind it, the list of IOAPICs in the second. */
#include "internal.h"

_Static_assert(HV_LIMIT_IOAPICS <= HV_SHARED_IOAPICS, "the list fits its page");

/* The sum of the little-endian 32-bit words of a structure. */
static uint32_t sum_of_words(const void *from, uint32_t bytes)
{
    const uint8_t *byte = from;
    uint64_t sum = 0;

    for (uint32_t i = 0; i < bytes; i++)
        sum += (uint64_t)byte[i] << (8 * (i % 4));
    return (uint32_t)(sum & 0xffffffffu);
}

static uint32_t negative(uint32_t sum)
{
    return (uint32_t)((0x100000000ull - sum) & 0xffffffffu);
}

void hv_shared_update(struct hv_core *core)
{
    struct hv_shared_block *block = &core->shared.block;
    struct hv_shared_ioapic *list = core->shared.list;
    uint64_t counter = block->counter;
    uint64_t sum;
    uint32_t count = 0;

    /* Odd: a reader waits, or throws away what it copied. */
    __atomic_store_n(&block->counter, counter + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);

    for (uint32_t i = 0; i < HV_LIMIT_IOAPICS; i++) {
        const struct hv_ioapic *ioapic = &core->ioapic[i];

        if (ioapic->address == 0)
            continue;
        list[count++] = (struct hv_shared_ioapic){
            .address = ioapic->address,
            .gsi_base = ioapic->gsi_base,
            .pins = (uint16_t)ioapic->pins,
            .id = ioapic->id,
            .version = ioapic->version,
            .format = core->entry_format,
        };
    }
    block->magic = HV_SHARED_BLOCK_MAGIC;
    block->version = HV_SHARED_BLOCK_VERSION;
    block->bytes = sizeof(*block);
    block->flags = core->features & HV_FEATURE_HANDED_OVER ? HV_SHARED_HANDED_OVER : 0;
    block->rsdp = core->rsdp;
    block->xsdt = core->xsdt;
    block->list_offset = offsetof(struct hv_shared_info, list);
    block->list_entry = sizeof(*list);
    block->list_count = count;
    /* The sum is over the block as a reader finds it, with the counter even again. */
    block->checksum = 0;
    sum = (uint64_t)sum_of_words(block, sizeof(*block)) + sum_of_words(list, count * (uint32_t)sizeof(*list));
    sum += (uint64_t)sum_of_words(&(uint64_t){counter + 2}, 8) + negative(sum_of_words(&block->counter, 8));
    block->checksum = negative((uint32_t)(sum & 0xffffffffu));
    __atomic_store_n(&block->counter, counter + 2, __ATOMIC_RELEASE);
    core->operations->changed(core->home);
}

enum hv_status hv_map_shared_info(struct hv_core *core, uint64_t guest_physical)
{
    enum hv_status status;

    if (guest_physical % HV_PAGE_BYTES != 0 || guest_physical > (1ull << 52) - 2ull * HV_PAGE_BYTES)
        return HV_INVALID;
    status = core->operations->map_shared_info(core->home, guest_physical);
    if (status != HV_OK)
        return status;
    core->shared_at = guest_physical;
    core->features &= ~HV_FEATURE_SHARED_INFO;
    if (guest_physical != 0)
        core->features |= HV_FEATURE_SHARED_INFO;
    return HV_OK;
}

enum hv_status hv_hand_over(struct hv_core *core, const struct hv_hand_over *hand_over)
{
    if (hand_over->counter != core->shared.block.counter)
        return HV_TRY_AGAIN;
    if (!hv_tables_verify(core, hand_over->rsdp, hand_over->xsdt))
        return HV_INVALID;
    core->rsdp = hand_over->rsdp;
    core->xsdt = hand_over->xsdt;
    core->features |= HV_FEATURE_HANDED_OVER;
    hv_shared_update(core);
    return HV_OK;
}
