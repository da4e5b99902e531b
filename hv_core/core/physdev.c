/* SPDX-License-Identifier: MIT */
/*
 * The one dispatcher: every hypercall of every home comes through here, physdev operations (those of 2005 and the
 * modern ones) and our own. It takes the lock, checks who may call, versions and reserved fields, and hands on.
 */
#include "internal.h"

/* ---- Sizes ---- */

uint32_t hv_argument_bytes(uint32_t number, uint32_t command)
{
    static const uint8_t own[HV_OP_COUNT] = {
        [HV_OP_INFORMATION] = sizeof(struct hv_information),
        [HV_OP_MAP_SHARED_INFO] = sizeof(struct hv_map_shared_info),
        [HV_OP_HAND_OVER] = sizeof(struct hv_hand_over),
        [HV_OP_QUERY_VECTOR] = sizeof(struct hv_query_vector),
        [HV_OP_SET_AFFINITY] = sizeof(struct hv_set_affinity),
        [HV_OP_IOAPIC_ADD] = sizeof(struct hv_ioapic_add),
        [HV_OP_IOAPIC_REMOVE] = sizeof(struct hv_ioapic_remove),
        [HV_OP_DOMAIN_CREATE] = sizeof(struct hv_domain_create),
        [HV_OP_DOMAIN_DESTROY] = sizeof(struct hv_domain_destroy),
        [HV_OP_ASSIGN_DEVICE] = sizeof(struct hv_assign_device),
        [HV_OP_RELEASE_DEVICE] = sizeof(struct hv_assign_device),
        [HV_OP_ASSIGN_GSI] = sizeof(struct hv_assign_gsi),
        [HV_OP_RELEASE_GSI] = sizeof(struct hv_assign_gsi),
        [HV_OP_READ_INTERRUPT] = sizeof(struct hv_read_interrupt),
        [HV_OP_READ_REPORT] = sizeof(struct hv_read_report),
        [HV_OP_MSI_READ] = sizeof(struct hv_msi),
        [HV_OP_MSI_WRITE] = sizeof(struct hv_msi),
    };

    if (number == HV_HYPERCALL_DOM0KIT)
        return command < HV_OP_COUNT ? own[command] : 0;
    if (number != HV_HYPERCALL_PHYSDEV)
        return 0;
    switch (command) {
    case HV_PHYSDEVOP_IRQ_STATUS_QUERY:
        return sizeof(struct hv_irq_status_query);
    case HV_PHYSDEVOP_APIC_READ:
    case HV_PHYSDEVOP_APIC_WRITE:
        return sizeof(struct hv_apic);
    case HV_PHYSDEVOP_ALLOC_IRQ_VECTOR:
        return sizeof(struct hv_alloc_irq_vector);
    case HV_PHYSDEVOP_EOI:
        return sizeof(struct hv_eoi);
    case HV_PHYSDEVOP_MAP_PIRQ:
        return sizeof(struct hv_map_pirq);
    case HV_PHYSDEVOP_UNMAP_PIRQ:
        return sizeof(struct hv_unmap_pirq);
    case HV_PHYSDEVOP_SETUP_GSI:
        return sizeof(struct hv_setup_gsi);
    case HV_PHYSDEVOP_GET_FREE_PIRQ:
        return sizeof(struct hv_get_free_pirq);
    case HV_PHYSDEVOP_PCI_MMCFG_RESERVED:
        return sizeof(struct hv_pci_mmcfg_reserved);
    case HV_PHYSDEVOP_PCI_DEVICE_ADD:
        return sizeof(struct hv_pci_device_add);
    case HV_PHYSDEVOP_PCI_DEVICE_REMOVE:
        return sizeof(struct hv_pci_device);
    case HV_PHYSDEVOP_PCI_DEVICE_RESET:
        return sizeof(struct hv_pci_device_reset);
    default:
        return 0;
    }
}

uint32_t hv_argument_more_bytes(uint32_t number, uint32_t command, const union hv_argument *argument)
{
    if (number != HV_HYPERCALL_PHYSDEV || command != HV_PHYSDEVOP_PCI_DEVICE_ADD ||
        !(argument->pci_device_add.device.flags & HV_PCI_DEV_PXM))
        return 0;
    return sizeof(argument->pci_device_add.pxm);
}

/* ---- Physdev ---- */

static enum hv_status map_pirq(struct hv_core *core, uint32_t caller, struct hv_map_pirq *map)
{
    uint32_t domain;
    enum hv_status status = hv_domain_named(core, caller, map->domid, &domain);

