/* SPDX-License-Identifier: MIT */
/* The modelled machine: see model.h. Registers and delivery follow Intel 82093AA and SDM 3A chapter 11, in the small.
 */
#define _POSIX_C_SOURCE 200809L
#include "model.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../core/internal.h"

#define IOAPICS (2 * HV_LIMIT_IOAPICS) /* more than the core takes */
#define PIECES 256u
#define LOG_ENTRIES 4096u
#define MODEL_PINS 120u

struct piece {
    uint64_t address;
    uint32_t count;
    uint8_t *bytes;
};

struct model_ioapic {
    uint64_t address; /* 0: free */
    uint32_t reg[256];
    bool high[MODEL_PINS];
    bool mapped;
};

struct local_apic {
    uint64_t pending[4];    /* IRR */
    uint64_t in_service[4]; /* ISR */
};

struct target { /* one entry of the remapping table, by source */
    uint32_t apic_id;
    uint8_t vector;
    bool present;
};

struct hv_machine {
    struct hv_core *core; /* NULL before the start */
    pthread_mutex_t mutex;
    uint32_t pieces;
    struct piece piece[PIECES];
    struct model_ioapic ioapic[IOAPICS];
    struct local_apic local_apic[HV_LIMIT_CPUS];
    struct target target[HV_SOURCES];
    bool remapper_refuses;
    uint64_t shared_at;
    uint64_t changes;
    uint32_t logged;
    struct hv_access log[LOG_ENTRIES];
};

/* ---- IOAPICs ---- */

static struct model_ioapic *find_ioapic(const struct hv_machine *machine, uint64_t address)
{
    for (uint32_t i = 0; address != 0 && i < IOAPICS; i++)
        if (machine->ioapic[i].address == address)
            return (struct model_ioapic *)&machine->ioapic[i];
    return NULL;
}

static uint32_t pins_of(const struct model_ioapic *ioapic)
{
    uint32_t pins = (ioapic->reg[1] >> 16 & 0xff) + 1;

    return pins < MODEL_PINS ? pins : MODEL_PINS;
}

static uint64_t entry_of(const struct model_ioapic *ioapic, uint32_t pin)
{
    return ioapic->reg[0x10 + 2 * pin] | (uint64_t)ioapic->reg[0x11 + 2 * pin] << 32;
}

/* ---- Delivery ---- */

static void pend(struct hv_machine *machine, uint32_t cpu, uint8_t vector)
{
    machine->local_apic[cpu].pending[vector / 64] |= 1ull << (vector % 64);
}

/* To one processor: the lowest of a logical destination. False when nobody takes it. */
static bool deliver(struct hv_machine *machine, bool logical, uint32_t destination, uint8_t vector)
{
    uint32_t cpu;
    bool several;

    if (machine->core == NULL || hv_destination_cpu(machine->core, logical, destination, &cpu, &several) != HV_OK)
        return false;
    pend(machine, cpu, vector);
    return true;
}

static bool deliver_remapped(struct hv_machine *machine, uint32_t source)
{
    const struct target *target = source < HV_SOURCES ? &machine->target[source] : NULL;

    return target != NULL && target->present && deliver(machine, false, target->apic_id, target->vector);
}

static bool deliver_entry(struct hv_machine *machine, const struct model_ioapic *ioapic, uint32_t pin)
{
    uint64_t entry = entry_of(ioapic, pin);
    enum hv_format format = machine->core != NULL ? machine->core->entry_format : HV_FORMAT_COMPATIBILITY;
    uint32_t destination = (uint32_t)(entry >> 56);
    uint32_t index = machine->core != NULL ? hv_ioapic_at(machine->core, ioapic->address) : HV_NONE;

    if (hv_entry_is_remapped(entry, format))
        return index != HV_NONE && deliver_remapped(machine, HV_SOURCE_PIN(index, pin));
    if (format == HV_FORMAT_EXTENDED_DESTINATION && !(entry & HV_ENTRY_LOGICAL))
        destination |= (uint32_t)(entry >> 49 & 0x7f) << 8;
    return deliver(machine, (entry & HV_ENTRY_LOGICAL) != 0, destination, (uint8_t)entry);
}

