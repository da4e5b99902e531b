/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* What the files of the core call of each other. Nothing here takes the lock: the dispatcher holds it. */
#ifndef HV_CORE_INTERNAL_H
#define HV_CORE_INTERNAL_H

#include <hv_core/core.h>

/* ---- bits.h would be too much: the two primitives everything counts with ---- */

static inline uint32_t hv_lowest_bit(uint64_t word) /* word must not be 0 */
{
    return (uint32_t)__builtin_ctzll(word);
}

static inline bool hv_bit(const uint64_t *words, uint32_t bit)
{
    return words[bit / 64] >> (bit % 64) & 1;
}

static inline void hv_bit_set(uint64_t *words, uint32_t bit)
{
    words[bit / 64] |= 1ull << (bit % 64);
}

static inline void hv_bit_clear(uint64_t *words, uint32_t bit)
{
    words[bit / 64] &= ~(1ull << (bit % 64));
}

/* ---- core.c ---- */

void hv_report(struct hv_core *core, uint32_t code, uint64_t where, uint64_t value);

/* ---- acpi_static.c: RSDP, RSDT or XSDT, MADT, MCFG, presence of DMAR and IVRS (ACPI 6.5, sections 5.2.5 to 5.2.12) ---- */

struct hv_madt_entry {
    enum { HV_MADT_OTHER, HV_MADT_CPU, HV_MADT_IOAPIC, HV_MADT_OVERRIDE, HV_MADT_NMI, HV_MADT_DISABLED_CPU } kind;
    uint32_t id;       /* CPU: local APIC id; IOAPIC: its id; override, NMI source: ISA source */
    uint32_t gsi;      /* IOAPIC: GSI base; override, NMI source: GSI */
    uint64_t address;  /* IOAPIC */
    uint16_t flags;    /* override: MPS INTI flags */
};
#define HV_MADT_WINDOW 16u
/*
 * One MADT entry: `at` holds min(left, HV_MADT_WINDOW) bytes, `left` is what the table has from there on. Returns the
 * entry's length, 2 to left; 0 when it is too short for its type or runs over the end, and the walk must stop.
 */
uint32_t hv_madt_step(const uint8_t *at, uint32_t left, struct hv_madt_entry *entry);

struct hv_tables { /* physical addresses and lengths of the tables we read; address 0: not there */
    uint64_t xsdt;
    uint64_t madt;
    uint64_t mcfg;
    uint32_t madt_bytes;
    uint32_t mcfg_bytes;
    bool dmar;
    bool ivrs;
};
/* RSDP to tables, with checksums verified. HV_INVALID: no good RSDP, or no good XSDT or RSDT. Reports what is wrong. */
enum hv_status hv_tables_find(struct hv_core *core, uint64_t rsdp, struct hv_tables *tables);
/* The same without reports: is this RSDP good, and its XSDT (RSDT) at this address, with a good checksum? */
bool hv_tables_verify(const struct hv_core *core, uint64_t rsdp, uint64_t xsdt);
/* Processors, IOAPICs, overrides and ECAM ranges of the firmware become the core's. */
void hv_tables_take(struct hv_core *core, const struct hv_tables *tables);

/* ---- ioapic.c ---- */

/* Bits of a redirection entry (Intel 82093AA, section 3.2.4). */
#define HV_ENTRY_VECTOR 0xffull
#define HV_ENTRY_DELIVERY_MODE (7ull << 8)
#define HV_ENTRY_LOGICAL (1ull << 11)
#define HV_ENTRY_DELIVERY_STATUS (1ull << 12) /* read only */
#define HV_ENTRY_ACTIVE_LOW (1ull << 13)
#define HV_ENTRY_REMOTE_IRR (1ull << 14) /* read only */
#define HV_ENTRY_LEVEL (1ull << 15)
#define HV_ENTRY_MASKED (1ull << 16)
#define HV_ENTRY_REMAPPABLE (1ull << 48) /* VT-d */
#define HV_ENTRY_STATUS (HV_ENTRY_DELIVERY_STATUS | HV_ENTRY_REMOTE_IRR)
#define HV_DELIVERY_FIXED 0u
#define HV_DELIVERY_LOWEST_PRIORITY 1u

/*
 * The part of apic_write's check that needs no state: may `entry` (status bits ignored) be in a view whose entry was
 * `before`? HV_OK or HV_INVALID, by the rules at struct hv_apic. Pure: proved for all 2^64 values.
 */
enum hv_status hv_entry_check(uint64_t entry, uint64_t before, enum hv_format format);
/* An entry in the compatibility format for a binding; in a remapped format it carries the handle. Masked or not as told. */
uint64_t hv_entry_compose(enum hv_format format, uint32_t apic_id, uint8_t vector, uint16_t handle, bool level,
                          bool active_low, bool masked);
/* Sets the hardware's entry in the order of invariant 4 and the shadow with it. HV_BUSY: trigger change with remote IRR. */
enum hv_status hv_pin_program(struct hv_core *core, struct hv_ioapic *ioapic, uint32_t pin, uint64_t entry);
uint32_t hv_ioapic_at(const struct hv_core *core, uint64_t address); /* index, or HV_NONE */
/* Takes an IOAPIC into the core. mask: silence all its pins (hot-add), else leave what firmware set. Statuses of HV_OP_IOAPIC_ADD. */
enum hv_status hv_ioapic_take(struct hv_core *core, uint64_t address, uint32_t gsi_base, bool mask, uint32_t *pins);
enum hv_status hv_ioapic_remove(struct hv_core *core, uint64_t address);
enum hv_status hv_apic_read(struct hv_core *core, uint32_t caller, uint64_t address, uint32_t reg, uint32_t *value);
enum hv_status hv_apic_write(struct hv_core *core, uint32_t caller, uint64_t address, uint32_t reg, uint32_t value);

/* ---- msi.c ---- */

/* An MSI message; HV_OUT_OF_RANGE when apic_id does not fit the format. handle: index in the remapping table. */
enum hv_status hv_message_compose(enum hv_format format, uint32_t apic_id, uint8_t vector, uint16_t handle,
                                  uint64_t *address, uint32_t *data);

#endif
