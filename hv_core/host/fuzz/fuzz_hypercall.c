/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a sequence of events on a small machine: hypercalls of several domains, trapped accesses, lines,
 * arrivals. After each: a refused call has changed nothing, and the books agree (every vector's owner points back to
 * it, no two interrupts share one, each pIRQ's source is its domain's: invariants 2 and 3).
 */
#include "../model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "invariant.h"

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

#define demand(condition) ((condition) ? (void)0 : fail(#condition))

static void fail(const char *condition)
{
    fprintf(stderr, "not so: %s\n", condition);
    abort();
}

static void check_books(const struct hv_core *core)
{
    demand(hv_books_hold(core));
    for (uint32_t cpu = 0; cpu < core->cpus.count; cpu++)
        for (uint32_t vector = 0; vector < 256; vector++)
            demand(hv_vector_holds(core, cpu, vector));
}

/* ---- Calls. Nearly good arguments, made of a few bytes, come further than random ones. ---- */

static uint64_t address_of_ioapic(void)
{
    return ADDRESS + 0x1000 * (byte() % 4);
}

static uint32_t irq(void) /* GSIs, pIRQs of GSIs, pIRQs of messages */
{
    return byte() % 24;
}

static struct hv_pci_device device(void)
{
    return (struct hv_pci_device){.devfn = byte() & 3};
}

static void fill_own(uint32_t command, union hv_argument *argument)
{
    argument->header.version = HV_ABI_VERSION;
    argument->header.bytes = (uint16_t)hv_argument_bytes(HV_HYPERCALL_DOM0KIT, command);
    switch (command) {
    case HV_OP_IOAPIC_ADD:
        argument->ioapic_add.gsi_base = byte() % HV_LIMIT_GSIS;
        argument->ioapic_add.address = address_of_ioapic();
        return;
    case HV_OP_IOAPIC_REMOVE:
        argument->ioapic_remove.address = address_of_ioapic();
        return;
    case HV_OP_MAP_SHARED_INFO:
        argument->map_shared_info.guest_physical = 0x1000 * (byte() % 3);
        return;
    case HV_OP_INFORMATION:
    case HV_OP_HAND_OVER:
        return;
    case HV_OP_READ_REPORT:
        argument->read_report.index = byte() % 4;
        return;
    case HV_OP_ASSIGN_DEVICE:
    case HV_OP_RELEASE_DEVICE:
        argument->assign_device.device = device();
        break;
    case HV_OP_DOMAIN_CREATE: /* how many vectors it may have */
        argument->domain_create.vectors = byte() % 3;
        break;
    case HV_OP_DOMAIN_DESTROY:
        break;
    case HV_OP_MSI_WRITE:
        argument->msi.address = 0xfee00000 | (uint64_t)(byte() & 0x33) << 12 | (byte() & 0x14);
        argument->msi.data = 0x30 + byte() % 4;
        argument->msi.irq = irq();
        break;
    case HV_OP_SET_AFFINITY:
        argument->set_affinity.cpu = byte() % 4;
        argument->set_affinity.irq = irq();
        break;
    default: /* what names an irq, a GSI, or where to go on */
        argument->query_vector.irq = irq();
        break;
    }
    argument->query_vector.domain = byte() % 4;
}

