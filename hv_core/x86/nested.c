/* SPDX-License-Identifier: MIT */
/*
 * Two maps of physical memory at its own address: the core's own, of everything, and dom0's (the nested tables), of
 * everything but the core, the IOAPICs and, where they are trapped, the local APICs.
 *
 * Both are made at the start from the largest pages there are. A page of dom0's that is to differ splits what it lies
 * in; tables for that come from a pool of fixed size.
 */
#include "home.h"
#include "x86.h"

#define ENTRIES 512u
#define PAGE_BYTES 4096ull
#define LARGE_BYTES 0x200000ull
#define HUGE_BYTES 0x40000000ull
#define TOP 3u                        /* level of the root's entries: 512 GiB each */
#define ADDRESS_BITS 48u              /* what four levels reach */
#define ADDRESS_BITS_WITHOUT_HUGE 40u /* 1 TiB takes 4 MiB of tables */
#define SPARE_TABLES 128u             /* for pages that differ */
#define UNDO_TABLES 4u                /* two pages split at most two 1 GiB pages and two 2 MiB pages */

static uint64_t *own_root;
static uint64_t *nested_root;
static uint64_t free_tables; /* a list: the first entry of each leads to the next */
static uint32_t free_count;
_Alignas(4096) static uint8_t ones[4096];

struct undo { /* a large page that was split for shared_info */
    uint64_t *slot;
    uint64_t page;
    uint64_t table;
};
static struct undo undo[UNDO_TABLES];
static uint32_t undos;

static uint64_t bytes_at(uint32_t level)
{
    return PAGE_BYTES << (9 * level);
}

static uint64_t take_table(void)
{
    uint64_t table = free_tables;

    if (table == 0)
        return 0;
    free_tables = *(uint64_t *)at_physical(table);
    free_count--;
    memset(at_physical(table), 0, PAGE_BYTES);
    return table;
}

static void give_table(uint64_t table)
{
    *(uint64_t *)at_physical(table) = free_tables;
    free_tables = table;
    free_count++;
}

static uint64_t own_page(uint64_t address, uint32_t level, bool writable)
{
    return address | PAGE_PRESENT | (writable ? PAGE_WRITABLE : 0) | (level > 0 ? PAGE_LARGE : 0);
}

static uint64_t own_table(uint64_t address)
{
    return address | PAGE_PRESENT | PAGE_WRITABLE;
}

/* All tables down to `level`, whose entries are pages. */
static uint64_t *make_map(uint32_t level, uint64_t (*page)(uint64_t, uint32_t, bool), uint64_t (*table)(uint64_t))
{
    uint64_t *root = at_physical(take_table());

    for (uint64_t at = 0; at < hypervisor.physical_end; at += bytes_at(level)) {
        uint64_t *entries = root;

        for (uint32_t upper = TOP; upper > level; upper--) {
            uint64_t *slot = &entries[at / bytes_at(upper) % ENTRIES];

            if (*slot == 0)
                *slot = table(take_table());
            entries = at_physical(*slot & PAGE_ADDRESS);
        }
        entries[at / bytes_at(level) % ENTRIES] = page(at, level, true);
    }
    return root;
}

/* A split that something else relies on is not to be undone. */
static void keep_split(const uint64_t *slot)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < undos; i++)
        if (undo[i].slot != slot)
            undo[kept++] = undo[i];
    undos = kept;
}

/* The entry of a 4 KiB page in the nested tables; what is larger is split. NULL: no table is left. */
static uint64_t *nested_slot(uint64_t page, bool undoable)
{
    const struct vendor *vendor = hypervisor.vendor;
    uint64_t *entries = nested_root;

    for (uint32_t level = TOP; level > 0; level--) {
        uint64_t *slot = &entries[page / bytes_at(level) % ENTRIES];
        uint64_t start = page & ~(bytes_at(level) - 1);

        if (*slot & PAGE_LARGE) { /* the same bit in AMD's and Intel's tables */
            uint64_t table = take_table();

            if (table == 0)
                return NULL;
            for (uint32_t i = 0; i < ENTRIES; i++)
                ((uint64_t *)at_physical(table))[i] =
                    vendor->nested_page(start + i * bytes_at(level - 1), level - 1, true);
            if (undoable)
                undo[undos++] = (struct undo){.slot = slot, .page = *slot, .table = table};
            __atomic_store_n(slot, vendor->nested_table(table), __ATOMIC_RELEASE);
        } else if (!undoable) {
            keep_split(slot);
        }
        entries = at_physical(*slot & PAGE_ADDRESS);
    }
    return &entries[page / PAGE_BYTES % ENTRIES];
}

static enum hv_status set_page(uint64_t page, uint64_t entry)
{
    uint64_t *slot = nested_slot(page, false);

    if (slot == NULL)
        return HV_NO_SPACE;
    __atomic_store_n(slot, entry, __ATOMIC_RELEASE);
    return HV_OK;
}

