/* SPDX-License-Identifier: MIT */
/*
 * The core's one structure and what its homes (library, kernel module, boot image) call.
 *
 * Physical state (what hardware holds: hv_cpus, hv_ioapic, vectors) and per-domain state (who owns what, what a domain
 * wrote and sees) are different structures. A *source* is whatever raises interrupts: a pin or a message; both count in
 * one 16-bit number space, so that a vector's owner is one number.
 *
 * Locks. One lock, taken by the functions marked (locks) for their whole run, which is bounded. Order: the core's
 * lock first, then whatever the home takes inside an operation (its own lock of the IOAPIC's index and data
 * registers). An operation must not call back into the core. hv_vector_owner reads one word without the lock.
 */
#ifndef HV_CORE_CORE_H
#define HV_CORE_CORE_H

#include <hv_core/abi.h>
#include <hv_core/limits.h>

#define HV_WORDS(bits) (((bits) + 63u) / 64u)

/* ---- What a home does for the core ---- */

struct hv_operations {
    void (*lock)(void *home);
    void (*unlock)(void *home);
    /* Copies bytes of physical memory, 256 at most, or returns false where there is none. */
    bool (*read_physical)(void *home, uint64_t address, void *to, uint32_t bytes);
    /* Makes an IOAPIC's page reachable before the first access, and forgets it after the last. */
    enum hv_status (*ioapic_map)(void *home, uint64_t address);
    void (*ioapic_unmap)(void *home, uint64_t address);
    /* One 32-bit register by its index: IOREGSEL and IOWIN in one step, IOREGSEL restored. */
    uint32_t (*ioapic_read)(void *home, uint64_t address, uint8_t index);
    void (*ioapic_write)(void *home, uint64_t address, uint8_t index, uint32_t value);
    /* Ends a level interrupt whose local APIC sends no EOI message (EOI register, or a model). */
    void (*ioapic_end)(void *home, uint64_t address, uint8_t pin, uint8_t vector);
    /* Intercept mode, remapped formats: points the remapping table's entry of a source (VT-d: the handle) to a
     * processor; vector 0: to nobody, which is not refused. */
    enum hv_status (*remap)(void *home, uint16_t source, uint32_t apic_id, uint8_t vector);
    /* Puts the two shared_info pages at a guest-physical address, read-only; 0: takes them away. */
    enum hv_status (*map_shared_info)(void *home, uint64_t guest_physical);
    /* The counter in shared_info went up. */
    void (*changed)(void *home);
};

/* ---- Processors and their vectors (vector.c): physical state ---- */

/* One processor. Invariant, proved in proofs/: a bit of `free` is set exactly when it is set in `usable` and the vector
 * has no owner. */
struct hv_cpu {
    uint64_t free[4];    /* bit set: this vector can be allocated; vector v is bit v % 64 of word v / 64 */
    uint64_t usable[4];  /* the dynamic range less the reserved ones */
    uint16_t owner[256]; /* hv_source of each vector, HV_SOURCE_NONE: nobody */
    uint32_t apic_id;
    uint32_t logical_id; /* LDR 31:24 in the flat model: bit i for processor i, as Linux and Xen set it; 0 from the
                            ninth on */
    uint8_t next_class;  /* where the search for a vector goes on: priority classes take turns */
};

#define HV_RUN_ORDERS 6u /* aligned runs of 1, 2, 4, 8, 16, 32 vectors */

/* Which processors can still give an aligned run of 2^order vectors, in two levels: one step finds one of 4096. */
struct hv_cpu_index {
    uint64_t word[HV_WORDS(HV_LIMIT_CPUS)];
    uint64_t summary; /* bit w set: word[w] is not zero */
};

struct hv_cpus {
    uint32_t count;
    uint32_t reachable; /* highest APIC id that an entry or message can carry; processors above are not chosen */
    bool more;          /* the MADT has more than the limit */
    uint32_t next;      /* where the search for a processor goes on: processors take turns */
    struct hv_cpu_index can_give[HV_RUN_ORDERS];
    uint16_t by_apic_id[HV_LIMIT_CPUS]; /* indices of cpu, by ascending APIC id */
    struct hv_cpu cpu[HV_LIMIT_CPUS];
};

/* Where an interrupt goes: a vector on a processor. vector 0: nowhere. */
struct hv_binding {
    uint16_t cpu;
    uint8_t vector;
    uint8_t zero;
};

/* vector.c. None of these locks; all run in constant time but hv_cpu_add (insertion) and hv_cpu_by_apic_id (log2). */
enum hv_status hv_cpu_add(struct hv_cpus *cpus, uint32_t apic_id);
/* Index of the processor, or HV_NONE. */
uint32_t hv_cpu_by_apic_id(const struct hv_cpus *cpus, uint32_t apic_id);
/* Takes vectors first to last of every present processor (and of no later one) out of use. Only before any allocation.
 */