/* A level line that is high and not in service goes out; an edge has gone out when it was raised. */
static void look_at_level(struct hv_machine *machine, struct model_ioapic *ioapic, uint32_t pin)
{
    uint64_t entry = entry_of(ioapic, pin);

    if ((entry & HV_ENTRY_MASKED) || !(entry & HV_ENTRY_LEVEL) || (entry & HV_ENTRY_REMOTE_IRR) || !ioapic->high[pin])
        return;
    if (deliver_entry(machine, ioapic, pin))
        ioapic->reg[0x10 + 2 * pin] |= (uint32_t)HV_ENTRY_REMOTE_IRR;
}

static void end_level(struct hv_machine *machine, struct model_ioapic *ioapic, uint32_t pin)
{
    ioapic->reg[0x10 + 2 * pin] &= ~(uint32_t)HV_ENTRY_REMOTE_IRR;
    look_at_level(machine, ioapic, pin);
}

/* ---- What the core asks ---- */

static void lock(void *home)
{
    pthread_mutex_lock(&((struct hv_machine *)home)->mutex);
}

static void unlock(void *home)
{
    pthread_mutex_unlock(&((struct hv_machine *)home)->mutex);
}

static bool read_physical(void *home, uint64_t address, void *to, uint32_t count)
{
    const struct hv_machine *machine = home;

    for (uint32_t i = 0; i < machine->pieces; i++) {
        const struct piece *piece = &machine->piece[i];

        if (address >= piece->address && address - piece->address <= piece->count &&
            count <= piece->count - (address - piece->address)) {
            memcpy(to, piece->bytes + (address - piece->address), count);
            return true;
        }
    }
    return false;
}

static enum hv_status ioapic_map(void *home, uint64_t address)
{
    struct model_ioapic *ioapic = find_ioapic(home, address);

    if (ioapic == NULL)
        return HV_NO_DEVICE;
    ioapic->mapped = true;
    return HV_OK;
}

static void ioapic_unmap(void *home, uint64_t address)
{
    find_ioapic(home, address)->mapped = false;
}

static void note(struct hv_machine *machine, uint64_t address, uint8_t index, uint32_t value, uint8_t write)
{
    if (machine->logged < LOG_ENTRIES)
        machine->log[machine->logged] =
            (struct hv_access){.address = address, .index = index, .value = value, .write = write};
    machine->logged++;
}

static uint32_t ioapic_read(void *home, uint64_t address, uint8_t index)
{
    const struct model_ioapic *ioapic = find_ioapic(home, address);
    uint32_t value = ioapic != NULL && ioapic->mapped ? ioapic->reg[index] : 0xffffffffu;

    note(home, address, index, value, 0);
    return value;
}

static void ioapic_write(void *home, uint64_t address, uint8_t index, uint32_t value)
{
    struct model_ioapic *ioapic = find_ioapic(home, address);
    uint32_t status = (uint32_t)HV_ENTRY_STATUS;
    uint32_t pin = (index - 0x10u) / 2;

    note(home, address, index, value, 1);
    if (ioapic == NULL || !ioapic->mapped || index < 0x10 || pin >= pins_of(ioapic))
        return;
    if (index % 2) {
        ioapic->reg[index] = value;
        return;
    }
    ioapic->reg[index] = (value & ~status) | (ioapic->reg[index] & status);
    look_at_level(home, ioapic, pin);
}

static void ioapic_end(void *home, uint64_t address, uint8_t pin, uint8_t vector)
{
    struct model_ioapic *ioapic = find_ioapic(home, address);

    (void)vector;
    if (ioapic != NULL && pin < pins_of(ioapic))
        end_level(home, ioapic, pin);
}

static enum hv_status remap(void *home, uint16_t source, uint32_t apic_id, uint8_t vector)
{
    struct hv_machine *machine = home;

