/* SPDX-License-Identifier: MIT */
/*
 * Static ACPI tables: RSDP, XSDT or RSDT, MADT, MCFG, presence of DMAR and IVRS (ACPI 6.5, sections 5.2.5 to 5.2.12;
 * PCI Firmware 3.3, section 4.1.2). No AML, ever.
 *
 * Tables are hostile. They are read in pieces of fixed size; a list is walked by a step that is given what it may look
 * at and how much the table has left, and every loop has a bound of its own.
 */
#include "internal.h"

#define HEADER_BYTES 36u
#define TABLE_BYTES_MAX (1u << 20)
#define ROOT_ENTRIES_MAX 1024u
#define PIECE_BYTES 256u
#define MADT_ENTRIES 44u /* where they begin */
#define MCFG_ENTRIES 44u
#define MCFG_ENTRY_BYTES 16u

static uint16_t word16(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t word32(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint64_t word64(const uint8_t *at)
{
    return word32(at) | (uint64_t)word32(at + 4) << 32;
}

static uint32_t signature(const char text[4])
{
    return word32((const uint8_t *)text);
}

static bool read_physical(const struct hv_core *core, uint64_t address, void *to, uint32_t bytes)
{
    if (address == 0 || address > ~0ull - bytes)
        return false;
    return core->operations->read_physical(core->home, address, to, bytes);
}

static uint32_t sum_of_bytes(const uint8_t *bytes, uint32_t count)
{
    uint32_t sum = 0;

    for (uint32_t i = 0; i < count; i++)
        sum = (sum + bytes[i]) & 0xff;
    return sum;
}

/* ---- Root pointer and tables ---- */

static bool read_rsdp(const struct hv_core *core, uint64_t address, uint64_t *xsdt, uint64_t *rsdt)
{
    static const char text[8] = "RSD PTR ";
    uint8_t rsdp[HEADER_BYTES];

    if (!read_physical(core, address, rsdp, 20))
        return false;
    for (uint32_t i = 0; i < sizeof(text); i++)
        if (rsdp[i] != (uint8_t)text[i])
            return false;
    if (sum_of_bytes(rsdp, 20) != 0)
        return false;
    *rsdt = word32(rsdp + 16);
    *xsdt = 0;
    if (rsdp[15] < 2)
        return true;
    if (!read_physical(core, address, rsdp, HEADER_BYTES) || word32(rsdp + 20) != HEADER_BYTES ||
        sum_of_bytes(rsdp, HEADER_BYTES) != 0)
        return false;
    *xsdt = word64(rsdp + 24);
    return true;
}

/* Signature and length of the table at an address; false when its length or checksum is wrong. */
static bool read_table(const struct hv_core *core, uint64_t address, uint32_t *name, uint32_t *bytes)
{
    uint8_t piece[PIECE_BYTES];
    uint32_t sum = 0;

    *name = 0;
    if (!read_physical(core, address, piece, HEADER_BYTES))
        return false;
    *name = word32(piece);
    *bytes = word32(piece + 4);
    if (*bytes < HEADER_BYTES || *bytes > TABLE_BYTES_MAX)
        return false;
    for (uint32_t done = 0; done < *bytes; done += PIECE_BYTES) {
        uint32_t left = *bytes - done < PIECE_BYTES ? *bytes - done : PIECE_BYTES;

        if (!read_physical(core, address + done, piece, left))
            return false;
        sum += sum_of_bytes(piece, left);
    }
    return (sum & 0xff) == 0;
}

static bool is_root(const struct hv_core *core, uint64_t address, const char text[4], uint32_t *bytes)
{
    uint32_t name;

    return address != 0 && read_table(core, address, &name, bytes) && name == signature(text);
}

bool hv_tables_verify(const struct hv_core *core, uint64_t rsdp, uint64_t root)
{
    uint64_t xsdt;
    uint64_t rsdt;
    uint32_t bytes;

    if (root == 0 || !read_rsdp(core, rsdp, &xsdt, &rsdt))
        return false;
    if (xsdt != 0)
        return root == xsdt && is_root(core, root, "XSDT", &bytes);
    return root == rsdt && is_root(core, root, "RSDT", &bytes);
}

static void note_table(struct hv_core *core, uint64_t address, struct hv_tables *tables)
{
    uint32_t name;
    uint32_t bytes;
    bool good = read_table(core, address, &name, &bytes);
    bool again = (name == signature("APIC") && tables->madt != 0) || (name == signature("MCFG") && tables->mcfg != 0);

    if (name != signature("APIC") && name != signature("MCFG") && name != signature("DMAR") &&
        name != signature("IVRS"))
        return;
    if (!good || again) {
        hv_report(core, good ? HV_REPORT_SECOND_TABLE : HV_REPORT_BAD_TABLE, address, name);
        return;
    }
    if (name == signature("APIC")) {
        tables->madt = address;
        tables->madt_bytes = bytes;
    } else if (name == signature("MCFG")) {
        tables->mcfg = address;
        tables->mcfg_bytes = bytes;
    } else if (name == signature("DMAR")) {
        tables->dmar = true;
    } else {
        tables->ivrs = true;
    }
}

enum hv_status hv_tables_find(struct hv_core *core, uint64_t rsdp, struct hv_tables *tables)
{
    uint64_t xsdt;
    uint64_t rsdt;
    uint32_t bytes;
    uint32_t entry_bytes = 8;

    *tables = (struct hv_tables){0};
    if (!read_rsdp(core, rsdp, &xsdt, &rsdt)) {
        hv_report(core, HV_REPORT_NO_RSDP, rsdp, 0);
        return HV_INVALID;
    }
    tables->xsdt = xsdt;
    if (!is_root(core, xsdt, "XSDT", &bytes)) {
        if (xsdt != 0)
            hv_report(core, HV_REPORT_BAD_TABLE, xsdt, signature("XSDT"));
        tables->xsdt = rsdt;
        entry_bytes = 4;
        if (!is_root(core, rsdt, "RSDT", &bytes)) {
            hv_report(core, HV_REPORT_NO_ROOT_TABLE, rsdp, 0);
            tables->xsdt = 0;
            return HV_INVALID;
        }
    }
    if ((bytes - HEADER_BYTES) / entry_bytes > ROOT_ENTRIES_MAX) {
        hv_report(core, HV_REPORT_BAD_TABLE, tables->xsdt, signature(entry_bytes == 8 ? "XSDT" : "RSDT"));
        bytes = HEADER_BYTES + entry_bytes * ROOT_ENTRIES_MAX;
    }
    for (uint32_t at = HEADER_BYTES; at + entry_bytes <= bytes; at += entry_bytes) {
        uint8_t entry[8] = {0};

        if (read_physical(core, tables->xsdt + at, entry, entry_bytes))
            note_table(core, word64(entry), tables);
    }
    return HV_OK;
}

/* ---- MADT (ACPI 6.5, section 5.2.12) ---- */

#define TYPE_LOCAL_APIC 0
#define TYPE_IOAPIC 1
#define TYPE_OVERRIDE 2
#define TYPE_NMI_SOURCE 3
#define TYPE_LOCAL_X2APIC 9
#define CPU_ENABLED 1u

uint32_t hv_madt_step(const uint8_t *at, uint32_t left, struct hv_madt_entry *entry)
{
    uint32_t bytes;

    *entry = (struct hv_madt_entry){.kind = HV_MADT_OTHER};
    if (left < 2)
        return 0;
    bytes = at[1];
    if (bytes < 2 || bytes > left)
        return 0;
    switch (at[0]) {
    case TYPE_LOCAL_APIC:
        if (bytes < 8)
            return 0;
        entry->id = at[3];
        entry->kind = word32(at + 4) & CPU_ENABLED ? HV_MADT_CPU : HV_MADT_DISABLED_CPU;
        break;
    case TYPE_LOCAL_X2APIC:
        if (bytes < 16)
            return 0;
        entry->id = word32(at + 4);
        entry->kind = word32(at + 8) & CPU_ENABLED ? HV_MADT_CPU : HV_MADT_DISABLED_CPU;
        break;
    case TYPE_IOAPIC:
        if (bytes < 12)
            return 0;
        entry->kind = HV_MADT_IOAPIC;
        entry->id = at[2];
        entry->address = word32(at + 4);
        entry->gsi = word32(at + 8);
        break;
    case TYPE_OVERRIDE:
        if (bytes < 10)
            return 0;
        entry->kind = HV_MADT_OVERRIDE;
        entry->id = at[3];
        entry->gsi = word32(at + 4);
        entry->flags = word16(at + 8);
        break;
    case TYPE_NMI_SOURCE:
        if (bytes < 8)
            return 0;
        entry->kind = HV_MADT_NMI;
        entry->flags = word16(at + 2);
        entry->gsi = word32(at + 4);
        break;
    default:
        break;
    }
    return bytes;
}

static void take_cpu(struct hv_core *core, uint64_t where, uint32_t apic_id)
{
    switch (hv_cpu_add(&core->cpus, apic_id)) {
    case HV_EXISTS:
        hv_report(core, HV_REPORT_DUPLICATE_CPU, where, apic_id);
        break;
    case HV_NO_SPACE:
        if (!core->cpus.more)
            hv_report(core, HV_REPORT_CPU_LIMIT, where, apic_id);
        core->cpus.more = true;
        break;
    default:
        break;
    }
}

static void take_ioapic(struct hv_core *core, uint64_t where, const struct hv_madt_entry *entry)
{
    uint32_t pins;

    switch (hv_ioapic_take(core, entry->address, entry->gsi, false, &pins)) {
    case HV_OK:
        break;
    case HV_INVALID:
        hv_report(core, HV_REPORT_IOAPIC_ADDRESS, where, entry->address);
        break;
    case HV_EXISTS:
        if (hv_ioapic_at(core, entry->address) != HV_NONE)
            hv_report(core, HV_REPORT_IOAPIC_ADDRESS, where, entry->address);
        else
            hv_report(core, HV_REPORT_IOAPIC_OVERLAP, entry->address, entry->gsi);
        break;
    case HV_OUT_OF_RANGE:
        hv_report(core, HV_REPORT_IOAPIC_OVERLAP, entry->address, entry->gsi);
        break;
    case HV_NO_SPACE:
        hv_report(core, HV_REPORT_IOAPIC_LIMIT, where, entry->address);
        break;
    default:
        hv_report(core, HV_REPORT_IOAPIC_ABSENT, entry->address, entry->gsi);
        break;
    }
}

static void take_override(struct hv_core *core, uint64_t where, const struct hv_madt_entry *entry)
{
    struct hv_override *override;

    if (entry->id > 15 || hv_source_of_gsi(core, entry->gsi) == HV_SOURCE_NONE || core->override[entry->id].present) {
        hv_report(core, HV_REPORT_OVERRIDE, where, entry->id);
        return;
    }
    override = &core->override[entry->id];
    *override = (struct hv_override){.gsi = entry->gsi, .flags = entry->flags, .present = true};
}

/* One pass over the entries for one kind: processors first, since firmware's entries name them; overrides last. */
static void walk_madt(struct hv_core *core, const struct hv_tables *tables, uint32_t kind)
{
    uint32_t at = MADT_ENTRIES;

    while (at < tables->madt_bytes) {
        uint8_t window[HV_MADT_WINDOW] = {0};
        uint32_t left = tables->madt_bytes - at;
        struct hv_madt_entry entry;
        uint32_t bytes;

        if (!read_physical(core, tables->madt + at, window, left < HV_MADT_WINDOW ? left : HV_MADT_WINDOW))
            return;
        bytes = hv_madt_step(window, left, &entry);
        if (bytes == 0) {
            if (kind == HV_MADT_CPU)
                hv_report(core, HV_REPORT_BAD_ENTRY, tables->madt, at);
            return;
        }
        if ((uint32_t)entry.kind == kind) {
            if (kind == HV_MADT_CPU)
                take_cpu(core, tables->madt, entry.id);
            else if (kind == HV_MADT_IOAPIC)
                take_ioapic(core, tables->madt, &entry);
            else
                take_override(core, tables->madt, &entry);
        }
        at += bytes;
    }
}

static void report_gaps(struct hv_core *core, uint64_t where)
{
    for (uint32_t gsi = 0; gsi < core->gsis; gsi++) {
        if (core->gsi_source[gsi] == HV_SOURCE_NONE) {
            hv_report(core, HV_REPORT_GSI_GAP, where, gsi);
            return;
        }
    }
}

/* ---- MCFG ---- */

static bool overlaps(const struct hv_core *core, const struct hv_ecam_range *range)
{
    for (uint32_t i = 0; i < core->ecam_ranges; i++) {
        const struct hv_ecam_range *other = &core->ecam[i];

        if (other->segment == range->segment && other->start_bus <= range->end_bus &&
            range->start_bus <= other->end_bus)
            return true;
    }
    return false;
}

static void take_mcfg(struct hv_core *core, const struct hv_tables *tables)
{
    for (uint32_t at = MCFG_ENTRIES; at + MCFG_ENTRY_BYTES <= tables->mcfg_bytes; at += MCFG_ENTRY_BYTES) {
        uint8_t bytes[MCFG_ENTRY_BYTES];
        struct hv_ecam_range range;

        if (!read_physical(core, tables->mcfg + at, bytes, MCFG_ENTRY_BYTES))
            return;
        range = (struct hv_ecam_range){
            .address = word64(bytes),
            .segment = word16(bytes + 8),
            .start_bus = bytes[10],
            .end_bus = bytes[11],
        };
        if (range.address % (1u << 20) != 0 || range.end_bus < range.start_bus || overlaps(core, &range)) {
            hv_report(core, HV_REPORT_MCFG_ENTRY, tables->mcfg, range.address);
        } else if (core->ecam_ranges == HV_LIMIT_ECAM_RANGES) {
            hv_report(core, HV_REPORT_MCFG_LIMIT, tables->mcfg, range.address);
            return;
        } else {
            core->ecam[core->ecam_ranges++] = range;
        }
    }
}

void hv_tables_take(struct hv_core *core, const struct hv_tables *tables)
{
    if (tables->dmar)
        core->features |= HV_FEATURE_DMAR;
    if (tables->ivrs)
        core->features |= HV_FEATURE_IVRS;
    if (tables->madt == 0) {
        hv_report(core, HV_REPORT_NO_MADT, tables->xsdt, 0);
    } else {
        walk_madt(core, tables, HV_MADT_CPU);
        if (core->cpus.count == 0)
            hv_report(core, HV_REPORT_NO_CPU, tables->madt, 0);
        walk_madt(core, tables, HV_MADT_IOAPIC);
        report_gaps(core, tables->madt);
        walk_madt(core, tables, HV_MADT_OVERRIDE);
    }
    if (tables->mcfg != 0)
        take_mcfg(core, tables);
}