    if (status != HV_OK)
        return status;
    switch (map->type) {
    case HV_MAP_PIRQ_GSI:
        return hv_map_gsi(core, domain, map);
    case HV_MAP_PIRQ_MSI:
    case HV_MAP_PIRQ_MSI_SEG:
    case HV_MAP_PIRQ_MULTI_MSI:
        return hv_map_msi(core, domain, map);
    default:
        return HV_INVALID;
    }
}

static enum hv_status unmap_pirq(struct hv_core *core, uint32_t caller, const struct hv_unmap_pirq *unmap)
{
    uint32_t domain;
    enum hv_status status = hv_domain_named(core, caller, unmap->domid, &domain);

    if (status != HV_OK)
        return status;
    return unmap->pirq < 0 ? HV_INVALID : hv_unmap_pirq(core, domain, (uint32_t)unmap->pirq);
}

static enum hv_status get_free_pirq(const struct hv_core *core, uint32_t caller, struct hv_get_free_pirq *get)
{
    uint32_t pirq;

    if (get->type != HV_MAP_PIRQ_MSI && get->type != HV_MAP_PIRQ_GSI && get->type != HV_MAP_PIRQ_MSI_SEG)
        return HV_INVALID;
    pirq = hv_pirq_find(&core->domain[caller], hv_pirq_from(core, get->type), 1);
    if (pirq == HV_NONE)
        return HV_NO_SPACE;
    get->pirq = pirq;
    return HV_OK;
}

static enum hv_status pci_mmcfg_reserved(struct hv_core *core, const struct hv_pci_mmcfg_reserved *reserved)
{
    if (reserved->flags & ~HV_PCI_MMCFG_RESERVED)
        return HV_INVALID;
    for (uint32_t i = 0; i < core->ecam_ranges; i++) {
        struct hv_ecam_range *range = &core->ecam[i];

        if (range->address == reserved->address && range->segment == reserved->segment &&
            range->start_bus <= reserved->start_bus && reserved->start_bus <= reserved->end_bus &&
            reserved->end_bus <= range->end_bus) {
            range->reserved = (reserved->flags & HV_PCI_MMCFG_RESERVED) != 0;
            return HV_OK;
        }
    }
    return HV_NO_DEVICE;
}

static uint32_t sbdf_of(const struct hv_pci_device *device)
{
    return hv_sbdf(device->seg, device->bus, device->devfn);
}

static enum hv_status pci_device_reset(struct hv_core *core, const struct hv_pci_device_reset *reset)
{
    struct hv_function *function = hv_function_find(core, sbdf_of(&reset->dev));

    if (reset->flags > 3)
        return HV_INVALID;
    if (function == NULL)
        return HV_NO_DEVICE;
    hv_function_quiet(core, function);
    return HV_OK;
}

static enum hv_status physdev(struct hv_core *core, uint32_t caller, uint32_t command, union hv_argument *argument)
{
    struct hv_apic *apic = &argument->apic;

    switch (command) {
    case HV_PHYSDEVOP_IRQ_STATUS_QUERY:
        return hv_irq_status_query(core, caller, &argument->irq_status_query);
    case HV_PHYSDEVOP_APIC_READ:
        return hv_apic_read(core, caller, apic->apic_physbase, apic->reg, &apic->value);
    case HV_PHYSDEVOP_APIC_WRITE:
        return hv_apic_write(core, caller, apic->apic_physbase, apic->reg, apic->value);
    case HV_PHYSDEVOP_ALLOC_IRQ_VECTOR:
        return hv_alloc_irq_vector(core, caller, &argument->alloc_irq_vector);
    case HV_PHYSDEVOP_EOI:
        return hv_eoi(core, caller, argument->eoi.irq);
    case HV_PHYSDEVOP_MAP_PIRQ:
        return map_pirq(core, caller, &argument->map_pirq);
    case HV_PHYSDEVOP_UNMAP_PIRQ:
        return unmap_pirq(core, caller, &argument->unmap_pirq);
    case HV_PHYSDEVOP_SETUP_GSI:
        return hv_setup_gsi(core, caller, &argument->setup_gsi);
    case HV_PHYSDEVOP_GET_FREE_PIRQ:
        return get_free_pirq(core, caller, &argument->get_free_pirq);
    default:
        break;
    }
    /* What is left tells the core about the machine: domain 0's business. */
    if (caller != 0)
        return HV_NOT_PERMITTED;
    switch (command) {
    case HV_PHYSDEVOP_PCI_MMCFG_RESERVED:
        return pci_mmcfg_reserved(core, &argument->pci_mmcfg_reserved);
    case HV_PHYSDEVOP_PCI_DEVICE_ADD:
        return hv_function_add(core, &argument->pci_device_add);
    case HV_PHYSDEVOP_PCI_DEVICE_REMOVE:
        return hv_function_remove(core, sbdf_of(&argument->pci_device_remove));
    default:
        return pci_device_reset(core, &argument->pci_device_reset);
    }
}

