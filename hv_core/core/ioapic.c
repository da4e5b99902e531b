/* SPDX-License-Identifier: MIT */
/* IOAPICs: the entries of the hardware, and a domain's reads and writes of registers (Intel 82093AA, section 3.2). */
#include "internal.h"

#define REGISTER_ID 0x00u
#define REGISTER_VERSION 0x01u
#define REGISTER_ARBITRATION 0x02u
#define REGISTER_ENTRIES 0x10u /* two a pin: low word, high word */

#define GSI_LIMIT ((uint64_t)HV_LIMIT_GSIS)
#define ADDRESS_LIMIT (1ull << 52)
#define ADDRESS_ALIGNMENT 256u /* chipsets decode address bits 19:8 of an IOAPIC's base (Intel ICH, register OIC) */

/* ---- Bits of an entry ---- */

static uint32_t delivery_mode(uint64_t entry)
{
    return (uint32_t)((entry & HV_ENTRY_DELIVERY_MODE) >> 8);
}

/* Bits that mean nothing in this entry, which says itself whether it is remapped where the format is VT-d's. */
static uint64_t reserved_bits(uint64_t entry, enum hv_format format)
{
    switch (format) {
    case HV_FORMAT_EXTENDED_DESTINATION:
        return 0x0001fffffffe0000ull;
    case HV_FORMAT_AMD_VI:
        return 0xfffffffffffe0800ull;
    case HV_FORMAT_VTD:
        if (entry & HV_ENTRY_REMAPPABLE)
            return 0x0000fffffffe0700ull;
        break;
    case HV_FORMAT_COMPATIBILITY:
        break;
    }
    return 0x00fffffffffe0000ull;
}

enum hv_status hv_entry_check(uint64_t entry, uint64_t before, enum hv_format format)
{
    uint64_t vector = entry & HV_ENTRY_VECTOR;
    bool masked = (entry & HV_ENTRY_MASKED) != 0;

    if (entry & reserved_bits(entry, format))
        return HV_INVALID;
    if (hv_entry_is_remapped(entry, format))
        return HV_OK;
    if (delivery_mode(entry) > HV_DELIVERY_LOWEST_PRIORITY &&
        !(masked && delivery_mode(entry) == delivery_mode(before)))
        return HV_INVALID;
    if (!masked && (vector < 0x10 || vector == 0xff))
        return HV_INVALID;
    return HV_OK;
}

uint64_t hv_entry_compose(enum hv_format format, uint32_t apic_id, uint8_t vector, uint16_t handle, bool level,
                          bool active_low, bool masked)
{
    uint64_t entry =
        (level ? HV_ENTRY_LEVEL : 0) | (active_low ? HV_ENTRY_ACTIVE_LOW : 0) | (masked ? HV_ENTRY_MASKED : 0);

    switch (format) {
    case HV_FORMAT_VTD:
        return entry | vector | (uint64_t)(handle >> 15) << 11 | HV_ENTRY_REMAPPABLE |
               (uint64_t)(handle & 0x7fff) << 49;
    case HV_FORMAT_AMD_VI:
        return entry | (handle & 0x7ffu);
    case HV_FORMAT_EXTENDED_DESTINATION:
        return entry | vector | (uint64_t)(apic_id >> 8 & 0x7f) << 49 | (uint64_t)(apic_id & 0xff) << 56;
    case HV_FORMAT_COMPATIBILITY:
        break;
    }
    return entry | vector | (uint64_t)(apic_id & 0xff) << 56;
}

/* ---- Hardware ---- */

static uint32_t read_register(const struct hv_core *core, const struct hv_ioapic *ioapic, uint32_t reg)
{
    return core->operations->ioapic_read(core->home, ioapic->address, (uint8_t)reg);
}

static void write_register(const struct hv_core *core, const struct hv_ioapic *ioapic, uint32_t reg, uint32_t value)
{
    core->operations->ioapic_write(core->home, ioapic->address, (uint8_t)reg, value);
}

enum hv_status hv_pin_program(struct hv_core *core, struct hv_ioapic *ioapic, uint32_t pin, uint64_t entry)
{
    uint64_t before = ioapic->pin[pin].entry;
    uint64_t change = before ^ entry;
    uint32_t low = REGISTER_ENTRIES + 2 * pin;

