/* SPDX-License-Identifier: MIT */
/* What the files of the core call of each other. Nothing here takes the lock: the dispatcher holds it. */
#ifndef HV_CORE_INTERNAL_H
#define HV_CORE_INTERNAL_H

#include <hv_core/core.h>

/* ---- Bits of words ---- */

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

/* ---- acpi_static.c ---- */

struct hv_madt_entry {
    enum { HV_MADT_OTHER, HV_MADT_CPU, HV_MADT_IOAPIC, HV_MADT_OVERRIDE, HV_MADT_NMI, HV_MADT_DISABLED_CPU } kind;
    uint32_t id;      /* CPU: local APIC id; IOAPIC: its id; override, NMI source: ISA source */
    uint32_t gsi;     /* IOAPIC: GSI base; override, NMI source: GSI */
    uint64_t address; /* IOAPIC */
    uint16_t flags;   /* override: MPS INTI flags */
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
bool hv_tables_verify(const struct hv_core *core, uint64_t rsdp, uint64_t root);
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

static inline bool hv_entry_is_remapped(uint64_t entry, enum hv_format format)
{
    return format == HV_FORMAT_AMD_VI || (format == HV_FORMAT_VTD && (entry & HV_ENTRY_REMAPPABLE) != 0);
}

/*
 * The part of apic_write's check that needs no state: may `entry` (status bits ignored) be in a view whose entry was
 * `before`? HV_OK or HV_INVALID, by the rules at struct hv_apic. Pure: proved for all 2^64 values.
 */
enum hv_status hv_entry_check(uint64_t entry, uint64_t before, enum hv_format format);
/* An entry that leads to a processor's vector; in a remapped format it carries the handle. */
uint64_t hv_entry_compose(enum hv_format format, uint32_t apic_id, uint8_t vector, uint16_t handle, bool level,
                          bool active_low, bool masked);
/* Sets the hardware's entry, in an order that never lets a half-written one act. HV_BUSY: trigger, remote IRR. */
enum hv_status hv_pin_program(struct hv_core *core, struct hv_ioapic *ioapic, uint32_t pin, uint64_t entry);
uint32_t hv_ioapic_at(const struct hv_core *core, uint64_t address); /* index, or HV_NONE */
/* Takes an IOAPIC, its pins masked or as firmware left them. Statuses of struct hv_ioapic_add. */
enum hv_status hv_ioapic_take(struct hv_core *core, uint64_t address, uint32_t gsi_base, bool mask, uint32_t *pins);
enum hv_status hv_ioapic_remove(struct hv_core *core, uint64_t address);
enum hv_status hv_apic_read(struct hv_core *core, uint32_t caller, uint64_t address, uint32_t reg, uint32_t *value);
enum hv_status hv_apic_write(struct hv_core *core, uint32_t caller, uint64_t address, uint32_t reg, uint32_t value);

/* ---- irq.c ---- */

static inline bool hv_source_is_pin(uint16_t source)
{
    return source != HV_SOURCE_NONE && source < HV_SOURCE_MESSAGE(0);
}

static inline uint32_t hv_source_ioapic(uint16_t source)
{
    return (source - 1u) / HV_PINS;
}

static inline uint32_t hv_source_pin(uint16_t source)
{
    return (source - 1u) % HV_PINS;
}

static inline uint32_t hv_source_message(uint16_t source)
{
    return source - HV_SOURCE_MESSAGE(0);
}

/* HV_SOURCE_NONE: no IOAPIC has that GSI. */
uint16_t hv_source_of_gsi(const struct hv_core *core, uint32_t gsi);
uint32_t hv_gsi_of_source(const struct hv_core *core, uint16_t source); /* HV_NONE for a message */
/* What `irq` means for a domain (abi.h, top), or HV_SOURCE_NONE. */
uint16_t hv_source_of_irq(const struct hv_core *core, uint32_t domain, uint32_t irq);

/* Sets a pin's view, binding and hardware in one step. Statuses of struct hv_apic; a refusal changes nothing. */
enum hv_status hv_pin_set_view(struct hv_core *core, uint16_t source, uint64_t entry);
/* Takes a binding that firmware left in an unmasked entry into the books, where it names one processor. */
void hv_pin_adopt(struct hv_core *core, uint16_t source);
/* Masks a pin, frees its vector and pIRQ and gives it to domain 0. */
void hv_pin_release(struct hv_core *core, uint16_t source);
bool hv_pin_in_use(const struct hv_core *core, uint16_t source);

/* A vector for 2^order consecutive sources of a domain, counted against its limit; the reverse for one. */
enum hv_status hv_bind(struct hv_core *core, uint32_t domain, uint32_t cpu, uint32_t order, uint16_t source,
                       struct hv_binding *binding);
void hv_unbind(struct hv_core *core, uint32_t domain, struct hv_binding *binding);
/* Direct mode: the vector that a domain chose. */
enum hv_status hv_claim(struct hv_core *core, uint32_t domain, uint32_t cpu, uint8_t vector, uint16_t source,
                        struct hv_binding *binding);
/* The processor a destination means, the lowest of several (logical ones only). HV_OUT_OF_RANGE: nobody. */
enum hv_status hv_destination_cpu(const struct hv_core *core, bool logical, uint32_t destination, uint32_t *cpu,
                                  bool *several);
/* In eight bits of physical destination, 0xff is every processor: no pair that the books could hold. */
static inline bool hv_destination_is_everybody(enum hv_format format, bool logical, uint32_t destination)
{
    return !logical && destination == 0xff && format != HV_FORMAT_EXTENDED_DESTINATION;
}

/* Tells the interrupt remapper where a source goes now; HV_OK without one. */
enum hv_status hv_remap(struct hv_core *core, enum hv_format format, uint16_t source, struct hv_binding binding);

enum hv_status hv_irq_status_query(struct hv_core *core, uint32_t caller, struct hv_irq_status_query *query);
enum hv_status hv_alloc_irq_vector(struct hv_core *core, uint32_t caller, struct hv_alloc_irq_vector *alloc);
enum hv_status hv_eoi(struct hv_core *core, uint32_t caller, uint32_t irq);
enum hv_status hv_map_gsi(struct hv_core *core, uint32_t domain, struct hv_map_pirq *map);
enum hv_status hv_unmap_pirq(struct hv_core *core, uint32_t domain, uint32_t pirq);
enum hv_status hv_setup_gsi(struct hv_core *core, uint32_t caller, const struct hv_setup_gsi *setup);
enum hv_status hv_query_vector(struct hv_core *core, uint32_t domain, struct hv_query_vector *query);
enum hv_status hv_set_affinity(struct hv_core *core, uint32_t domain, const struct hv_set_affinity *affinity);
enum hv_status hv_read_interrupt(struct hv_core *core, uint32_t domain, struct hv_read_interrupt *read);

/* ---- msi.c ---- */

/* An MSI message; HV_OUT_OF_RANGE when apic_id does not fit the format. handle: index in the remapping table. */
enum hv_status hv_message_compose(enum hv_format format, uint32_t apic_id, uint8_t vector, uint16_t handle,
                                  uint64_t *address, uint32_t *data);
/* A remappable message says so by bit 4 (VT-d); AMD-Vi's always are. */
static inline bool hv_message_is_remapped(uint64_t address, enum hv_format format)
{
    return format == HV_FORMAT_AMD_VI || (format == HV_FORMAT_VTD && (address & 1u << 4) != 0);
}

/* The part of msi_write's check that needs no state. HV_OK or HV_INVALID. Pure. */
enum hv_status hv_message_check(enum hv_format format, uint64_t address, uint32_t data);
enum hv_status hv_map_msi(struct hv_core *core, uint32_t domain, struct hv_map_pirq *map);
void hv_message_release(struct hv_core *core, uint32_t number);
/* Frees every message of a function, by way of its pIRQ. */
void hv_function_quiet(struct hv_core *core, struct hv_function *function);
enum hv_status hv_msi_read(struct hv_core *core, uint32_t domain, struct hv_msi *msi);
enum hv_status hv_msi_write(struct hv_core *core, uint32_t domain, const struct hv_msi *msi);

/* ---- domain.c ---- */

void hv_domain_make(struct hv_core *core, uint32_t number, uint32_t vectors_limit);
/* The domain an argument names, by the rule at the top of abi.h. */
enum hv_status hv_domain_named(const struct hv_core *core, uint32_t caller, uint32_t named, uint32_t *domain);
/* The lowest free pIRQ from `from` on that begins `count` free ones, or HV_NONE. */
uint32_t hv_pirq_find(const struct hv_domain *domain, uint32_t from, uint32_t count);
uint32_t hv_pirq_from(const struct hv_core *core, int32_t type); /* where the search begins for a type */
struct hv_function *hv_function_find(struct hv_core *core, uint32_t sbdf);
enum hv_status hv_function_add(struct hv_core *core, const struct hv_pci_device_add_pxm *add);
enum hv_status hv_function_remove(struct hv_core *core, uint32_t sbdf);
enum hv_status hv_domain_create(struct hv_core *core, struct hv_domain_create *create);
enum hv_status hv_domain_destroy(struct hv_core *core, uint32_t number);
enum hv_status hv_assign_device(struct hv_core *core, uint32_t domain, const struct hv_pci_device *device);
enum hv_status hv_release_device(struct hv_core *core, uint32_t domain, const struct hv_pci_device *device);
enum hv_status hv_assign_gsi(struct hv_core *core, uint32_t domain, uint32_t gsi);
enum hv_status hv_release_gsi(struct hv_core *core, uint32_t domain, uint32_t gsi);

static inline uint32_t hv_sbdf(uint32_t segment, uint32_t bus, uint32_t devfn)
{
    return segment << 16 | bus << 8 | devfn;
}

/* ---- shared_info.c ---- */

void hv_shared_update(struct hv_core *core); /* writes block and IOAPIC list anew; the counter goes up by two */
enum hv_status hv_map_shared_info(struct hv_core *core, uint64_t guest_physical);
enum hv_status hv_hand_over(struct hv_core *core, const struct hv_hand_over *hand_over);

#endif