enum hv_status nested_hide(uint64_t page)
{
    return set_page(page, 0);
}

enum hv_status nested_show(uint64_t page)
{
    return set_page(page, hypervisor.vendor->nested_page(page, 0, true));
}

void nested_ones(uint64_t page)
{
    (void)set_page(page, hypervisor.vendor->nested_page(physical_of(ones), 0, false));
}

/* Newest first: a 2 MiB page is part of the 1 GiB page that was split before it. */
static void undo_all(void)
{
    for (uint32_t i = undos; i > 0; i--)
        __atomic_store_n(undo[i - 1].slot, undo[i - 1].page, __ATOMIC_RELEASE);
    nested_changed();
    while (undos > 0)
        give_table(undo[--undos].table);
}

/* The pages show themselves again, also where they lie in a table that was split before for another reason. */
static void unshare(void)
{
    if (hypervisor.shared_at == 0)
        return;
    for (uint32_t i = 0; i < 2; i++) {
        uint64_t page = hypervisor.shared_at + i * PAGE_BYTES;

        __atomic_store_n(nested_slot(page, true), hypervisor.vendor->nested_page(page, 0, true), __ATOMIC_RELEASE);
    }
    hypervisor.shared_at = 0;
    undo_all();
}

enum hv_status nested_share(uint64_t page, uint64_t pages)
{
    if (page != 0 && free_count < UNDO_TABLES)
        return HV_NO_SPACE;
    unshare();
    if (page == 0)
        return HV_OK;
    for (uint32_t i = 0; i < 2; i++)
        __atomic_store_n(nested_slot(page + i * PAGE_BYTES, true),
                         hypervisor.vendor->nested_page(pages + i * PAGE_BYTES, 0, false), __ATOMIC_RELEASE);
    hypervisor.shared_at = page;
    nested_changed();
    return HV_OK;
}

void nested_changed(void)
{
    uint32_t generation = __atomic_add_fetch(&hypervisor.nested_generation, 1, __ATOMIC_SEQ_CST);

    for (uint32_t i = 0; i < hypervisor.dom0_cpus; i++) {
        struct cpu *cpu = &processors[i].cpu;

        if (cpu == this_cpu() || !__atomic_load_n(&cpu->in_guest, __ATOMIC_SEQ_CST))
            continue;
        cpu_kick(cpu);
        while (__atomic_load_n(&cpu->in_guest, __ATOMIC_SEQ_CST) &&
               __atomic_load_n(&cpu->nested_generation, __ATOMIC_SEQ_CST) != generation)
            pause();
    }
}

/* ---- The start ---- */

static uint64_t tables_for(uint64_t end, uint32_t level)
{
    uint64_t count = 1;

    for (uint32_t upper = TOP; upper > level; upper--)
        count += (end + bytes_at(upper) - 1) / bytes_at(upper);
    return count;
}

void memory_start(void)
{
    bool huge = hypervisor.vendor->huge_pages();
    uint32_t level = huge ? 2 : 1;
    uint32_t bits = cpuid(0x80000008u, 0).eax & 0xff;
    uint32_t limit = huge ? ADDRESS_BITS : ADDRESS_BITS_WITHOUT_HUGE;
    uint64_t count;
    uint64_t bytes;
    uint64_t at;

    hypervisor.physical_end = 1ull << (bits < limit ? bits : limit);
    count = 2 * tables_for(hypervisor.physical_end, level) + SPARE_TABLES;
    bytes = (count * PAGE_BYTES + LARGE_BYTES - 1) & ~(LARGE_BYTES - 1);
    /* Below 4 GiB: what the image's first tables map. */
    at = memory_find(&hypervisor.firmware, &hypervisor.taken, (struct range){hypervisor.image.start, 4 * HUGE_BYTES},
                     bytes, LARGE_BYTES);
    if (at == 0)
        panic("no %lu bytes of memory below 4 GiB for page tables", bytes);
    hypervisor.tables = (struct range){at, at + bytes};
    if (!taken_add(&hypervisor.taken, hypervisor.tables))
        panic("too many ranges of memory");
    for (uint64_t table = hypervisor.tables.end; table > at; table -= PAGE_BYTES)
        give_table(table - PAGE_BYTES);
    own_root = make_map(level, own_page, own_table);
    memory_own_tables();
    nested_root = make_map(level, hypervisor.vendor->nested_page, hypervisor.vendor->nested_table);
    memset(ones, 0xff, sizeof(ones));
    for (at = hypervisor.image.start; at < hypervisor.image.end; at += PAGE_BYTES)
        if (nested_hide(at) != HV_OK)
            panic("no table is left");
    for (at = hypervisor.tables.start; at < hypervisor.tables.end; at += PAGE_BYTES)
        if (nested_hide(at) != HV_OK)
            panic("no table is left");
}

void memory_own_tables(void)
{
    write_cr3(physical_of(own_root));
}

uint64_t nested_tables(void)
{
    return physical_of(nested_root);
}