    if (change == 0)
        return HV_OK;
    if ((change & HV_ENTRY_LEVEL) && (read_register(core, ioapic, low) & HV_ENTRY_REMOTE_IRR))
        return HV_BUSY;
    if (change != HV_ENTRY_MASKED && !(before & HV_ENTRY_MASKED)) {
        write_register(core, ioapic, low, (uint32_t)(before | HV_ENTRY_MASKED));
        /* Reading back makes sure that the mask has arrived; what came in between may be in service now. */
        if ((read_register(core, ioapic, low) & HV_ENTRY_REMOTE_IRR) && (change & HV_ENTRY_LEVEL)) {
            write_register(core, ioapic, low, (uint32_t)before);
            return HV_BUSY;
        }
    }
    if (change >> 32)
        write_register(core, ioapic, low + 1, (uint32_t)(entry >> 32));
    if ((change & 0xffffffffu) != 0 || !(before & HV_ENTRY_MASKED))
        write_register(core, ioapic, low, (uint32_t)entry);
    ioapic->pin[pin].entry = entry;
    return HV_OK;
}

/* ---- IOAPICs come and go ---- */

uint32_t hv_ioapic_at(const struct hv_core *core, uint64_t address)
{
    for (uint32_t i = 0; address != 0 && i < HV_LIMIT_IOAPICS; i++)
        if (core->ioapic[i].address == address)
            return i;
    return HV_NONE;
}

static bool gsis_overlap(const struct hv_core *core, uint32_t gsi_base, uint32_t pins)
{
    for (uint32_t gsi = gsi_base; gsi < gsi_base + pins; gsi++)
        if (core->gsi_source[gsi] != HV_SOURCE_NONE)
            return true;
    return false;
}

static void count_gsis(struct hv_core *core)
{
    core->gsis = 0;
    for (uint32_t i = 0; i < HV_LIMIT_IOAPICS; i++) {
        uint32_t end = core->ioapic[i].gsi_base + core->ioapic[i].pins;

        if (core->ioapic[i].address != 0 && end > core->gsis)
            core->gsis = end;
    }
}

static void take_pins(struct hv_core *core, uint32_t index, bool mask)
{
    struct hv_ioapic *ioapic = &core->ioapic[index];

    for (uint32_t pin = 0; pin < ioapic->pins; pin++) {
        uint32_t low = REGISTER_ENTRIES + 2 * pin;
        uint64_t entry = read_register(core, ioapic, low) | (uint64_t)read_register(core, ioapic, low + 1) << 32;
        uint16_t source = HV_SOURCE_PIN(index, pin);
        uint32_t gsi = ioapic->gsi_base + pin;

        entry &= ~HV_ENTRY_STATUS;
        ioapic->pin[pin] = (struct hv_pin){.entry = entry};
        core->gsi_source[gsi] = source;
        if (mask && hv_pin_program(core, ioapic, pin, entry | HV_ENTRY_MASKED) == HV_OK)
            entry |= HV_ENTRY_MASKED;
        core->view[index][pin] = (struct hv_pin_view){.entry = entry, .pirq = HV_NO_PIRQ};
        hv_pin_adopt(core, source);
        if (!(entry & HV_ENTRY_MASKED) && !hv_entry_is_remapped(entry, core->entry_format) &&
            delivery_mode(entry) > HV_DELIVERY_LOWEST_PRIORITY)
            hv_report(core, HV_REPORT_FIRMWARE_ENTRY, ioapic->address, gsi);
    }
}

enum hv_status hv_ioapic_take(struct hv_core *core, uint64_t address, uint32_t gsi_base, bool mask, uint32_t *pins)
{
    uint32_t index;
    uint32_t version;
    uint32_t claimed;
    enum hv_status status = HV_OK;
    struct hv_ioapic *ioapic;

    if (address == 0 || address % ADDRESS_ALIGNMENT != 0 || address >= ADDRESS_LIMIT)
        return HV_INVALID;
    if (hv_ioapic_at(core, address) != HV_NONE)
        return HV_EXISTS;
    for (index = 0; index < HV_LIMIT_IOAPICS; index++)
        if (core->ioapic[index].address == 0)
            break;
    if (index == HV_LIMIT_IOAPICS)
        return HV_NO_SPACE;
    status = core->operations->ioapic_map(core->home, address);
    if (status != HV_OK)
        return status;