static void fill(uint32_t command, union hv_argument *argument)
{
    switch (command) {
    case HV_PHYSDEVOP_APIC_READ:
    case HV_PHYSDEVOP_APIC_WRITE:
        argument->apic.apic_physbase = address_of_ioapic();
        argument->apic.reg = 0x10 + byte() % 10;
        argument->apic.value =
            argument->apic.reg % 2 ? (uint32_t)byte() << 24 : 0x30 + byte() % 4 + ((uint32_t)(byte() & 0x35) << 11);
        break;
    case HV_PHYSDEVOP_MAP_PIRQ:
        argument->map_pirq.domid = byte() % 2 ? HV_DOMID_SELF : byte() % 3;
        argument->map_pirq.type = byte() % 5;
        argument->map_pirq.index = argument->map_pirq.type == HV_MAP_PIRQ_GSI ? byte() % 6 : -1;
        argument->map_pirq.pirq = byte() % 2 ? -1 : byte() % 32;
        if (argument->map_pirq.type != HV_MAP_PIRQ_GSI) {
            argument->map_pirq.devfn = byte() & 3;
            argument->map_pirq.table_base = byte() % 2 ? 0 : 0x1000;
            argument->map_pirq.entry_nr = byte() % 9;
        }
        break;
    case HV_PHYSDEVOP_PCI_DEVICE_ADD:
        argument->pci_device_add.device.devfn = byte() & 3;
        argument->pci_device_add.device.flags = byte() % 8;
        argument->pci_device_add.device.physfn_devfn = byte() & 3;
        break;
    case HV_PHYSDEVOP_PCI_DEVICE_REMOVE:
        argument->pci_device_remove = device();
        break;
    case HV_PHYSDEVOP_PCI_DEVICE_RESET:
        argument->pci_device_reset.dev = device();
        break;
    case HV_PHYSDEVOP_UNMAP_PIRQ:
        argument->unmap_pirq.domid = byte() % 2 ? HV_DOMID_SELF : byte() % 3;
        argument->unmap_pirq.pirq = (int32_t)irq();
        break;
    case HV_PHYSDEVOP_SETUP_GSI:
        argument->setup_gsi.gsi = byte() % 6;
        argument->setup_gsi.triggering = byte() % 2;
        argument->setup_gsi.polarity = byte() % 2;
        break;
    case HV_PHYSDEVOP_PCI_MMCFG_RESERVED:
        break;
    default:
        argument->eoi.irq = irq();
        break;
    }
}

static void one_call(struct hv_machine *machine)
{
    static const uint8_t physdev[] = {5, 8, 9, 10, 12, 13, 14, 21, 23, 24, 25, 26, 32};
    uint8_t kind = byte();
    uint32_t number = kind & 1 ? HV_HYPERCALL_PHYSDEV : HV_HYPERCALL_DOM0KIT;
    uint32_t command = kind & 1 ? physdev[byte() % sizeof(physdev)] : byte() % HV_OP_COUNT;
    uint32_t caller = kind & 2 ? 0 : byte() % 4;
    union hv_argument argument;
    uint64_t before;
    int32_t status;

    memset(&argument, 0, sizeof(argument));
    if (kind & 0x1c) {
        kind & 1 ? fill(command, &argument) : fill_own(command, &argument);
    } else {
        number += kind >> 5 == 0;
        command = byte() % 40;
        take(&argument, hv_argument_bytes(number, command));
    }
    before = hv_machine_digest(machine);
    status = hv_machine_call(machine, caller, number, command, &argument, sizeof(argument));
    demand(status == HV_OK || hv_machine_digest(machine) == before);
}

static void one_event(struct hv_machine *machine)
{
    struct hv_delivery delivery;
    uint64_t before;
    uint32_t value;
    int32_t status;

    switch (byte() % 16) {
    case 0:
        (void)hv_machine_line(machine, ADDRESS, byte() % 4, byte() & 1);
        break;
    case 1:
        (void)hv_machine_take(machine, byte() % 4, &status, &delivery);
        break;
    case 2:
        (void)hv_machine_end(machine, byte() % 4);
        break;
    case 3:
        take(&value, sizeof(value));
        (void)hv_machine_message(machine, (uint16_t)(value >> 16), 0xfee00000 | (value & 0x3000), value & 0xff);
        break;
    case 4:
        before = hv_machine_digest(machine);
        (void)hv_machine_trapped_read(machine, byte() % 5, ADDRESS, byte(), &value);
        demand(hv_machine_digest(machine) == before);
        break;
    case 5:
        take(&value, sizeof(value));
        before = hv_machine_digest(machine);
        status = hv_machine_trapped_write(machine, byte() % 5, ADDRESS, 0x10 + byte() % 10, value & 0xff01a93f);
        demand(status == HV_OK || hv_machine_digest(machine) == before);
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
    uint64_t left_by_firmware;
    uint32_t pins;
    uint8_t how;

    demand(machine != NULL);
    next = data;
    left = size;
    how = byte();
    for (uint32_t i = 0; i < 3; i++)
        demand(hv_machine_ioapic(machine, ADDRESS + 0x1000 * i, i, 0x30020) == HV_OK);
    take(&left_by_firmware, sizeof(left_by_firmware));
    demand(hv_machine_entry(machine, ADDRESS, 1, left_by_firmware & 0x030000000001afffull) == HV_OK);
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