    if (source >= HV_SOURCES)
        return HV_OUT_OF_RANGE;
    if (machine->remapper_refuses)
        return HV_NO_SPACE;
    machine->target[source] = (struct target){.apic_id = apic_id, .vector = vector, .present = vector != 0};
    return HV_OK;
}

static enum hv_status map_shared_info(void *home, uint64_t guest_physical)
{
    ((struct hv_machine *)home)->shared_at = guest_physical;
    return HV_OK;
}

static void changed(void *home)
{
    ((struct hv_machine *)home)->changes++;
}

static const struct hv_operations operations = {
    .lock = lock,
    .unlock = unlock,
    .read_physical = read_physical,
    .ioapic_map = ioapic_map,
    .ioapic_unmap = ioapic_unmap,
    .ioapic_read = ioapic_read,
    .ioapic_write = ioapic_write,
    .ioapic_end = ioapic_end,
    .remap = remap,
    .map_shared_info = map_shared_info,
    .changed = changed,
};

/* ---- Making a machine ---- */

struct hv_machine *hv_machine_new(void)
{
    struct hv_machine *machine = calloc(1, sizeof(*machine));

    if (machine != NULL)
        pthread_mutex_init(&machine->mutex, NULL);
    return machine;
}

void hv_machine_free(struct hv_machine *machine)
{
    if (machine == NULL)
        return;
    for (uint32_t i = 0; i < machine->pieces; i++)
        free(machine->piece[i].bytes);
    pthread_mutex_destroy(&machine->mutex);
    free(machine->core);
    free(machine);
}

enum hv_status hv_machine_memory(struct hv_machine *machine, uint64_t address, const void *bytes, uint32_t count)
{
    struct piece *piece = &machine->piece[machine->pieces];

    if (count == 0 || address > ~0ull - count)
        return HV_INVALID;
    if (machine->pieces == PIECES)
        return HV_NO_SPACE;
    piece->bytes = malloc(count);
    if (piece->bytes == NULL)
        return HV_NO_SPACE;
    memcpy(piece->bytes, bytes, count);
    piece->address = address;
    piece->count = count;
    machine->pieces++;
    return HV_OK;
}

enum hv_status hv_machine_ioapic(struct hv_machine *machine, uint64_t address, uint32_t id, uint32_t version)
{
    if (address == 0)
        return HV_INVALID;
    if (find_ioapic(machine, address) != NULL)
        return HV_EXISTS;
    for (uint32_t i = 0; i < IOAPICS; i++) {
        struct model_ioapic *ioapic = &machine->ioapic[i];

        if (ioapic->address != 0)
            continue;
        memset(ioapic, 0, sizeof(*ioapic));
        ioapic->address = address;
        ioapic->reg[0] = id << 24;
        ioapic->reg[1] = version;
        ioapic->reg[2] = id << 24;
        for (uint32_t pin = 0; pin < pins_of(ioapic); pin++)
            ioapic->reg[0x10 + 2 * pin] = (uint32_t)HV_ENTRY_MASKED;
        return HV_OK;
    }
    return HV_NO_SPACE;
}

enum hv_status hv_machine_entry(struct hv_machine *machine, uint64_t address, uint32_t pin, uint64_t entry)
{
    struct model_ioapic *ioapic = find_ioapic(machine, address);

    if (ioapic == NULL)
        return HV_NO_DEVICE;
    if (pin >= pins_of(ioapic))
        return HV_OUT_OF_RANGE;
    ioapic->reg[0x10 + 2 * pin] = (uint32_t)entry;
    ioapic->reg[0x11 + 2 * pin] = (uint32_t)(entry >> 32);
    return HV_OK;
}