void hv_vectors_reserve(struct hv_cpus *cpus, uint8_t first, uint8_t last);
/* The steps on one processor, pure: the proofs' subjects. */
uint32_t hv_run_find(const struct hv_cpu *cpu, uint32_t order); /* first vector of a free aligned run, 0: none */
void hv_run_take(struct hv_cpu *cpu, uint32_t first, uint32_t count, uint16_t source);
void hv_run_give(struct hv_cpu *cpu, uint32_t first, uint32_t count);
/*
 * 2^order vectors on one processor: on `cpu`, or where HV_NONE on the next that has such a run. The sources are
 * consecutive. HV_NO_SPACE; HV_OUT_OF_RANGE: no such processor, or not reachable.
 */
enum hv_status hv_vector_allocate(struct hv_cpus *cpus, uint32_t cpu, uint32_t order, uint16_t source,
                                  struct hv_binding *binding);
/* dom0's choice: takes exactly this vector, dynamic range or not. HV_EXISTS: another source has it. */
enum hv_status hv_vector_claim(struct hv_cpus *cpus, uint32_t cpu, uint8_t vector, uint16_t source);
/* Gives back; a binding with vector 0 is no-op. */
void hv_vector_free(struct hv_cpus *cpus, struct hv_binding binding);
/* The source a vector is bound to. Lock-free: what interrupt delivery asks. */
uint16_t hv_vector_owner(const struct hv_cpus *cpus, uint32_t cpu, uint8_t vector);

/* ---- Sources ---- */

#define HV_SOURCE_NONE 0u
#define HV_SOURCE_PIN(ioapic, pin) ((uint16_t)(1u + (ioapic)*HV_PINS + (pin)))
#define HV_SOURCE_MESSAGE(message) ((uint16_t)(1u + HV_LIMIT_IOAPICS * HV_PINS + (message)))
#define HV_SOURCES (1u + HV_LIMIT_IOAPICS * HV_PINS + HV_LIMIT_MESSAGES)

/* ---- IOAPICs: physical state (ioapic.c) ---- */

struct hv_pin {
    uint64_t entry;            /* what the hardware's entry was last set to, status bits clear */
    struct hv_binding bound;   /* vector 0: none */
    struct hv_binding drained; /* the old vector of a move that has not ended; vector 0: none */
    bool live;                 /* was unmasked while it had this binding: something may be on its way */
};

struct hv_ioapic {
    uint64_t address; /* physical; 0: this place is free */
    uint32_t gsi_base;
    uint32_t pins;
    uint8_t id;
    uint8_t version;
    struct hv_pin pin[HV_PINS];
};

/* ---- Per-domain state (domain.c, irq.c, msi.c) ---- */

/* A pin as its owner sees it. */
struct hv_pin_view {
    uint64_t entry; /* what the domain wrote last, status bits clear */
    uint16_t domain;
    uint16_t pirq; /* HV_NO_PIRQ: not mapped */
    uint16_t users;
    bool set_up; /* by setup_gsi */
};
#define HV_NO_PIRQ 0xffffu
_Static_assert(HV_LIMIT_PIRQS < HV_NO_PIRQ, "a pIRQ has 16 bits");

struct hv_message {
    uint64_t address; /* direct mode: recorded; 0: none */
    uint32_t data;
    uint32_t function; /* sbdf */
    struct hv_binding bound;
    struct hv_binding drained;
    uint16_t entry; /* message number of the function */
    uint16_t domain;
    uint16_t pirq;
    uint8_t run_order; /* the run this message is part of has 2^run_order messages */
    uint8_t kind;      /* HV_KIND_MSI, HV_KIND_MSIX; HV_KIND_NONE: this place is free */
    uint16_t next;     /* next message of the same function, HV_NO_MESSAGE: last */
};
#define HV_NO_MESSAGE 0xffffu

struct hv_function {
    uint32_t sbdf;     /* segment << 16 | bus << 8 | devfn */
    uint32_t flags;    /* HV_PCI_DEV_* */
    uint32_t physical; /* sbdf of the physical function, of a virtual one */
    uint32_t pxm;
    uint32_t virtuals; /* virtual functions of this one that are present */
    uint16_t domain;
    uint16_t first_message; /* HV_NO_MESSAGE: none */
};

struct hv_domain {
    bool present;
    uint32_t vectors_limit; /* 0: none */
    uint32_t vectors;       /* held */
    uint64_t pirq_free[HV_WORDS(HV_LIMIT_PIRQS)];
    uint16_t source[HV_LIMIT_PIRQS]; /* of each pIRQ */
};

struct hv_ecam_range {
    uint64_t address; /* of bus 0 of the segment (PCI Firmware 3.3, section 4.1.2) */
    uint16_t segment;
    uint8_t start_bus;
    uint8_t end_bus;
    bool reserved;
};

