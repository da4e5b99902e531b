/* SPDX-License-Identifier: MIT */
/* dom0's memory by dom0's own page tables, which are as hostile as anything (AMD APM volume 2, section 5.3). */
#include "home.h"
#include "x86.h"

#define PAGE_BYTES 4096ull
#define CODE_BYTES 15u

bool guest_may_read(uint64_t address, uint64_t bytes)
{
    struct range wanted = {address, address + bytes};
    struct range shared = {hypervisor.shared_at, hypervisor.shared_at + sizeof(struct hv_shared_info)};

    return wanted.end > address && memory_is(&hypervisor.dom0, address, bytes, MEMORY_RAM) &&
           (hypervisor.shared_at == 0 || !ranges_meet(wanted, shared));
}

/* The physical address of a linear one; false: no page, or not one that privilege 0 may access so. */
static bool translate(const struct state *state, uint64_t linear, bool write, uint64_t *physical)
{
    uint32_t levels = (state->cr4 & CR4_LA57) ? 5 : 4;
    uint32_t unused = 64 - 12 - 9 * levels;
    uint64_t table = state->cr3 & PAGE_ADDRESS;

    if (!(state->cr0 & CR0_PG)) {
        *physical = linear;
        return true;
    }
    /* Protected mode without long mode has other tables; no kernel that calls us runs in it. */
    if (!(state->efer & EFER_LMA))
        return false;
    if ((uint64_t)((int64_t)(linear << unused) >> unused) != linear)
        return false;
    for (uint32_t level = levels; level-- > 0;) {
        uint64_t index = linear >> (12 + 9 * level) & 511;
        uint64_t bytes = PAGE_BYTES << (9 * level);
        uint64_t entry;

        if (!guest_may_read(table + index * 8, 8))
            return false;
        entry = *(volatile uint64_t *)at_physical(table + index * 8);
        if (!(entry & PAGE_PRESENT) || (write && !(entry & PAGE_WRITABLE)))
            return false;
        if (level == 0 || (level <= 2 && (entry & PAGE_LARGE))) {
            *physical = (entry & PAGE_ADDRESS & ~(bytes - 1)) | (linear & (bytes - 1));
            return true;
        }
        table = entry & PAGE_ADDRESS;
    }
    return false;
}

/* How much of `bytes` from `linear` on lies in its page. */
static uint32_t in_page(uint64_t linear, uint32_t bytes)
{
    uint64_t left = PAGE_BYTES - linear % PAGE_BYTES;

    return left < bytes ? (uint32_t)left : bytes;
}

bool guest_copy_in(const struct state *state, uint64_t linear, void *to, uint32_t bytes)
{
    for (uint32_t done = 0; done < bytes;) {
        uint32_t part = in_page(linear + done, bytes - done);
        uint64_t physical;

        if (!translate(state, linear + done, false, &physical) || !guest_may_read(physical, part))
            return false;
        memcpy((uint8_t *)to + done, at_physical(physical), part);
        done += part;
    }
    return true;
}

bool guest_copy_out(const struct state *state, uint64_t linear, const void *from, uint32_t bytes)
{
    for (uint32_t done = 0; done < bytes;) {
        uint32_t part = in_page(linear + done, bytes - done);
        uint64_t physical;

        if (!translate(state, linear + done, true, &physical) || !guest_may_read(physical, part))
            return false;
        memcpy(at_physical(physical), (const uint8_t *)from + done, part);
        done += part;
    }
    return true;
}

uint32_t guest_fetch(const struct state *state, uint8_t code[15])
{
    uint64_t linear = state->code64 ? state->rip : (state->cs_base + state->rip) & 0xffffffffull;
    uint32_t first = in_page(linear, CODE_BYTES);

    if (!guest_copy_in(state, linear, code, first))
        return 0;
    if (first < CODE_BYTES && guest_copy_in(state, linear + first, code + first, CODE_BYTES - first))
        return CODE_BYTES;
    return first;
}