    ioapic = &core->ioapic[index];
    ioapic->address = address;
    version = read_register(core, ioapic, REGISTER_VERSION);
    claimed = (version >> 16 & 0xff) + 1;
    *pins = claimed > HV_PINS ? HV_PINS : claimed;
    if (version == 0 || version == 0xffffffffu)
        status = HV_NO_DEVICE;
    else if ((uint64_t)gsi_base + *pins > GSI_LIMIT)
        status = HV_OUT_OF_RANGE;
    else if (gsis_overlap(core, gsi_base, *pins))
        status = HV_EXISTS;
    if (status != HV_OK) {
        ioapic->address = 0;
        core->operations->ioapic_unmap(core->home, address);
        return status;
    }
    if (claimed > HV_PINS)
        hv_report(core, HV_REPORT_IOAPIC_PINS, address, claimed);
    ioapic->gsi_base = gsi_base;
    ioapic->pins = *pins;
    ioapic->version = version & 0xff;
    ioapic->id = read_register(core, ioapic, REGISTER_ID) >> 24 & 0xff;
    core->ioapics++;
    take_pins(core, index, mask);
    count_gsis(core);
    return HV_OK;
}

enum hv_status hv_ioapic_remove(struct hv_core *core, uint64_t address)
{
    uint32_t index = hv_ioapic_at(core, address);
    struct hv_ioapic *ioapic;

    if (index == HV_NONE)
        return HV_NO_DEVICE;
    ioapic = &core->ioapic[index];
    for (uint32_t pin = 0; pin < ioapic->pins; pin++)
        if (hv_pin_in_use(core, HV_SOURCE_PIN(index, pin)))
            return HV_BUSY;
    for (uint32_t pin = 0; pin < ioapic->pins; pin++) {
        hv_pin_release(core, HV_SOURCE_PIN(index, pin));
        core->gsi_source[ioapic->gsi_base + pin] = HV_SOURCE_NONE;
    }
    core->operations->ioapic_unmap(core->home, address);
    ioapic->address = 0;
    core->ioapics--;
    count_gsis(core);
    return HV_OK;
}

/* ---- A domain's registers ---- */

/* The source a register belongs to, when it is one of an entry's two and the caller's. */
static enum hv_status entry_register(const struct hv_core *core, uint32_t caller, uint32_t index, uint32_t reg,
                                     uint16_t *source)
{
    uint32_t pin = (reg - REGISTER_ENTRIES) / 2;

    if (reg < REGISTER_ENTRIES || pin >= core->ioapic[index].pins)
        return HV_OUT_OF_RANGE;
    if (core->view[index][pin].domain != caller)
        return HV_NOT_PERMITTED;
    *source = HV_SOURCE_PIN(index, pin);
    return HV_OK;
}

enum hv_status hv_apic_read(struct hv_core *core, uint32_t caller, uint64_t address, uint32_t reg, uint32_t *value)
{
    uint32_t index = hv_ioapic_at(core, address);
    enum hv_status status;
    uint16_t source;
    uint64_t entry;

    if (index == HV_NONE)
        return HV_INVALID;
    if (reg <= REGISTER_ARBITRATION) {
        if (caller != 0)
            return HV_NOT_PERMITTED;
        *value = read_register(core, &core->ioapic[index], reg);
        return HV_OK;
    }
    status = entry_register(core, caller, index, reg, &source);
    if (status != HV_OK)
        return status;
    entry = core->view[index][hv_source_pin(source)].entry;
    if (reg % 2)
        *value = (uint32_t)(entry >> 32);
    else
        *value = (uint32_t)entry | (read_register(core, &core->ioapic[index], reg) & (uint32_t)HV_ENTRY_STATUS);
    return HV_OK;
}

enum hv_status hv_apic_write(struct hv_core *core, uint32_t caller, uint64_t address, uint32_t reg, uint32_t value)
{
    uint32_t index = hv_ioapic_at(core, address);
    struct hv_pin_view *view;
    enum hv_status status;
    uint16_t source;

    if (index == HV_NONE)
        return HV_INVALID;
    if (reg <= REGISTER_ARBITRATION)
        return HV_NOT_PERMITTED;
    status = entry_register(core, caller, index, reg, &source);
    if (status != HV_OK)
        return status;
    view = &core->view[index][hv_source_pin(source)];
    if (reg % 2 == 0)
        return hv_pin_set_view(core, source, (view->entry & ~0xffffffffull) | (value & ~(uint32_t)HV_ENTRY_STATUS));
    if (!(view->entry & HV_ENTRY_MASKED))
        return hv_pin_set_view(core, source, (view->entry & 0xffffffffull) | (uint64_t)value << 32);
    /* The two words of a masked entry may be inconsistent until the low one is written. */
    view->entry = (view->entry & 0xffffffffull) | (uint64_t)value << 32;
    return HV_OK;
}