struct hv_override { /* MADT type 2: an ISA interrupt that is not the GSI of its number */
    uint32_t gsi;
    uint16_t flags; /* MPS INTI flags: polarity 1:0, trigger 3:2 */
    bool present;
};

struct hv_report {
    uint64_t where;
    uint64_t value;
    uint32_t code;
};

/* ---- The whole core ---- */

struct hv_core {
    _Alignas(HV_PAGE_BYTES) struct hv_shared_info shared; /* what dom0 may read */

    const struct hv_operations *operations;
    void *home;
    enum hv_mode mode;
    enum hv_format entry_format; /* direct mode: how dom0's entries are to be read; intercept: how ours are written */
    enum hv_format message_format;
    uint32_t features; /* HV_FEATURE_* */
    uint64_t calls;
    uint64_t calls_refused;
    uint64_t trapped;
    uint64_t trapped_refused;

    /* physical */
    struct hv_cpus cpus;
    uint32_t ioapics; /* places in use lie anywhere below the limit */
    uint32_t gsis;    /* highest + 1 */
    struct hv_ioapic ioapic[HV_LIMIT_IOAPICS];
    uint16_t gsi_source[HV_LIMIT_GSIS]; /* the pin of each GSI, HV_SOURCE_NONE: none */

    /* firmware */
    uint64_t rsdp;
    uint64_t xsdt;
    uint32_t ecam_ranges;
    struct hv_ecam_range ecam[HV_LIMIT_ECAM_RANGES];
    struct hv_override override[16];
    uint32_t reports;
    uint32_t reports_lost;
    struct hv_report report[HV_LIMIT_REPORTS];

    /* domains */
    uint64_t shared_at; /* guest-physical, 0: not mapped */
    uint32_t domains;
    uint32_t functions;
    uint32_t messages;
    struct hv_domain domain[HV_LIMIT_DOMAINS];
    struct hv_pin_view view[HV_LIMIT_IOAPICS][HV_PINS];
    struct hv_function function[HV_LIMIT_FUNCTIONS]; /* by ascending sbdf, the first `functions` are present */
    uint64_t message_free[HV_WORDS(HV_LIMIT_MESSAGES)];
    struct hv_message message[HV_LIMIT_MESSAGES];
};

/* ---- What a home calls ---- */

struct hv_start {
    const struct hv_operations *operations;
    void *home;
    uint64_t rsdp; /* physical address; 0: no tables, the home adds processors and IOAPICs itself */
    enum hv_mode mode;
    enum hv_format entry_format;
    enum hv_format message_format;
    uint32_t features; /* HV_FEATURE_MODEL or 0 */
};

/*
 * Makes the core from nothing: zeroes it, reads the tables, takes the IOAPICs as firmware left them (nothing is
 * written), domain 0 owns everything. Always succeeds with valid arguments (HV_INVALID otherwise); what is wrong with
 * the machine is in the reports. Not (locks): nobody else may know the core yet. `core` is page-aligned,
 * sizeof(struct hv_core).
 */
enum hv_status hv_core_start(struct hv_core *core, const struct hv_start *start);

/* Bytes a caller's argument has, 0: no such call; then, the argument copied so far, how many follow (0 or 4). */
uint32_t hv_argument_bytes(uint32_t number, uint32_t command);
uint32_t hv_argument_more_bytes(uint32_t number, uint32_t command, const union hv_argument *argument);

/* The one dispatcher (locks). `argument` is the core's own copy; copy it back only when HV_OK is returned. */
enum hv_status hv_hypercall(struct hv_core *core, uint32_t caller, uint32_t number, uint32_t command,
                            union hv_argument *argument);

/* A trapped access to an IOAPIC register (locks): the same as physdev apic_read and apic_write. */
enum hv_status hv_ioapic_trapped_read(struct hv_core *core, uint32_t caller, uint64_t address, uint32_t reg,
                                      uint32_t *value);
enum hv_status hv_ioapic_trapped_write(struct hv_core *core, uint32_t caller, uint64_t address, uint32_t reg,
                                       uint32_t value);

/* What a vector that arrived on a processor means. */
struct hv_delivery {
    uint32_t domain;
    uint32_t pirq;   /* HV_NONE: not mapped */
    uint32_t gsi;    /* or HV_NONE */
    uint32_t vector; /* the vector the domain expects: what it wrote into its view, or the same */
    bool level;
};
/* (locks) Ends the draining of a move. HV_NOT_FOUND: nobody's vector. HV_OUT_OF_RANGE: no such processor. */
enum hv_status hv_interrupt_arrived(struct hv_core *core, uint32_t cpu, uint8_t vector, struct hv_delivery *delivery);

#endif
