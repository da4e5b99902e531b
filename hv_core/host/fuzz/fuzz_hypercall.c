/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a sequence of events on a small machine: hypercalls of several domains, trapped accesses, lines,
 * arrivals. After each: a refused call has changed nothing, and the books agree (every vector's owner points back to
 * it, no two interrupts share one, each pIRQ's source is its domain's: invariants 2 and 3).
 */
#include "../model.h"

#include <stdlib.h>
#include <string.h>

#include "../../core/internal.h"

#define ADDRESS 0xfec00000ull

static const uint8_t *next;
static size_t left;

static void take(void *to, size_t count)
{
    size_t given = count < left ? count : left;

    memset(to, 0, count);
    memcpy(to, next, given);
    next += given;
    left -= given;
}

static uint8_t byte(void)
{
    uint8_t value;

    take(&value, 1);
    return value;
}

static void demand(bool condition)
{
    if (!condition)
        abort();
}

static void check_binding(const struct hv_core *core, struct hv_binding binding, uint16_t source)
{
    if (binding.vector != 0)
        demand(hv_vector_owner(&core->cpus, binding.cpu, binding.vector) == source);
}

static void check_books(const struct hv_core *core)
{
    uint32_t held[HV_LIMIT_DOMAINS] = {0};
    uint32_t owned = 0;

    for (uint32_t i = 0; i < HV_LIMIT_IOAPICS; i++) {
        for (uint32_t pin = 0; core->ioapic[i].address != 0 && pin < core->ioapic[i].pins; pin++) {
            const struct hv_pin *physical = &core->ioapic[i].pin[pin];
            const struct hv_pin_view *view = &core->view[i][pin];

            check_binding(core, physical->bound, HV_SOURCE_PIN(i, pin));
            check_binding(core, physical->drained, HV_SOURCE_PIN(i, pin));
            held[view->domain] += (physical->bound.vector != 0) + (physical->drained.vector != 0);
            demand(core->domain[view->domain].present);
            if (view->pirq != HV_NO_PIRQ)
                demand(core->domain[view->domain].source[view->pirq] == HV_SOURCE_PIN(i, pin));
            demand((view->users != 0) == (view->pirq != HV_NO_PIRQ));
        }
    }
    for (uint32_t i = 0; i < HV_LIMIT_MESSAGES; i++) {
        const struct hv_message *message = &core->message[i];

        if (message->kind == HV_KIND_NONE)
            continue;
        check_binding(core, message->bound, HV_SOURCE_MESSAGE(i));
        check_binding(core, message->drained, HV_SOURCE_MESSAGE(i));
        held[message->domain] += (message->bound.vector != 0) + (message->drained.vector != 0);
        demand(core->domain[message->domain].source[message->pirq] == HV_SOURCE_MESSAGE(i));
    }
    for (uint32_t i = 0; i < HV_LIMIT_DOMAINS; i++) {
        demand(!core->domain[i].present || core->domain[i].vectors == held[i]);
        owned += core->domain[i].present ? held[i] : 0;
    }
    for (uint32_t i = 0; i < core->cpus.count; i++) {
        for (uint32_t vector = 0; vector < 256; vector++) {
            const struct hv_cpu *cpu = &core->cpus.cpu[i];
            bool free = hv_bit(cpu->usable, vector) && cpu->owner[vector] == HV_SOURCE_NONE;

            demand(hv_bit(cpu->free, vector) == free);
            owned -= cpu->owner[vector] != HV_SOURCE_NONE;
        }
    }
    demand(owned == 0); /* as many vectors have an owner as interrupts have vectors: none is shared, none is lost */
}