/* ---- Our own ---- */

static void information(const struct hv_core *core, struct hv_information *out)
{
    struct hv_header header = out->header;

    *out = (struct hv_information){
        .header = header,
        .features = core->features,
        .mode = core->mode,
        .limit_cpus = HV_LIMIT_CPUS,
        .limit_ioapics = HV_LIMIT_IOAPICS,
        .limit_domains = HV_LIMIT_DOMAINS,
        .limit_pirqs = HV_LIMIT_PIRQS,
        .limit_functions = HV_LIMIT_FUNCTIONS,
        .limit_messages = HV_LIMIT_MESSAGES,
        .cpus = core->cpus.count,
        .ioapics = core->ioapics,
        .gsis = core->gsis,
        .domains = core->domains,
        .functions = core->functions,
        .messages = core->messages,
        .reports = core->reports,
        .reports_lost = core->reports_lost,
        .calls = core->calls,
        .calls_refused = core->calls_refused,
        .bytes = sizeof(*core),
        .entry_format = core->entry_format,
        .message_format = core->message_format,
        .trapped = core->trapped,
        .trapped_refused = core->trapped_refused,
    };
}

static enum hv_status ioapic_add(struct hv_core *core, struct hv_ioapic_add *add)
{
    enum hv_status status = hv_ioapic_take(core, add->address, add->gsi_base, true, &add->pins);

    if (status == HV_OK)
        hv_shared_update(core);
    return status;
}

static enum hv_status ioapic_remove(struct hv_core *core, const struct hv_ioapic_remove *remove)
{
    enum hv_status status = hv_ioapic_remove(core, remove->address);

    if (status == HV_OK)
        hv_shared_update(core);
    return status;
}

static enum hv_status read_report(const struct hv_core *core, struct hv_read_report *read)
{
    const struct hv_report *report;

    if (read->index >= core->reports)
        return HV_NOT_FOUND;
    report = &core->report[read->index];
    read->code = report->code;
    read->where = report->where;
    read->value = report->value;
    return HV_OK;
}

/* What only domain 0 may ask. */
static enum hv_status privileged(struct hv_core *core, uint32_t command, union hv_argument *argument)
{
    uint32_t domain;
    enum hv_status status;

    switch (command) {
    case HV_OP_MAP_SHARED_INFO:
        return hv_map_shared_info(core, argument->map_shared_info.guest_physical);
    case HV_OP_HAND_OVER:
        return hv_hand_over(core, &argument->hand_over);
    case HV_OP_IOAPIC_ADD:
        return ioapic_add(core, &argument->ioapic_add);
    case HV_OP_IOAPIC_REMOVE:
        return ioapic_remove(core, &argument->ioapic_remove);
    case HV_OP_DOMAIN_CREATE:
        return hv_domain_create(core, &argument->domain_create);
    case HV_OP_READ_REPORT:
        return read_report(core, &argument->read_report);
    default:
        break;
    }
    /* The rest names a domain, in the same place. */
    status = hv_domain_named(core, 0, argument->domain_destroy.domain, &domain);
    if (status != HV_OK)
        return status;
    switch (command) {
    case HV_OP_DOMAIN_DESTROY:
        return hv_domain_destroy(core, domain);
    case HV_OP_ASSIGN_DEVICE:
        return hv_assign_device(core, domain, &argument->assign_device.device);
    case HV_OP_RELEASE_DEVICE:
        return hv_release_device(core, domain, &argument->assign_device.device);
    case HV_OP_ASSIGN_GSI:
        return hv_assign_gsi(core, domain, argument->assign_gsi.gsi);
    default:
        return hv_release_gsi(core, domain, argument->assign_gsi.gsi);
    }
}

