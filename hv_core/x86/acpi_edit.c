/* SPDX-License-Identifier: MIT */
/*
 * What dom0 is told by ACPI: copies of the RSDP, the XSDT, the RSDT and the MADT, without the processors that are the
 * core's and without the tables of IOMMUs, which the core does not drive (ACPI 6.5, sections 5.2.5 to 5.2.12). All
 * other tables are firmware's own.
 */
#include "../core/internal.h"
#include "home.h"
#include "x86.h"

#define RSDP_BYTES 36u
#define RSDP_BYTES_REVISION_0 20u
#define HEADER_BYTES 36u
#define MADT_ENTRIES 44u
#define LENGTH_AT 4u
#define CHECKSUM_AT 9u
#define TABLE_BYTES_MAX (1u << 20)

#define TYPE_LOCAL_APIC 0
#define TYPE_LOCAL_APIC_NMI 4
#define TYPE_LOCAL_X2APIC 9
#define TYPE_LOCAL_X2APIC_NMI 10
#define TYPE_WAKEUP 16 /* a mailbox of firmware's, which would lead a processor past the core */

struct copies {
    uint64_t at; /* the next free byte */
    uint64_t end;
};

static uint32_t load32(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void store(uint8_t *at, uint64_t value, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static void set_checksum(uint8_t *table, uint32_t bytes, uint32_t at)
{
    uint8_t sum = 0;

    table[at] = 0;
    for (uint32_t i = 0; i < bytes; i++)
        sum = (uint8_t)(sum + table[i]);
    table[at] = (uint8_t)(0x100u - sum);
}

static uint8_t *take(struct copies *copies, uint32_t bytes)
{
    uint64_t at = (copies->at + 15) & ~15ull;

    if (at > copies->end || copies->end - at < bytes)
        return NULL;
    copies->at = at + bytes;
    return at_physical(at);
}

/* ---- The RSDP (section 5.2.5.1): on a 16-byte boundary in the first KiB of the EBDA, or in firmware's ROM ---- */

static uint64_t scan(uint64_t from, uint64_t bytes)
{
    for (uint64_t at = (from + 15) & ~15ull; at + RSDP_BYTES <= from + bytes; at += 16) {
        const uint8_t *rsdp = at_physical(at);
        uint8_t sum = 0;

        if (memcmp(rsdp, "RSD PTR ", 8) != 0)
            continue;
        for (uint32_t i = 0; i < RSDP_BYTES_REVISION_0; i++)
            sum = (uint8_t)(sum + rsdp[i]);
        if (sum == 0)
            return at;
    }
    return 0;
}

uint64_t acpi_find_rsdp(void)
{
    uint64_t ebda = (uint64_t) * (volatile uint16_t *)at_physical(0x40e) << 4;
    uint64_t found = 0;

    if (ebda >= 0x400 && ebda < 0xa0000)
        found = scan(ebda, 1024);
    return found != 0 ? found : scan(0xe0000, 0x20000);
}

/* ---- MADT ---- */

static bool is_dom0s(uint32_t apic_id)
{
    for (uint32_t i = hypervisor.dom0_cpus; i < hypervisor.cpus; i++)
        if (processors[i].cpu.apic_id == apic_id)
            return false;
    return true;
}

struct madt {
    const uint8_t *table;
    uint32_t bytes;
};

/* Goes through the entries of one or two types; the id and UID of each processor. */
static bool next_processor(const struct madt *madt, uint32_t *at, uint32_t *id, uint32_t *uid)
{
    while (*at < madt->bytes) {
        const uint8_t *entry = madt->table + *at;
        struct hv_madt_entry decoded;
        uint32_t bytes = hv_madt_step(entry, madt->bytes - *at, &decoded);

        if (bytes == 0)
            return false;
        *at += bytes;
        if (decoded.kind != HV_MADT_CPU && decoded.kind != HV_MADT_DISABLED_CPU)
            continue;
        *id = decoded.id;
        *uid = entry[0] == TYPE_LOCAL_APIC ? entry[2] : load32(entry + 12);
        return true;
    }
    return false;
}

static bool is_uid_kept(const struct madt *madt, uint32_t wanted)
{
    uint32_t at = MADT_ENTRIES;
    uint32_t id;
    uint32_t uid;

    while (next_processor(madt, &at, &id, &uid))
        if (uid == wanted)
            return !is_dom0s(id);
    return false;
}

static bool is_hidden(const struct madt *madt, const uint8_t *entry, const struct hv_madt_entry *decoded)
{
    switch (entry[0]) {
    case TYPE_LOCAL_APIC:
    case TYPE_LOCAL_X2APIC:
        return !is_dom0s(decoded->id);
    case TYPE_LOCAL_APIC_NMI:
        return entry[1] >= 3 && entry[2] != 0xff && is_uid_kept(madt, entry[2]);
    case TYPE_LOCAL_X2APIC_NMI:
        return entry[1] >= 8 && load32(entry + 4) != 0xffffffffu && is_uid_kept(madt, load32(entry + 4));
    default:
        return entry[0] == TYPE_WAKEUP;
    }
}

static uint64_t copy_madt(struct copies *copies, const struct hv_tables *tables)
{
    struct madt madt = {.table = at_physical(tables->madt), .bytes = tables->madt_bytes};
    uint8_t *copy = take(copies, madt.bytes);
    uint32_t copied = MADT_ENTRIES;

    if (copy == NULL || madt.bytes < MADT_ENTRIES)
        return 0;
    memcpy(copy, madt.table, MADT_ENTRIES);
    for (uint32_t at = MADT_ENTRIES; at < madt.bytes;) {
        const uint8_t *entry = madt.table + at;
        struct hv_madt_entry decoded;
        uint32_t bytes = hv_madt_step(entry, madt.bytes - at, &decoded);

        if (bytes == 0) /* what the core cannot read, dom0 does not see */
            break;
        if (!is_hidden(&madt, entry, &decoded)) {
            memcpy(copy + copied, entry, bytes);
            copied += bytes;
        }
        at += bytes;
    }
    store(copy + LENGTH_AT, copied, 4);
    set_checksum(copy, copied, CHECKSUM_AT);
    return physical_of(copy);
}

/* ---- Root tables ---- */

static bool is_hidden_table(uint64_t address)
{
    const uint8_t *table = at_physical(address);

    return memcmp(table, "DMAR", 4) == 0 || memcmp(table, "IVRS", 4) == 0;
}

/* An XSDT or RSDT, whose entries have 8 or 4 bytes; 0: it is not good, or there is no room. */
static uint64_t copy_root(struct copies *copies, uint64_t root, const char *name, uint32_t entry_bytes,
                          const struct hv_tables *tables, uint64_t madt)
{
    const uint8_t *table = at_physical(root);
    uint32_t bytes = root != 0 ? load32(table + LENGTH_AT) : 0;
    uint32_t copied = HEADER_BYTES;
    uint8_t *copy;

    if (bytes < HEADER_BYTES || bytes > TABLE_BYTES_MAX || memcmp(table, name, 4) != 0)
        return 0;
    copy = take(copies, bytes);
    if (copy == NULL)
        return 0;
    memcpy(copy, table, HEADER_BYTES);
    for (uint32_t at = HEADER_BYTES; at + entry_bytes <= bytes; at += entry_bytes) {
        uint64_t address = load32(table + at);

        if (entry_bytes == 8)
            address |= (uint64_t)load32(table + at + 4) << 32;
        if (address == tables->madt)
            address = madt;
        else if (is_hidden_table(address))
            continue;
        store(copy + copied, address, entry_bytes);
        copied += entry_bytes;
    }
    store(copy + LENGTH_AT, copied, 4);
    set_checksum(copy, copied, CHECKSUM_AT);
    return physical_of(copy);
}

uint64_t acpi_edit(struct hv_core *core, struct range area)
{
    struct copies copies = {.at = area.start, .end = area.end};
    const uint8_t *firmware = at_physical(hypervisor.rsdp);
    bool extended = firmware[15] >= 2;
    uint32_t bytes = extended ? RSDP_BYTES : RSDP_BYTES_REVISION_0;
    uint64_t firmware_xsdt = load32(firmware + 24) | (uint64_t)load32(firmware + 28) << 32;
    struct hv_tables tables;
    uint64_t madt;
    uint64_t rsdt;
    uint64_t xsdt = 0;
    uint8_t *rsdp;

    if (hv_tables_find(core, hypervisor.rsdp, &tables) != HV_OK || tables.madt == 0)
        return 0;
    rsdp = take(&copies, bytes);
    madt = copy_madt(&copies, &tables);
    rsdt = copy_root(&copies, load32(firmware + 16), "RSDT", 4, &tables, madt);
    if (extended)
        xsdt = copy_root(&copies, firmware_xsdt, "XSDT", 8, &tables, madt);
    if (rsdp == NULL || madt == 0 || (rsdt == 0 && xsdt == 0))
        return 0;
    memcpy(rsdp, firmware, bytes);
    store(rsdp + 16, rsdt, 4);
    set_checksum(rsdp, RSDP_BYTES_REVISION_0, 8);
    if (extended) {
        store(rsdp + 24, xsdt, 8);
        set_checksum(rsdp, RSDP_BYTES, 32);
    }
    return physical_of(rsdp);
}
