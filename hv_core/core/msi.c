/* SPDX-License-Identifier: MIT */
/*
 * MSI and MSI-X messages of functions (PCIe 6.0, sections 7.7.1 and 7.7.2), and the address and data that carry one to
 * a processor: Intel SDM 3A section 11.11, VT-d 4.1 section 5.1.5.2, AMD IOMMU 3.08 section 2.2.5, and the extended
 * destination id of KVM and Xen.
 */
#include "internal.h"

#define ADDRESS_BASE 0xfee00000ull
#define ADDRESS_LOGICAL (1u << 2)
#define ADDRESS_SUBHANDLE_VALID (1u << 3) /* VT-d: the data's low word is added to the handle */
#define ADDRESS_REMAPPABLE (1u << 4)
#define DATA_LEVEL (1u << 15)
#define DATA_RESERVED 0xffff3800u
#define MSIX_MESSAGES 2048
#define MSI_MESSAGES 32

enum hv_status hv_message_compose(enum hv_format format, uint32_t apic_id, uint8_t vector, uint16_t handle,
                                  uint64_t *address, uint32_t *data)
{
    switch (format) {
    case HV_FORMAT_VTD:
        *address =
            ADDRESS_BASE | (uint64_t)(handle & 0x7fffu) << 5 | ADDRESS_REMAPPABLE | (uint64_t)(handle >> 15) << 2;
        *data = 0;
        return HV_OK;
    case HV_FORMAT_AMD_VI:
        if (handle > 0x7ff)
            return HV_OUT_OF_RANGE;
        *address = ADDRESS_BASE;
        *data = handle;
        return HV_OK;
    case HV_FORMAT_EXTENDED_DESTINATION:
        if (apic_id > 0x7fff)
            return HV_OUT_OF_RANGE;
        break;
    case HV_FORMAT_COMPATIBILITY:
        if (apic_id > 0xfe) /* 0xff is everybody */
            return HV_OUT_OF_RANGE;
        break;
    }
    *address = ADDRESS_BASE | (uint64_t)(apic_id & 0xff) << 12 | (uint64_t)(apic_id >> 8) << 5;
    *data = vector;
    return HV_OK;
}

enum hv_status hv_message_check(enum hv_format format, uint64_t address, uint32_t data)
{
    uint64_t reserved = format == HV_FORMAT_EXTENDED_DESTINATION ? 0x13 : 0xff3;
    uint32_t vector = data & 0xff;

    if ((address & ~0xfffffull) != ADDRESS_BASE)
        return HV_INVALID;
    if (format == HV_FORMAT_AMD_VI)
        return (data & ~0x7ffu) != 0 ? HV_INVALID : HV_OK;
    if (hv_message_is_remapped(address, format))
        return (data & ~0xffffu) != 0 ? HV_INVALID : HV_OK;
    if ((address & reserved) || (data & DATA_RESERVED) || (data & DATA_LEVEL))
        return HV_INVALID;
    if ((data >> 8 & 7) > HV_DELIVERY_LOWEST_PRIORITY || vector < 0x10 || vector == 0xff)
        return HV_INVALID;
    return HV_OK;
}

/* The first of `count` (a power of two up to 32) consecutive free messages, aligned to their count, or HV_NONE. */
static uint32_t messages_find(const struct hv_core *core, uint32_t count)
{
    uint64_t run = (1ull << count) - 1;

    for (uint32_t word = 0; word < HV_WORDS(HV_LIMIT_MESSAGES); word++) {
        uint64_t free = core->message_free[word];

        for (uint32_t bit = 0; free != 0 && bit < 64; bit += count)
            if ((free >> bit & run) == run)
                return word * 64 + bit;
    }
    return HV_NONE;
}

/* Does the function have this message, or one of the other kind (which excludes it)? */
static bool is_taken(const struct hv_core *core, const struct hv_function *function, uint8_t kind, uint32_t entry)
{
    uint16_t message = function->first_message;

    for (uint32_t i = 0; message != HV_NO_MESSAGE && i < HV_LIMIT_MESSAGES; i++) {
        const struct hv_message *taken = &core->message[message];

        if (taken->kind != kind || kind == HV_KIND_MSI || taken->entry == entry)
            return true;
        message = taken->next;
    }
    return false;
}

struct wanted { /* what a map_pirq asks for, its words checked */
    uint8_t kind;
    uint32_t first_entry;
    uint32_t count;
    uint32_t order;
};