_Static_assert(offsetof(struct hv_domain_destroy, domain) == 8 && offsetof(struct hv_assign_device, domain) == 8 &&
                   offsetof(struct hv_assign_gsi, domain) == 8 && offsetof(struct hv_query_vector, domain) == 8 &&
                   offsetof(struct hv_set_affinity, domain) == 8 && offsetof(struct hv_msi, domain) == 8 &&
                   offsetof(struct hv_read_interrupt, domain) == 8,
               "where a call names a domain, it does so behind the header");

static bool reserved_is_zero(uint32_t command, const union hv_argument *argument)
{
    switch (command) {
    case HV_OP_SET_AFFINITY:
        return argument->set_affinity.zero == 0;
    case HV_OP_DOMAIN_DESTROY:
        return argument->domain_destroy.zero == 0;
    case HV_OP_MSI_READ:
    case HV_OP_MSI_WRITE:
        return argument->msi.zero == 0;
    default:
        return true;
    }
}

static enum hv_status dom0kit(struct hv_core *core, uint32_t caller, uint32_t command, union hv_argument *argument)
{
    uint32_t domain;
    enum hv_status status;

    if (argument->header.version != HV_ABI_VERSION ||
        argument->header.bytes != hv_argument_bytes(HV_HYPERCALL_DOM0KIT, command) || argument->header.zero != 0 ||
        !reserved_is_zero(command, argument))
        return HV_INVALID;
    switch (command) {
    case HV_OP_INFORMATION:
        information(core, &argument->information);
        return HV_OK;
    case HV_OP_QUERY_VECTOR:
    case HV_OP_SET_AFFINITY:
    case HV_OP_READ_INTERRUPT:
    case HV_OP_MSI_READ:
    case HV_OP_MSI_WRITE:
        break;
    default:
        return caller == 0 ? privileged(core, command, argument) : HV_NOT_PERMITTED;
    }
    status = hv_domain_named(core, caller, argument->query_vector.domain, &domain);
    if (status != HV_OK)
        return status;
    switch (command) {
    case HV_OP_QUERY_VECTOR:
        return hv_query_vector(core, domain, &argument->query_vector);
    case HV_OP_SET_AFFINITY:
        return hv_set_affinity(core, domain, &argument->set_affinity);
    case HV_OP_READ_INTERRUPT:
        return hv_read_interrupt(core, domain, &argument->read_interrupt);
    case HV_OP_MSI_READ:
        return hv_msi_read(core, domain, &argument->msi);
    default:
        return hv_msi_write(core, domain, &argument->msi);
    }
}

/* ---- The ways in ---- */

enum hv_status hv_hypercall(struct hv_core *core, uint32_t caller, uint32_t number, uint32_t command,
                            union hv_argument *argument)
{
    enum hv_status status;

    core->operations->lock(core->home);
    core->calls++;
    if (hv_argument_bytes(number, command) == 0)
        status = HV_NO_CALL;
    else if (caller >= HV_LIMIT_DOMAINS || !core->domain[caller].present)
        status = HV_NO_DOMAIN;
    else if (number == HV_HYPERCALL_PHYSDEV)
        status = physdev(core, caller, command, argument);
    else
        status = dom0kit(core, caller, command, argument);
    if (status != HV_OK)
        core->calls_refused++;
    core->operations->unlock(core->home);
    return status;
}

static enum hv_status count_trapped(struct hv_core *core, enum hv_status status)
{
    core->trapped++;
    if (status != HV_OK)
        core->trapped_refused++;
    return status;
}

enum hv_status hv_ioapic_trapped_read(struct hv_core *core, uint32_t caller, uint64_t address, uint32_t reg,
                                      uint32_t *value)
{
    enum hv_status status = HV_NO_DOMAIN;

    core->operations->lock(core->home);
    if (caller < HV_LIMIT_DOMAINS && core->domain[caller].present)
        status = hv_apic_read(core, caller, address, reg, value);
    status = count_trapped(core, status);
    core->operations->unlock(core->home);
    return status;
}

enum hv_status hv_ioapic_trapped_write(struct hv_core *core, uint32_t caller, uint64_t address, uint32_t reg,
                                       uint32_t value)
{
    enum hv_status status = HV_NO_DOMAIN;

    core->operations->lock(core->home);
    if (caller < HV_LIMIT_DOMAINS && core->domain[caller].present)
        status = hv_apic_write(core, caller, address, reg, value);
    status = count_trapped(core, status);
    core->operations->unlock(core->home);
    return status;
}
