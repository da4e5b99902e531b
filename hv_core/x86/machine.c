/* SPDX-License-Identifier: MIT */
/* What the core asks of its home: a lock, memory, the IOAPICs' registers, dom0's view of two pages. */
#include "home.h"
#include "x86.h"

#define PAGE_BYTES 4096ull
#define WINDOW_INDEX 0x00u /* Intel 82093AA, section 3.1; EOI: ICH, section "APIC direct registers" */
#define WINDOW_DATA 0x10u
#define WINDOW_END 0x40u
#define VERSION_WITH_END 0x20u

struct window { /* dom0's side of an IOAPIC */
    uint64_t address;
    uint8_t index;
};
static struct window windows[HV_LIMIT_IOAPICS];
static uint32_t core_lock;

static void lock(void *home)
{
    (void)home;
    while (__atomic_exchange_n(&core_lock, 1, __ATOMIC_ACQUIRE) != 0)
        pause();
}

static void unlock(void *home)
{
    (void)home;
    __atomic_store_n(&core_lock, 0, __ATOMIC_RELEASE);
}

static bool is_core(uint64_t address, uint64_t bytes)
{
    struct range wanted = {address, address + bytes};

    return ranges_meet(wanted, hypervisor.image) || ranges_meet(wanted, hypervisor.tables);
}

/* Firmware's tables lie in memory of any kind, or in its ROM below 1 MiB. */
static bool is_memory(uint64_t address, uint64_t bytes)
{
    static const uint32_t types[] = {MEMORY_RAM, MEMORY_RESERVED, MEMORY_ACPI, MEMORY_NVS};

    if (range_holds((struct range){1, 0x100000}, address, bytes))
        return true;
    for (uint32_t i = 0; i < ARRAY_LENGTH(types); i++)
        if (memory_is(&hypervisor.firmware, address, bytes, types[i]))
            return true;
    return false;
}

static bool read_physical(void *home, uint64_t address, void *to, uint32_t bytes)
{
    (void)home;
    if (address > hypervisor.physical_end || is_core(address, bytes) || !is_memory(address, bytes))
        return false;
    memcpy(to, at_physical(address), bytes);
    return true;
}

static struct window *window_at(uint64_t address)
{
    for (uint32_t i = 0; i < HV_LIMIT_IOAPICS; i++)
        if (windows[i].address == address)
            return &windows[i];
    return NULL;
}

void forget_ioapics(void)
{
    memset(windows, 0, sizeof(windows));
}

static bool page_in_use(uint64_t page)
{
    for (uint32_t i = 0; i < HV_LIMIT_IOAPICS; i++)
        if (windows[i].address != 0 && (windows[i].address & ~(PAGE_BYTES - 1)) == page)
            return true;
    return false;
}

static enum hv_status ioapic_map(void *home, uint64_t address)
{
    struct window *window = window_at(0);
    enum hv_status status;

    (void)home;
    if (address > hypervisor.physical_end - PAGE_BYTES || memory_is(&hypervisor.firmware, address, 1, MEMORY_RAM) ||
        memory_is(&hypervisor.firmware, address, 1, MEMORY_ACPI) ||
        memory_is(&hypervisor.firmware, address, 1, MEMORY_NVS) || (address & ~(PAGE_BYTES - 1)) == hypervisor.apic)
        return HV_NO_DEVICE;
    if (window == NULL)
        return HV_NO_SPACE;
    status = nested_hide(address & ~(PAGE_BYTES - 1));
    if (status != HV_OK)
        return status;
    nested_changed();
    *window = (struct window){.address = address};
    return HV_OK;
}

static void ioapic_unmap(void *home, uint64_t address)
{
    struct window *window = window_at(address);

    (void)home;
    if (window == NULL)
        return;
    *window = (struct window){0};
    if (!page_in_use(address & ~(PAGE_BYTES - 1)))
        (void)nested_show(address & ~(PAGE_BYTES - 1));
}