/* Nearly good arguments come further than random ones. */
static void make_plausible(uint32_t number, uint32_t command, union hv_argument *argument)
{
    if (number == HV_HYPERCALL_DOM0KIT) {
        argument->header.version = HV_ABI_VERSION;
        argument->header.bytes = (uint16_t)hv_argument_bytes(number, command);
        argument->header.zero = 0;
        if (command == HV_OP_IOAPIC_ADD || command == HV_OP_IOAPIC_REMOVE)
            argument->ioapic_add.address = ADDRESS + 0x1000ull * (argument->ioapic_add.address % 4);
        else
            argument->query_vector.domain %= 4;
        return;
    }
    switch (command) {
    case HV_PHYSDEVOP_APIC_READ:
    case HV_PHYSDEVOP_APIC_WRITE:
        argument->apic.apic_physbase = ADDRESS + 0x1000ull * (argument->apic.apic_physbase % 3);
        argument->apic.reg = 0x10 + argument->apic.reg % 10;
        argument->apic.value &= argument->apic.reg % 2 ? 0x03000000 : 0x0001a93f;
        break;
    case HV_PHYSDEVOP_MAP_PIRQ:
        argument->map_pirq.domid = argument->map_pirq.domid % 2 ? HV_DOMID_SELF : argument->map_pirq.domid / 2 % 3;
        argument->map_pirq.type = (argument->map_pirq.type & 3) + 1;
        argument->map_pirq.index = argument->map_pirq.type == HV_MAP_PIRQ_GSI ? (argument->map_pirq.index & 7) : -1;
        argument->map_pirq.pirq = argument->map_pirq.pirq % 32;
        argument->map_pirq.bus = 0;
        argument->map_pirq.devfn &= 3;
        argument->map_pirq.entry_nr &= 7;
        argument->map_pirq.table_base &= 0x1000;
        break;
    case HV_PHYSDEVOP_PCI_DEVICE_ADD:
        argument->pci_device_add.device.seg = 0;
        argument->pci_device_add.device.bus = 0;
        argument->pci_device_add.device.devfn &= 3;
        argument->pci_device_add.device.flags &= 7;
        break;
    default:
        argument->eoi.irq %= 32;
        break;
    }
}

static void one_call(struct hv_machine *machine)
{
    uint8_t kind = byte();
    uint32_t number = kind & 1 ? HV_HYPERCALL_PHYSDEV : HV_HYPERCALL_DOM0KIT;
    uint32_t command = byte() % 40;
    uint32_t caller = kind >> 1 & 1 ? 0 : byte() % 5;
    union hv_argument argument;
    uint32_t bytes = hv_argument_bytes(number, command);
    uint64_t before;
    int32_t status;

    take(&argument, bytes);
    if (kind & 4)
        make_plausible(number, command, &argument);
    before = hv_machine_digest(machine);
    status = hv_machine_call(machine, caller, number, command, &argument, sizeof(argument));
    demand(status == HV_OK || hv_machine_digest(machine) == before);
}

static void one_event(struct hv_machine *machine)
{
    struct hv_delivery delivery;
    uint32_t value;
    int32_t status;

    switch (byte() % 8) {
    case 0:
        (void)hv_machine_line(machine, ADDRESS, byte() % 4, byte() & 1);
        break;
    case 1:
        (void)hv_machine_take(machine, byte() % 3, &status, &delivery);
        break;
    case 2:
        (void)hv_machine_end(machine, byte() % 3);
        break;
    case 3:
        (void)hv_machine_trapped_read(machine, byte() % 3, ADDRESS, byte(), &value);
        break;
    default:
        one_call(machine);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hv_machine *machine = hv_machine_new();
    struct hv_core *core;
    uint32_t pins;
    uint8_t how;

    demand(machine != NULL);
    next = data;
    left = size;
    how = byte();
    for (uint32_t i = 0; i < 3; i++)
        demand(hv_machine_ioapic(machine, ADDRESS + 0x1000 * i, i, 0x30020) == HV_OK);
    demand(hv_machine_start(machine, 0, how & 1 ? HV_MODE_DIRECT : HV_MODE_INTERCEPT, how >> 1 & 3, how >> 3 & 3) ==
           HV_OK);
    core = hv_machine_core(machine);
    demand(hv_cpu_add(&core->cpus, 0) == HV_OK && hv_cpu_add(&core->cpus, 1) == HV_OK &&
           hv_cpu_add(&core->cpus, 0x103) == HV_OK);
    demand(hv_ioapic_take(core, ADDRESS, 0, false, &pins) == HV_OK);
    while (left != 0) {
        one_event(machine);
        check_books(core);
    }
    hv_machine_free(machine);
    return 0;
}