static enum hv_status check_words(const struct hv_map_pirq *map, struct wanted *wanted)
{
    if (map->index >= 0 || map->devfn < 0 || map->devfn > 0xff)
        return HV_INVALID;
    *wanted = (struct wanted){.kind = HV_KIND_MSI, .count = 1};
    if (map->type == HV_MAP_PIRQ_MULTI_MSI) {
        if (map->table_base != 0 || map->entry_nr < 1 || map->entry_nr > MSI_MESSAGES ||
            (map->entry_nr & (map->entry_nr - 1)))
            return HV_INVALID;
        wanted->count = (uint32_t)map->entry_nr;
        wanted->order = hv_lowest_bit(wanted->count);
        return HV_OK;
    }
    if (map->table_base == 0)
        return map->entry_nr == 0 ? HV_OK : HV_INVALID;
    if (map->entry_nr < 0 || map->entry_nr >= MSIX_MESSAGES)
        return HV_OUT_OF_RANGE;
    wanted->kind = HV_KIND_MSIX;
    wanted->first_entry = (uint32_t)map->entry_nr;
    return HV_OK;
}

static enum hv_status choose_pirq(const struct hv_core *core, uint32_t domain, const struct hv_map_pirq *map,
                                  uint32_t count, uint32_t *pirq)
{
    const struct hv_domain *owner = &core->domain[domain];

    if (map->pirq < 0) {
        *pirq = hv_pirq_find(owner, hv_pirq_from(core, map->type), count);
        return *pirq == HV_NONE ? HV_NO_SPACE : HV_OK;
    }
    *pirq = (uint32_t)map->pirq;
    if (*pirq + count > HV_LIMIT_PIRQS)
        return HV_OUT_OF_RANGE;
    for (uint32_t i = 0; i < count; i++)
        if (!hv_bit(owner->pirq_free, *pirq + i))
            return HV_EXISTS;
    return HV_OK;
}

/* Intercept mode: vectors for a run, and the remapper told; a refusal changes nothing. */
static enum hv_status bind_run(struct hv_core *core, uint32_t domain, const struct wanted *wanted, uint16_t source,
                               struct hv_binding *first)
{
    enum hv_status status = hv_bind(core, domain, HV_NONE, wanted->order, source, first);

    for (uint32_t i = 0; status == HV_OK && i < wanted->count; i++) {
        struct hv_binding bound = {.cpu = first->cpu, .vector = (uint8_t)(first->vector + i)};

        status = hv_remap(core, core->message_format, (uint16_t)(source + i), bound);
        for (uint32_t k = 0; status != HV_OK && k < wanted->count; k++) {
            bound.vector = (uint8_t)(first->vector + k);
            hv_vector_free(&core->cpus, bound);
            core->domain[domain].vectors--;
        }
    }
    return status;
}

enum hv_status hv_map_msi(struct hv_core *core, uint32_t domain, struct hv_map_pirq *map)
{
    uint32_t bus = (uint32_t)map->bus & (map->type == HV_MAP_PIRQ_MSI ? 0xffu : 0xffffffffu);
    struct hv_function *function;
    struct hv_binding first = {0};
    struct wanted wanted;
    uint32_t message;
    uint32_t pirq;
    enum hv_status status = check_words(map, &wanted);

    if (status != HV_OK)
        return status;
    if (bus & 0xff00u)
        return HV_INVALID;
    function = hv_function_find(core, hv_sbdf(bus >> 16, bus & 0xff, (uint32_t)map->devfn));
    if (function == NULL)
        return HV_NO_DEVICE;
    if (function->domain != domain)
        return HV_NOT_PERMITTED;
    if (is_taken(core, function, wanted.kind, wanted.first_entry))
        return HV_EXISTS;
    status = choose_pirq(core, domain, map, wanted.count, &pirq);
    if (status != HV_OK)
        return status;
    message = messages_find(core, wanted.count);
    if (message == HV_NONE)
        return HV_NO_SPACE;
    if (core->mode == HV_MODE_INTERCEPT) {
        status = bind_run(core, domain, &wanted, HV_SOURCE_MESSAGE(message), &first);
        if (status != HV_OK)
            return status;
    }
    for (uint32_t i = 0; i < wanted.count; i++) {
        struct hv_message *made = &core->message[message + i];

        *made = (struct hv_message){
            .function = function->sbdf,
            .entry = (uint16_t)(wanted.first_entry + i),
            .domain = (uint16_t)domain,
            .pirq = (uint16_t)(pirq + i),
            .run_order = (uint8_t)wanted.order,
            .kind = wanted.kind,
            .next = function->first_message,
        };
        if (first.vector != 0)
            made->bound = (struct hv_binding){.cpu = first.cpu, .vector = (uint8_t)(first.vector + i)};
        function->first_message = (uint16_t)(message + i);
        hv_bit_clear(core->message_free, message + i);
        hv_bit_clear(core->domain[domain].pirq_free, pirq + i);
        core->domain[domain].source[pirq + i] = HV_SOURCE_MESSAGE(message + i);
    }
    core->messages += wanted.count;
    map->pirq = (int32_t)pirq;
    return HV_OK;
}