static uint32_t ioapic_read(void *home, uint64_t address, uint8_t index)
{
    (void)home;
    write_register32(address + WINDOW_INDEX, index);
    return read_register32(address + WINDOW_DATA);
}

static void ioapic_write(void *home, uint64_t address, uint8_t index, uint32_t value)
{
    (void)home;
    write_register32(address + WINDOW_INDEX, index);
    write_register32(address + WINDOW_DATA, value);
}

/* Needs a version with an EOI register; the local APIC's EOI has told the others. */
static void ioapic_end(void *home, uint64_t address, uint8_t pin, uint8_t vector)
{
    (void)pin;
    if ((ioapic_read(home, address, 1) & 0xff) >= VERSION_WITH_END)
        write_register32(address + WINDOW_END, vector);
}

static enum hv_status remap(void *home, uint16_t source, uint32_t apic_id, uint8_t vector)
{
    (void)home;
    (void)source;
    (void)apic_id;
    (void)vector;
    return HV_NOT_SUPPORTED; /* there is no driver for a remapper here, and the format is always compatibility */
}

static enum hv_status map_shared_info(void *home, uint64_t guest_physical)
{
    (void)home;
    if (guest_physical != 0 && !memory_is(&hypervisor.dom0, guest_physical, sizeof(struct hv_shared_info), MEMORY_RAM))
        return HV_INVALID;
    return nested_share(guest_physical, physical_of(&hypervisor.core->shared));
}

static void changed(void *home)
{
    (void)home; /* dom0 looks at the counter */
}

const struct hv_operations machine_operations = {
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

/* ---- dom0's accesses to an IOAPIC's page ---- */

static struct window *window_of(uint64_t address, uint32_t *offset)
{
    struct window *window = window_at(address & ~0xffull);

    *offset = (uint32_t)(address & 0xff);
    return window;
}

bool ioapic_is_at(uint64_t address)
{
    return page_in_use(address & ~(PAGE_BYTES - 1));
}

uint32_t ioapic_window_read(uint64_t address)
{
    uint32_t offset;
    struct window *window = window_of(address, &offset);
    uint32_t value = 0xffffffffu;
    enum hv_status status;

    if (window == NULL)
        return value;
    if (offset == WINDOW_INDEX)
        return window->index;
    if (offset != WINDOW_DATA)
        return 0;
    status = hv_ioapic_trapped_read(hypervisor.core, 0, window->address, window->index, &value);
    if (status != HV_OK)
        log_refusal("dom0's read of register %x of the IOAPIC at %lx is refused: %u", window->index, window->address,
                    (uint32_t)-status);
    return value;
}

/* The end of a level interrupt by its vector, which in intercept mode is the core's, not the one that dom0 knows. */
static void end_vector(const struct window *window, uint32_t value)
{
    const struct hv_core *core = hypervisor.core;

    machine_operations.lock(NULL);
    for (uint32_t i = 0; i < HV_LIMIT_IOAPICS; i++) {
        const struct hv_ioapic *ioapic = &core->ioapic[i];

        if (ioapic->address != window->address)
            continue;
        for (uint32_t pin = 0; pin < ioapic->pins; pin++)
            if ((core->view[i][pin].entry & 0xff) == (value & 0xff))
                ioapic_end(NULL, ioapic->address, (uint8_t)pin, (uint8_t)ioapic->pin[pin].entry);
    }
    machine_operations.unlock(NULL);
}

void ioapic_window_write(uint64_t address, uint32_t value)
{
    uint32_t offset;
    struct window *window = window_of(address, &offset);
    enum hv_status status;

    if (window == NULL)
        return;
    if (offset == WINDOW_INDEX) {
        window->index = (uint8_t)value;
    } else if (offset == WINDOW_END) {
        end_vector(window, value);
    } else if (offset == WINDOW_DATA) {
        status = hv_ioapic_trapped_write(hypervisor.core, 0, window->address, window->index, value);
        if (status != HV_OK)
            log_refusal("dom0's write of %x to register %x of the IOAPIC at %lx is dropped: %u", value, window->index,
                        window->address, (uint32_t)-status);
    }
}