enum hv_status hv_machine_start(struct hv_machine *machine, uint64_t rsdp, uint32_t mode, uint32_t entry_format,
                                uint32_t message_format)
{
    struct hv_start start = {
        .operations = &operations,
        .home = machine,
        .rsdp = rsdp,
        .mode = mode,
        .entry_format = entry_format,
        .message_format = message_format,
        .features = HV_FEATURE_MODEL,
    };
    struct hv_core *core = machine->core;
    enum hv_status status;

    if (core == NULL)
        core = aligned_alloc(HV_PAGE_BYTES, sizeof(*core));
    if (core == NULL)
        return HV_NO_SPACE;
    machine->core = core;
    for (uint32_t i = 0; i < IOAPICS; i++)
        machine->ioapic[i].mapped = false;
    memset(machine->local_apic, 0, sizeof(machine->local_apic));
    memset(machine->target, 0, sizeof(machine->target));
    machine->shared_at = 0;
    machine->changes = 0;
    status = hv_core_start(core, &start);
    if (status != HV_OK) {
        free(core);
        machine->core = NULL;
    }
    return status;
}

/* ---- Calls ---- */

int32_t hv_machine_call(struct hv_machine *machine, uint32_t caller, uint32_t number, uint32_t command, void *argument,
                        uint32_t count)
{
    union hv_argument copy = {0};
    uint32_t bytes = hv_argument_bytes(number, command);
    enum hv_status status;

    if (machine->core == NULL)
        return HV_NO_CALL;
    if (count < bytes)
        return HV_FAULT;
    if (bytes != 0) {
        memcpy(&copy, argument, bytes);
        bytes += hv_argument_more_bytes(number, command, &copy);
        if (count < bytes)
            return HV_FAULT;
        memcpy(&copy, argument, bytes);
    }
    status = hv_hypercall(machine->core, caller, number, command, &copy);
    if (status == HV_OK)
        memcpy(argument, &copy, bytes);
    return status;
}

void hv_machine_refuse_remapping(struct hv_machine *machine, bool refuse)
{
    machine->remapper_refuses = refuse;
}

void hv_machine_reserve(struct hv_machine *machine, uint8_t first, uint8_t last)
{
    if (machine->core != NULL)
        hv_vectors_reserve(&machine->core->cpus, first, last);
}

uint32_t hv_machine_argument_bytes(uint32_t number, uint32_t command)
{
    return hv_argument_bytes(number, command);
}

int32_t hv_machine_trapped_read(struct hv_machine *machine, uint32_t caller, uint64_t address, uint32_t reg,
                                uint32_t *value)
{
    return machine->core == NULL ? HV_NO_CALL
                                 : (int32_t)hv_ioapic_trapped_read(machine->core, caller, address, reg, value);
}

int32_t hv_machine_trapped_write(struct hv_machine *machine, uint32_t caller, uint64_t address, uint32_t reg,
                                 uint32_t value)
{
    return machine->core == NULL ? HV_NO_CALL
                                 : (int32_t)hv_ioapic_trapped_write(machine->core, caller, address, reg, value);
}

uint32_t hv_machine_register(const struct hv_machine *machine, uint64_t address, uint32_t index)
{
    const struct model_ioapic *ioapic = find_ioapic(machine, address);

    return ioapic == NULL || index > 0xff ? HV_NONE : ioapic->reg[index];
}

uint32_t hv_machine_log(struct hv_machine *machine, struct hv_access *to, uint32_t count)
{
    uint32_t logged = machine->logged;
    uint32_t kept = logged < LOG_ENTRIES ? logged : LOG_ENTRIES;

    memcpy(to, machine->log, (kept < count ? kept : count) * sizeof(*to));
    machine->logged = 0;
    return logged;
}

/* ---- Devices and processors ---- */

enum hv_status hv_machine_line(struct hv_machine *machine, uint64_t address, uint32_t pin, bool high)
{
    struct model_ioapic *ioapic = find_ioapic(machine, address);
    bool raised;

    if (ioapic == NULL)
        return HV_NO_DEVICE;
    if (pin >= pins_of(ioapic))
        return HV_OUT_OF_RANGE;
    raised = high && !ioapic->high[pin];
    ioapic->high[pin] = high;
    if (!(entry_of(ioapic, pin) & (HV_ENTRY_MASKED | HV_ENTRY_LEVEL)) && raised)
        (void)deliver_entry(machine, ioapic, pin);
    look_at_level(machine, ioapic, pin);
    return HV_OK;
}

