/* SPDX-License-Identifier: MIT */
/*
 * A modelled machine for the core to run on inside a process: IOAPICs, local APICs, memory, an interrupt remapping
 * table.
 *
 * Every argument may be anything: what does not exist is refused. Not for several threads but through the core's calls.
 */
#ifndef HV_CORE_MODEL_H
#define HV_CORE_MODEL_H

#include <hv_core/core.h>

struct hv_machine;

/* One access of the core to an IOAPIC register. */
struct hv_access {
    uint64_t address;
    uint32_t value;
    uint8_t index;
    uint8_t write; /* 1: write, 0: read */
};

/* NULL when there is no memory. */
struct hv_machine *hv_machine_new(void);
void hv_machine_free(struct hv_machine *machine);

/* Puts bytes into physical memory (copied). HV_NO_SPACE: too many pieces. HV_INVALID: wraps around, or nothing. */
enum hv_status hv_machine_memory(struct hv_machine *machine, uint64_t address, const void *bytes, uint32_t count);

/* An IOAPIC the core can find at an address. HV_EXISTS, HV_NO_SPACE, HV_INVALID (address 0). All entries are masked. */
enum hv_status hv_machine_ioapic(struct hv_machine *machine, uint64_t address, uint32_t id, uint32_t version);
/* What firmware left in an entry. HV_NO_DEVICE, HV_OUT_OF_RANGE. */
enum hv_status hv_machine_entry(struct hv_machine *machine, uint64_t address, uint32_t pin, uint64_t entry);

/* Starts (again) the core over this machine. Statuses of hv_core_start; HV_NO_SPACE without memory for it. */
enum hv_status hv_machine_start(struct hv_machine *machine, uint64_t rsdp, uint32_t mode, uint32_t entry_format,
                                uint32_t message_format);

/*
 * One hypercall, as a home does it: the argument is copied in, and out when the status is HV_OK. HV_FAULT: `count` is
 * less than the call's argument has. HV_NO_CALL before a start.
 */
int32_t hv_machine_call(struct hv_machine *machine, uint32_t caller, uint32_t number, uint32_t command, void *argument,
                        uint32_t count);
/* The interrupt remapper refuses new entries from now on, or takes them again. */
void hv_machine_refuse_remapping(struct hv_machine *machine, bool refuse);

/* Takes vectors out of use, as a home does that needs some itself; before any call. */
void hv_machine_reserve(struct hv_machine *machine, uint8_t first, uint8_t last);

/* hv_argument_bytes. */
uint32_t hv_machine_argument_bytes(uint32_t number, uint32_t command);
/* A trapped access of a domain to an IOAPIC register. */
int32_t hv_machine_trapped_read(struct hv_machine *machine, uint32_t caller, uint64_t address, uint32_t reg,
                                uint32_t *value);
int32_t hv_machine_trapped_write(struct hv_machine *machine, uint32_t caller, uint64_t address, uint32_t reg,
                                 uint32_t value);

/* A register as the hardware has it, HV_NONE where there is none. */
uint32_t hv_machine_register(const struct hv_machine *machine, uint64_t address, uint32_t index);
/* The accesses of the core since the log was last taken: copies at most `count`, forgets all, returns how many there
 * were. */
uint32_t hv_machine_log(struct hv_machine *machine, struct hv_access *to, uint32_t count);

/* A device raises or lowers its line; an edge is its raising. HV_NO_DEVICE, HV_OUT_OF_RANGE. */
enum hv_status hv_machine_line(struct hv_machine *machine, uint64_t address, uint32_t pin, bool high);
/* A device writes a message. HV_OUT_OF_RANGE: no processor takes it. HV_INVALID: not an interrupt's address. */
enum hv_status hv_machine_message(struct hv_machine *machine, uint16_t source, uint64_t address, uint32_t data);
/*
 * A processor takes its most important pending interrupt and asks the core what it is: the vector, 0 for none. `status`
 * and `delivery` are hv_interrupt_arrived's.
 */
uint32_t hv_machine_take(struct hv_machine *machine, uint32_t cpu, int32_t *status, struct hv_delivery *delivery);
/* ...and ends the one it is at: the EOI goes to every IOAPIC. Returns the vector ended, 0 for none. */
uint32_t hv_machine_end(struct hv_machine *machine, uint32_t cpu);

/* The core itself, NULL before a start: for fuzzers, which look at its books. */
struct hv_core *hv_machine_core(struct hv_machine *machine);

/* Where dom0 asked for shared_info (0: nowhere), how often its counter went up, and the two pages. */
uint64_t hv_machine_shared_at(const struct hv_machine *machine);
uint64_t hv_machine_changes(const struct hv_machine *machine);
const void *hv_machine_shared(const struct hv_machine *machine);

/*
 * A number that changes with anything in the core or the IOAPICs' registers, but for counters of calls and the places
 * where searches go on.
 */
uint64_t hv_machine_digest(struct hv_machine *machine);

/*
 * For benchmarks, looped here so that nothing else is measured: mean nanoseconds, negative when the core refuses. Of an
 * allocation with its release, where every vector is free, or (`full`) all but one are taken; of an apic_write that
 * unmasks or masks pin 0.
 */
double hv_machine_time_vectors(struct hv_machine *machine, uint32_t rounds, bool full);
double hv_machine_time_apic_write(struct hv_machine *machine, uint64_t address, uint32_t rounds);

#endif
