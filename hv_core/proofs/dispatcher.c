/* SPDX-License-Identifier: MIT */
/*
 * One hypercall NUMBER, command COMMAND, any argument, from any caller, to a core that has just started on a
 * small machine with a function and a second domain: no access out of bounds, no overflow, no endless
 * loop; a call that is refused leaves the counts of everything as they were.
 */
#include "../core/acpi_static.c"

#undef HEADER_BYTES
#define place_of function_place_of
#include "../core/domain.c"
#undef place_of
#include "../core/core.c"
#include "../core/ioapic.c"
#include "../core/irq.c"
#include "../core/msi.c"
#include "../core/physdev.c"
#include "../core/shared_info.c"
#include "../core/vector.c"

#include "proof.h"

#define ADDRESS 0xfec00000ull

static struct hv_core core;

static void nothing(void *home)
{
    (void)home;
}

static bool read_nothing(void *home, uint64_t address, void *to, uint32_t bytes)
{
    (void)home;
    (void)address;
    (void)to;
    (void)bytes;
    return false;
}

static enum hv_status map(void *home, uint64_t address)
{
    (void)home;
    return address == ADDRESS || any_bool() ? HV_OK : HV_NO_DEVICE;
}

static void unmap(void *home, uint64_t address)
{
    (void)home;
    (void)address;
}

static uint32_t model_read(void *home, uint64_t address, uint8_t index)
{
    (void)home;
    (void)address;
    return index == 1 ? 0x10020u : 0x10000u; /* two pins, masked */
}

static void model_write(void *home, uint64_t address, uint8_t index, uint32_t value)
{
    (void)home;
    (void)address;
    (void)value;
    assert(index >= 0x10 && index < 0x14);
}

static void end(void *home, uint64_t address, uint8_t pin, uint8_t vector)
{
    (void)home;
    (void)address;
    (void)vector;
    assert(pin < 2);
}

static enum hv_status remap(void *home, uint16_t source, uint32_t apic_id, uint8_t vector)
{
    (void)home;
    (void)source;
    (void)apic_id;
    (void)vector;
    return HV_OK;
}

static enum hv_status map_shared_info(void *home, uint64_t guest_physical)
{
    (void)home;
    (void)guest_physical;
    return HV_OK;
}

static const struct hv_operations operations = {
    nothing, nothing, read_nothing, map, unmap, model_read, model_write, end, remap, map_shared_info, nothing,
};

/* What hv_core_start does without tables, but for clearing memory: static memory is clear. */
static void start(void)
{
    struct hv_pci_device_add_pxm add = {{0}};
    struct hv_domain_create create = {.domain = 1};
    uint32_t pins;

    core.operations = &operations;
    core.mode = MODE;
    core.cpus.reachable = 0xfe;
    core.message_free[0] = ~0ull;
    hv_domain_make(&core, 0, 0);
    assert(hv_cpu_add(&core.cpus, 0) == HV_OK);
    assert(hv_ioapic_take(&core, ADDRESS, 0, false, &pins) == HV_OK);
    assert(hv_function_add(&core, &add) == HV_OK);
    assert(hv_domain_create(&core, &create) == HV_OK);
    hv_shared_update(&core);
}

void prove(void)
{
    union hv_argument argument;
    uint32_t ioapics, functions, messages, domains;
    enum hv_status status;

    start();
    ioapics = core.ioapics;
    functions = core.functions;
    messages = core.messages;
    domains = core.domains;
    __CPROVER_havoc_object(&argument);
    assert(hv_argument_bytes(NUMBER, COMMAND) <= sizeof(argument));
    status = hv_hypercall(&core, any_u32(), NUMBER, COMMAND, &argument);
    assert(status <= HV_OK && status >= HV_NOT_SUPPORTED);
    if (status != HV_OK)
        assert(core.ioapics == ioapics && core.functions == functions && core.messages == messages &&
               core.domains == domains);
}