enum hv_status hv_machine_message(struct hv_machine *machine, uint16_t source, uint64_t address, uint32_t data)
{
    enum hv_format format = machine->core != NULL ? machine->core->message_format : HV_FORMAT_COMPATIBILITY;
    uint32_t destination = (uint32_t)(address >> 12 & 0xff);
    bool taken;

    if (hv_message_check(format, address, data) != HV_OK)
        return HV_INVALID;
    if (hv_message_is_remapped(address, format)) {
        taken = deliver_remapped(machine, source);
    } else {
        if (format == HV_FORMAT_EXTENDED_DESTINATION && !(address & 4))
            destination |= (uint32_t)(address >> 5 & 0x7f) << 8;
        taken = deliver(machine, (address & 4) != 0, destination, (uint8_t)data);
    }
    return taken ? HV_OK : HV_OUT_OF_RANGE;
}

/* The highest vector in a set of 256, 0: none (0 is no interrupt's vector). */
static uint32_t highest(const uint64_t set[4])
{
    for (uint32_t word = 4; word-- > 0;)
        if (set[word] != 0)
            return word * 64 + 63 - (uint32_t)__builtin_clzll(set[word]);
    return 0;
}

uint32_t hv_machine_take(struct hv_machine *machine, uint32_t cpu, int32_t *status, struct hv_delivery *delivery)
{
    struct local_apic *local_apic = cpu < HV_LIMIT_CPUS ? &machine->local_apic[cpu] : NULL;
    uint32_t vector = local_apic != NULL ? highest(local_apic->pending) : 0;

    /* Only a higher priority class interrupts one in service. */
    if (vector == 0 || machine->core == NULL || vector >> 4 <= highest(local_apic->in_service) >> 4)
        return 0;
    local_apic->pending[vector / 64] &= ~(1ull << (vector % 64));
    local_apic->in_service[vector / 64] |= 1ull << (vector % 64);
    *status = hv_interrupt_arrived(machine->core, cpu, (uint8_t)vector, delivery);
    return vector;
}

static bool carries(const struct hv_machine *machine, const struct model_ioapic *ioapic, uint32_t pin, uint32_t vector)
{
    uint64_t entry = entry_of(ioapic, pin);
    uint32_t index = hv_ioapic_at(machine->core, ioapic->address);

    /* AMD-Vi's entries name no vector: the remapper ends what it delivered. */
    if (machine->core->entry_format == HV_FORMAT_AMD_VI)
        return index != HV_NONE && machine->target[HV_SOURCE_PIN(index, pin)].vector == vector;
    return (entry & HV_ENTRY_VECTOR) == vector;
}

uint32_t hv_machine_end(struct hv_machine *machine, uint32_t cpu)
{
    uint32_t vector = cpu < HV_LIMIT_CPUS ? highest(machine->local_apic[cpu].in_service) : 0;

    if (vector == 0 || machine->core == NULL)
        return 0;
    machine->local_apic[cpu].in_service[vector / 64] &= ~(1ull << (vector % 64));
    for (uint32_t i = 0; i < IOAPICS; i++) {
        struct model_ioapic *ioapic = &machine->ioapic[i];

        for (uint32_t pin = 0; ioapic->address != 0 && pin < pins_of(ioapic); pin++)
            if ((entry_of(ioapic, pin) & HV_ENTRY_REMOTE_IRR) && carries(machine, ioapic, pin, vector))
                end_level(machine, ioapic, pin);
    }
    return vector;
}

struct hv_core *hv_machine_core(struct hv_machine *machine)
{
    return machine->core;
}

/* ---- shared_info ---- */

uint64_t hv_machine_shared_at(const struct hv_machine *machine)
{
    return machine->shared_at;
}

uint64_t hv_machine_changes(const struct hv_machine *machine)
{
    return machine->changes;
}

const void *hv_machine_shared(const struct hv_machine *machine)
{
    return machine->core == NULL ? NULL : &machine->core->shared;
}

