/* SPDX-License-Identifier: MIT */
/*
 * The boot image: the third home of the core, a type-1 hypervisor whose only guest is dom0. What its files call of each
 * other.
 *
 * A processor runs in the core with interrupts and NMIs held (AMD: GIF clear) but for the two windows that vendor
 * operations open. Lock: one, of the core (hv_operations); nothing else is shared but words that are read and written
 * atomically.
 */
#ifndef X86_HOME_H
#define X86_HOME_H

#include <hv_core/core.h>
#include "layout.h"

#define ARRAY_LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* ---- string.c: what the compiler asks for ---- */

void *memcpy(void *to, const void *from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *to, int value, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

/* ---- console.c ---- */

enum log_level { LOG_ERROR, LOG_WARNING, LOG_NOTICE, LOG_DEBUG };

/* COM1, 115200 8n1. A line at or below the level of the option `loglevel` (2) is written; %d %u %x %lx %s %c. */
void console_start(void);
void console_level(uint32_t level);
__attribute__((format(printf, 2, 3))) void log_line(enum log_level level, const char *format, ...);
/* What dom0 tried and did not get, at LOG_WARNING; after a few hundred lines no more, for dom0 could fill the console.
 */
__attribute__((format(printf, 1, 2))) void log_refusal(const char *format, ...);
/* Says why, with where dom0 was on this processor, and stops the machine's use by the core for ever. */
__attribute__((noreturn, format(printf, 1, 2))) void panic(const char *format, ...);

/* ---- ranges.c: who has which physical memory ---- */

struct range {
    uint64_t start;
    uint64_t end; /* the first address behind it */
};

/* Types of the map that firmware gives (ACPI 6.5, section 15). */
#define MEMORY_RAM 1u
#define MEMORY_RESERVED 2u
#define MEMORY_ACPI 3u
#define MEMORY_NVS 4u

struct memory_range {
    struct range range;
    uint32_t type;
};

#define MEMORY_RANGES 128u /* what boot_params has room for */
struct memory_map {
    uint32_t count;
    struct memory_range range[MEMORY_RANGES]; /* by ascending address, no two overlap */
};

#define TAKEN_RANGES 32u
struct taken {
    uint32_t count;
    struct range range[TAKEN_RANGES];
};

static inline bool ranges_meet(struct range a, struct range b)
{
    return a.start < b.end && b.start < a.end;
}

static inline bool range_holds(struct range range, uint64_t address, uint64_t bytes)
{
    return address >= range.start && address < range.end && bytes <= range.end - address;
}

/* Gives a range another type; false when the map has no room. What lay there before is cut. */
bool memory_set(struct memory_map *map, struct range range, uint32_t type);
/* Whether all of it is memory of one type. */
bool memory_is(const struct memory_map *map, uint64_t address, uint64_t bytes, uint32_t type);
bool taken_add(struct taken *taken, struct range range);
bool taken_meets(const struct taken *taken, struct range range);
/* The lowest RAM from `within.start` on, aligned, all in `within`, that nobody has taken; 0: none. */
uint64_t memory_find(const struct memory_map *map, const struct taken *taken, struct range within, uint64_t bytes,
                     uint64_t alignment);

/* ---- Why dom0 stopped running, in nobody's numbers ---- */

enum exit_kind {
    EXIT_CPUID,
    EXIT_MSR_READ,
    EXIT_MSR_WRITE,
    EXIT_HYPERCALL,
    EXIT_MEMORY,    /* address: guest-physical */
    EXIT_FORBIDDEN, /* an instruction of the virtualization extension, or its state */
    EXIT_NMI,       /* has been taken */
    EXIT_INTERRUPT, /* has been taken: its vector is pending */
    EXIT_WINDOW,    /* dom0 can take an interrupt now */
    EXIT_INIT,
    EXIT_SHUTDOWN, /* triple fault */
    EXIT_OTHER,    /* code: the vendor's number */
};

struct exit {
    enum exit_kind kind;
    bool write;       /* EXIT_MEMORY */
    uint64_t address; /* EXIT_MEMORY */
    uint64_t code;
};

/* What the core wants to know of dom0's processor. */
struct state {
    uint64_t rip;
    uint64_t rsp;
    uint64_t rflags;
    uint64_t cr0;
    uint64_t cr2;
    uint64_t cr3;
    uint64_t cr4;
    uint64_t efer; /* as dom0 sees it */
    uint64_t cs_base;
    uint32_t cpl;
    bool code64; /* in 64-bit mode */
    bool code32; /* else: 32-bit operands by default */
};

/* Where dom0 begins. */
struct entry {
    bool long_mode; /* 64-bit by the tables below cr3; else 32-bit, paging off */
    uint64_t rip;
    uint64_t rsi;
    uint64_t rbx;
    uint64_t cr3;
    struct range gdt; /* flat code at 0x10, flat data at 0x18 */
};

/* ---- Processors ---- */

enum counter {
    COUNT_CPUID,
    COUNT_MSR,
    COUNT_HYPERCALL,
    COUNT_IOAPIC,
    COUNT_APIC_EOI,
    COUNT_APIC_ICR,
    COUNT_APIC_OTHER,
    COUNT_NMI,
    COUNT_INTERRUPT,
    COUNT_WINDOW,
    COUNT_OTHER,
    /* And what was refused: */
    COUNT_REFUSED_MEMORY,
    COUNT_REFUSED_INSTRUCTION,
    COUNT_REFUSED_MSR,
    COUNT_REFUSED_IPI,
    COUNTERS,
};

enum cpu_role {
    CPU_ABSENT,  /* did not start */
    CPU_KEPT,    /* the core's: waits for ever */
    CPU_WAITING, /* dom0's, waits for a SIPI */
    CPU_RUNNING, /* dom0's */
};

enum gpr { GPR_RAX, GPR_RCX, GPR_RDX, GPR_RBX, GPR_RSP, GPR_RBP, GPR_RSI, GPR_RDI, GPR_COUNT = 16 };

struct cpu {
    uint64_t gpr[GPR_COUNT]; /* dom0's, while it does not run, by the number instructions have for them */
    uint32_t number;         /* index in processors */
    uint32_t apic_id;
    enum cpu_role role;
    bool alive;
    bool in_guest;              /* dom0 runs, or is about to: a change must be told by an NMI */
    uint32_t startup;           /* STARTUP_*: what dom0 has sent it and it has not dealt with */
    uint32_t nested_generation; /* of the nested tables that it has looked at */
    uint32_t nmi;               /* an NMI for dom0 has come */
    uint32_t kicked;            /* an NMI of the core's own is on its way to it */
    uint32_t apic_destination;  /* ICR's high word, as dom0 wrote it */
    uint64_t arrived[4];        /* intercept mode: vectors the core has taken */
    uint64_t pending[4];        /* and what they are to dom0, which has not taken them */
    uint64_t count[COUNTERS];
};
#define STARTUP_INIT 0x200u /* INIT came, and after it */
#define STARTUP_SIPI 0x100u /* a SIPI, with the vector in bits 7:0 */

_Static_assert(offsetof(struct cpu, gpr) == CPU_GPR, "layout.h");

union processor {
    struct cpu cpu;
    uint8_t stack[STACK_BYTES];
};
extern union processor processors[HV_LIMIT_CPUS];

static inline struct cpu *this_cpu(void)
{
    uint64_t sp;

    __asm__("mov %%rsp, %0" : "=r"(sp));
    return (struct cpu *)(sp & ~(uint64_t)(STACK_BYTES - 1)); /* NOLINT(performance-no-int-to-ptr) */
}

/* ---- The vendor layer: the processor's virtualization extension (svm.c) ---- */

struct vendor {
    const char *name;
    bool (*present)(void);
    /* Once, before any processor: intercept mode or not, local APIC trapped or not. */
    void (*configure)(bool intercept, bool trap_nmi, uint64_t nested_root);
    /* Turns the extension on for this processor, and holds interrupts and NMIs from now on. False: firmware forbids. */
    bool (*enable)(struct cpu *cpu);
    /* dom0's first instruction on the first processor; the first after a SIPI on another. */
    void (*begin)(struct cpu *cpu, const struct entry *entry);
    void (*sipi)(struct cpu *cpu, uint8_t vector);
    /* Runs dom0 until something is to be done. flush: nested translations are out of date. */
    void (*run)(struct cpu *cpu, bool flush, struct exit *exit);
    void (*state)(const struct cpu *cpu, struct state *state);
    /* To behind the instruction that led to the exit; bytes: its length where the processor may not tell. */
    void (*skip)(struct cpu *cpu, uint32_t bytes);
    void (*set_efer)(struct cpu *cpu, uint64_t efer); /* as dom0 sees it */
    /* An exception, with error code 0 where it has one; NMI as VECTOR_NMI. */
    void (*inject_exception)(struct cpu *cpu, uint32_t vector);
    /* Intercept mode: an interrupt, if dom0 takes one now; else false, and EXIT_WINDOW when it does. */
    bool (*inject_interrupt)(struct cpu *cpu, uint8_t vector);
    /* Waits until the word is not 0, or an NMI came. */
    void (*wait)(const uint32_t *word);
    /* Where code that an NMI has interrupted goes on: elsewhere, where it was about to wait. */
    uint64_t (*after_nmi)(uint64_t rip);
    /* Entry of a nested table: a page of 4 KiB << 9 * level, or the next table. */
    uint64_t (*nested_page)(uint64_t address, uint32_t level, bool writable);
    uint64_t (*nested_table)(uint64_t address);
    /* Whether nested pages of 1 GiB exist. */
    bool (*huge_pages)(void);
};
extern const struct vendor svm;

/* ---- The one hypervisor ---- */

struct options {
    uint32_t dom0_cpus; /* 0: all */
    bool intercept;
    bool apic_trap; /* also with one processor */
};

struct hypervisor {
    struct hv_core *core;
    const struct vendor *vendor;
    struct options options;
    struct memory_map firmware; /* as it was */
    struct memory_map dom0;     /* as dom0 is told */
    struct taken taken;
    struct range image;    /* the core's memory, which dom0 does not reach: the image */
    struct range tables;   /* and page tables */
    uint64_t physical_end; /* by CPUID: the first address that does not exist */
    uint64_t apic;         /* physical address of the local APICs */
    bool apic_trapped;
    uint32_t cpus;      /* present, the core's too */
    uint32_t dom0_cpus; /* the first of them */
    uint64_t rsdp;      /* firmware's */
    uint64_t shared_at; /* guest-physical, 0: not mapped */
    uint32_t nested_generation;
    bool stopped; /* a panic: no processor runs dom0 any more */
};
extern struct hypervisor hypervisor;

/* ---- interrupt.c: what the core itself takes ---- */

void interrupts_make(void);     /* once */
void interrupts_start(void);    /* on this processor: exceptions and NMIs are expected */
void interrupts_expected(void); /* interrupts from outside and NMIs are */

/* ---- nested.c: dom0's physical memory, and the core's own ---- */

/* Makes both: tables in memory of their own, which is added to hypervisor.taken. */
void memory_start(void);
void memory_own_tables(void); /* this processor uses the core's */
uint64_t nested_tables(void); /* physical address of the root */
/* Each access to the page is an exit from now on; the reverse. HV_NO_SPACE. */
enum hv_status nested_hide(uint64_t page);
enum hv_status nested_show(uint64_t page);
/* A page of the core's: dom0 reads ones there from now on. */
void nested_ones(uint64_t page);
/* Two pages of the core's show through at `page`, read-only; 0: nowhere any more. HV_NO_SPACE, with nothing changed. */
enum hv_status nested_share(uint64_t page, uint64_t pages);
/* After a change that takes something away: returns when no processor uses the old tables. */
void nested_changed(void);

/* ---- guest_memory.c ---- */

/* Whether the core may read there on dom0's word: RAM that is not the core's. */
bool guest_may_read(uint64_t address, uint64_t bytes);
/* By dom0's page tables, at its privilege 0. False: not mapped, not writable, or not dom0's RAM. */
bool guest_copy_in(const struct state *state, uint64_t linear, void *to, uint32_t bytes);
bool guest_copy_out(const struct state *state, uint64_t linear, const void *from, uint32_t bytes);
/* Up to 15 bytes of code; how many. */
uint32_t guest_fetch(const struct state *state, uint8_t code[15]);

/* ---- decode.c: the moves that reach a register in memory (AMD APM volume 3) ---- */

struct access {
    uint32_t length; /* of the instruction */
    uint32_t bytes;  /* of the access: 1, 2, 4, 8 */
    bool write;
    bool has_value; /* write: of an immediate; else of the register */
    uint64_t value;
    uint32_t gpr;
    bool high_byte;      /* AH, CH, DH, BH */
    uint32_t fill_bytes; /* read: of the register that is written, zero- or sign-extended */
    bool sign;
};

/* False: not such an instruction, or not enough of it. */
bool decode(const uint8_t *code, uint32_t bytes, bool code64, bool code32, struct access *access);
void access_read(const struct access *access, uint64_t gpr[GPR_COUNT], uint64_t value);
uint64_t access_value(const struct access *access, const uint64_t gpr[GPR_COUNT]);

/* ---- local_apic.c, ipi.c, smp.c ---- */

/* An access to the local APIC's page; offset below 4096. */
uint32_t apic_read(struct cpu *cpu, uint32_t offset);
void apic_write(struct cpu *cpu, uint32_t offset, uint32_t value);
/* The registers an INIT resets. */
void apic_reset(void);
void apic_nmi(uint32_t apic_id);
uint32_t apic_own_id(void);
void apic_start(uint32_t apic_id); /* INIT and two SIPIs to TRAMPOLINE */
void apic_off(void);
void apic_learn_processors(void); /* whose interprocessor interrupts reach whom, once all are known */

struct ipi {
    uint32_t destination;
    uint32_t mode; /* IPI_* */
    uint32_t shorthand;
    uint32_t vector;
    bool logical;
    bool level;
    bool asserted;
};
#define IPI_FIXED 0u
#define IPI_LOWEST_PRIORITY 1u
#define IPI_SMI 2u
#define IPI_RESERVED 3u
#define IPI_NMI 4u
#define IPI_INIT 5u
#define IPI_STARTUP 6u
#define IPI_TO_DESTINATION 0u
#define IPI_TO_SELF 1u
#define IPI_TO_ALL 2u
#define IPI_TO_OTHERS 3u

/* Processors an IPI can be for: their ids, physical and logical, and how many of them, the first, are dom0's. */
struct ipi_cpus {
    uint32_t count;
    uint32_t dom0;
    bool x2apic;
    bool cluster; /* logical ids: cluster 31:28 and mask 27:24; else flat, 31:24 (x2APIC: cluster 31:16, mask 15:0) */
    struct {
        uint32_t apic_id;
        uint32_t logical_id;
    } cpu[HV_LIMIT_CPUS];
};

struct ipi ipi_of_icr(uint64_t icr, bool x2apic);
/* To all, or to all others: of dom0's processors, for it knows of no more. */
bool ipi_is_broadcast(const struct ipi *ipi, bool x2apic);
/* Bit i: processor i of dom0's is meant. *kept: so is one of the core's. */
uint64_t ipi_targets(const struct ipi *ipi, const struct ipi_cpus *cpus, uint32_t self, bool *kept);

/* Starts every processor the tables name; hypervisor.cpus are those that came. */
void processors_start(void);
/* Makes a processor look at what has changed. */
void cpu_kick(struct cpu *cpu);
void cpu_init(struct cpu *cpu);
void cpu_sipi(struct cpu *cpu, uint8_t vector);

/* ---- acpi_edit.c ---- */

uint64_t acpi_find_rsdp(void);
/* Copies root tables and MADT into `area`, edited; the RSDP's address there, 0: no room or no tables. */
uint64_t acpi_edit(struct hv_core *core, struct range area);

/* ---- dom0_image.c ---- */

struct module {
    struct range range;
    const char *line;
};

/* Puts kernel and initrd in place, and fills the boot area; panics where it cannot. */
struct entry dom0_load(const struct module *kernel, const struct module *initrd, uint64_t area, uint64_t rsdp);
#define BOOT_AREA_BYTES 0x20000u
#define BOOT_AREA_ACPI 0xa000u /* from here on it is the tables' */

/* ---- exits.c ---- */

/* Runs dom0 on this processor, or waits for a SIPI that begins it. */
__attribute__((noreturn)) void cpu_run(struct cpu *cpu);

/* ---- machine.c: what the core asks of its home ---- */

extern const struct hv_operations machine_operations;
void forget_ioapics(void); /* before the core is started (anew) */
/* An access of dom0's to the page of an IOAPIC. */
bool ioapic_is_at(uint64_t address);
uint32_t ioapic_window_read(uint64_t address);
void ioapic_window_write(uint64_t address, uint32_t value);

#endif