static void unlink_message(struct hv_core *core, uint16_t message)
{
    struct hv_function *function = hv_function_find(core, core->message[message].function);
    uint16_t *link = &function->first_message;

    for (uint32_t i = 0; *link != message && i < HV_LIMIT_MESSAGES; i++)
        link = &core->message[*link].next;
    *link = core->message[message].next;
}

void hv_message_release(struct hv_core *core, uint32_t number)
{
    struct hv_message *message = &core->message[number];
    struct hv_domain *domain = &core->domain[message->domain];

    unlink_message(core, (uint16_t)number);
    /* The device may still send it, when the vector is another's. */
    (void)hv_remap(core, core->message_format, HV_SOURCE_MESSAGE(number), (struct hv_binding){0});
    hv_unbind(core, message->domain, &message->bound);
    hv_unbind(core, message->domain, &message->drained);
    domain->source[message->pirq] = HV_SOURCE_NONE;
    hv_bit_set(domain->pirq_free, message->pirq);
    hv_bit_set(core->message_free, number);
    message->kind = HV_KIND_NONE;
    core->messages--;
}

void hv_function_quiet(struct hv_core *core, struct hv_function *function)
{
    for (uint32_t i = 0; function->first_message != HV_NO_MESSAGE && i < HV_LIMIT_MESSAGES; i++)
        hv_message_release(core, function->first_message);
}

/* ---- Reading and recording ---- */

static struct hv_message *message_of_irq(struct hv_core *core, uint32_t domain, uint32_t irq)
{
    uint16_t source = irq < HV_LIMIT_PIRQS ? core->domain[domain].source[irq] : (uint16_t)HV_SOURCE_NONE;

    if (source == HV_SOURCE_NONE || hv_source_is_pin(source))
        return NULL;
    return &core->message[hv_source_message(source)];
}

enum hv_status hv_msi_read(struct hv_core *core, uint32_t domain, struct hv_msi *msi)
{
    struct hv_message *message = message_of_irq(core, domain, msi->irq);
    uint16_t handle;
    enum hv_status status;

    if (message == NULL)
        return HV_INVALID;
    if (core->mode == HV_MODE_DIRECT) {
        msi->address = message->address;
        msi->data = message->data;
        return message->address == 0 ? HV_NOT_FOUND : HV_OK;
    }
    /* AMD's table is the function's own; VT-d's serves all. */
    handle = core->message_format == HV_FORMAT_AMD_VI ? message->entry : HV_SOURCE_MESSAGE(message - core->message);
    if (core->message_format == HV_FORMAT_VTD && message->run_order != 0)
        handle = (uint16_t)(handle - message->entry);
    status = hv_message_compose(core->message_format, core->cpus.cpu[message->bound.cpu].apic_id, message->bound.vector,
                                handle, &msi->address, &msi->data);
    if (core->message_format == HV_FORMAT_VTD && message->run_order != 0) {
        /* One address for the run: the device adds its message number to the data, the remapper to the handle. */
        msi->address |= ADDRESS_SUBHANDLE_VALID;
        msi->data = message->entry;
    }
    return status;
}

enum hv_status hv_msi_write(struct hv_core *core, uint32_t domain, const struct hv_msi *msi)
{
    struct hv_message *message = message_of_irq(core, domain, msi->irq);
    uint32_t destination = (uint32_t)(msi->address >> 12 & 0xff);
    bool logical = (msi->address & ADDRESS_LOGICAL) != 0;
    struct hv_binding bound = {0};
    enum hv_status status;
    bool several = true;
    uint32_t cpu = 0;

    if (core->mode != HV_MODE_DIRECT)
        return HV_NOT_SUPPORTED;
    if (message == NULL)
        return HV_INVALID;
    status = hv_message_check(core->message_format, msi->address, msi->data);
    if (status != HV_OK)
        return status;
    if (!hv_message_is_remapped(msi->address, core->message_format)) {
        if (core->message_format == HV_FORMAT_EXTENDED_DESTINATION && !logical)
            destination |= (uint32_t)(msi->address >> 5 & 0x7f) << 8;
        if (hv_destination_is_everybody(core->message_format, logical, destination))
            return HV_OUT_OF_RANGE;
        status = hv_destination_cpu(core, logical, destination, &cpu, &several);
        if (status != HV_OK)
            return status;
    }
    if (!several) {
        bound = (struct hv_binding){.cpu = (uint16_t)cpu, .vector = (uint8_t)msi->data};
        if (bound.cpu != message->bound.cpu || bound.vector != message->bound.vector) {
            status =
                hv_claim(core, domain, cpu, (uint8_t)msi->data, HV_SOURCE_MESSAGE(message - core->message), &bound);
            if (status != HV_OK)
                return status;
        }
    }
    if (bound.cpu != message->bound.cpu || bound.vector != message->bound.vector)
        hv_unbind(core, domain, &message->bound);
    message->bound = bound;
    message->address = msi->address;
    message->data = msi->data;
    return HV_OK;
}