static uint64_t digest(uint64_t sum, const void *from, size_t bytes)
{
    const uint8_t *byte = from;
    uint64_t word;

    for (size_t i = 0; i + sizeof(word) <= bytes; i += sizeof(word)) {
        memcpy(&word, byte + i, sizeof(word));
        sum = (sum ^ word) * 0x9e3779b97f4a7c15ull ^ sum >> 29;
    }
    return sum;
}

uint64_t hv_machine_digest(struct hv_machine *machine)
{
    struct hv_core *core = machine->core;
    uint64_t calls, refused, trapped, trapped_refused;
    uint8_t next_class[HV_LIMIT_CPUS];
    uint64_t sum = machine->shared_at;
    uint32_t next;

    for (uint32_t i = 0; i < IOAPICS; i++)
        sum = digest(sum, machine->ioapic[i].reg, sizeof(machine->ioapic[i].reg));
    if (core == NULL)
        return sum;
    /* What does not count is set aside meanwhile. */
    calls = core->calls;
    refused = core->calls_refused;
    trapped = core->trapped;
    trapped_refused = core->trapped_refused;
    core->calls = core->calls_refused = core->trapped = core->trapped_refused = 0;
    next = core->cpus.next;
    core->cpus.next = 0;
    for (uint32_t i = 0; i < HV_LIMIT_CPUS; i++) {
        next_class[i] = core->cpus.cpu[i].next_class;
        core->cpus.cpu[i].next_class = 0;
    }
    sum = digest(sum, core, sizeof(*core));
    core->calls = calls;
    core->calls_refused = refused;
    core->trapped = trapped;
    core->trapped_refused = trapped_refused;
    core->cpus.next = next;
    for (uint32_t i = 0; i < HV_LIMIT_CPUS; i++)
        core->cpus.cpu[i].next_class = next_class[i];
    return sum;
}

/* ---- Benchmarks ---- */

static double nanoseconds_since(const struct timespec *start)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) * 1e9 + (double)(now.tv_nsec - start->tv_nsec);
}

double hv_machine_time_vectors(struct hv_machine *machine, uint32_t rounds, bool full)
{
    const uint16_t nobody = HV_SOURCES; /* no source has this number */
    struct hv_cpus *cpus = machine->core != NULL ? &machine->core->cpus : NULL;
    struct hv_binding binding = {0};
    struct timespec start;
    double mean;

    if (cpus == NULL || rounds == 0)
        return -1;
    if (full) {
        while (hv_vector_allocate(cpus, HV_NONE, 0, nobody, &binding) == HV_OK)
            ;
        hv_vector_free(cpus, binding);
    }
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (uint32_t i = 0; i < rounds; i++) {
        if (hv_vector_allocate(cpus, HV_NONE, 0, nobody, &binding) != HV_OK)
            return -1;
        hv_vector_free(cpus, binding);
    }
    mean = nanoseconds_since(&start) / rounds;
    for (uint32_t cpu = 0; full && cpu < cpus->count; cpu++)
        for (uint32_t vector = 0; vector < 256; vector++)
            if (hv_vector_owner(cpus, cpu, (uint8_t)vector) == nobody)
                hv_vector_free(cpus, (struct hv_binding){.cpu = (uint16_t)cpu, .vector = (uint8_t)vector});
    return mean;
}

double hv_machine_time_apic_write(struct hv_machine *machine, uint64_t address, uint32_t rounds)
{
    struct timespec start;
    union hv_argument argument = {.apic = {.apic_physbase = address, .reg = 0x10}};

    if (machine->core == NULL || rounds == 0)
        return -1;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (uint32_t i = 0; i < rounds; i++) {
        argument.apic.value = 0x30 | (i % 2 ? (uint32_t)HV_ENTRY_MASKED : 0);
        if (hv_hypercall(machine->core, 0, HV_HYPERCALL_PHYSDEV, HV_PHYSDEVOP_APIC_WRITE, &argument) != HV_OK)
            return -1;
    }
    return nanoseconds_since(&start) / rounds;
}
