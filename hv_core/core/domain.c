/* SPDX-License-Identifier: MIT */
/*
 * Domains and what is theirs: pIRQs, PCI functions, GSIs. Bookkeeping: no second guest runs yet, but no call reaches
 * what is not its caller's.
 */
#include "internal.h"

/* ---- Domains ---- */

void hv_domain_make(struct hv_core *core, uint32_t number, uint32_t vectors_limit)
{
    struct hv_domain *domain = &core->domain[number];

    domain->present = true;
    domain->vectors_limit = vectors_limit;
    domain->vectors = 0;
    for (uint32_t word = 0; word < HV_WORDS(HV_LIMIT_PIRQS); word++)
        domain->pirq_free[word] = ~0ull;
    for (uint32_t pirq = 0; pirq < HV_LIMIT_PIRQS; pirq++)
        domain->source[pirq] = HV_SOURCE_NONE;
    core->domains++;
}

enum hv_status hv_domain_named(const struct hv_core *core, uint32_t caller, uint32_t named, uint32_t *domain)
{
    *domain = named == HV_DOMID_SELF ? caller : named;
    if (*domain == caller)
        return HV_OK;
    if (caller != 0)
        return HV_NOT_PERMITTED;
    return *domain < HV_LIMIT_DOMAINS && core->domain[*domain].present ? HV_OK : HV_NO_DOMAIN;
}

enum hv_status hv_domain_create(struct hv_core *core, struct hv_domain_create *create)
{
    uint32_t number = create->domain;

    if (number == HV_DOMAIN_ANY) {
        for (number = 1; number < HV_LIMIT_DOMAINS; number++)
            if (!core->domain[number].present)
                break;
        if (number == HV_LIMIT_DOMAINS)
            return HV_NO_SPACE;
    }
    if (number >= HV_LIMIT_DOMAINS)
        return HV_OUT_OF_RANGE;
    if (core->domain[number].present)
        return HV_EXISTS;
    hv_domain_make(core, number, create->vectors);
    create->domain = number;
    return HV_OK;
}

enum hv_status hv_domain_destroy(struct hv_core *core, uint32_t number)
{
    if (number == 0)
        return HV_NOT_PERMITTED;
    for (uint32_t i = 0; i < core->functions; i++) {
        if (core->function[i].domain == number) {
            hv_function_quiet(core, &core->function[i]);
            core->function[i].domain = 0;
        }
    }
    for (uint32_t i = 0; i < HV_LIMIT_IOAPICS; i++)
        for (uint32_t pin = 0; core->ioapic[i].address != 0 && pin < core->ioapic[i].pins; pin++)
            if (core->view[i][pin].domain == number)
                hv_pin_release(core, HV_SOURCE_PIN(i, pin));
    core->domain[number].present = false;
    core->domains--;
    return HV_OK;
}

/* ---- pIRQs ---- */

uint32_t hv_pirq_from(const struct hv_core *core, int32_t type)
{
    if (type == HV_MAP_PIRQ_GSI || core->gsis < 16 || core->gsis >= HV_LIMIT_PIRQS)
        return 16;
    return core->gsis;
}

uint32_t hv_pirq_find(const struct hv_domain *domain, uint32_t from, uint32_t count)
{
    uint32_t run = 0;

    for (uint32_t pirq = from; pirq < HV_LIMIT_PIRQS; pirq++) {
        uint64_t rest = domain->pirq_free[pirq / 64] >> (pirq % 64);

        if (!(rest & 1)) {
            run = 0;
            if (rest == 0)
                pirq |= 63; /* nothing free up to the next word */
        } else if (++run == count) {
            return pirq + 1 - count;
        }
    }
    return HV_NONE;
}

/* ---- PCI functions, by ascending SBDF ---- */

static uint32_t place_of(const struct hv_core *core, uint32_t sbdf)
{
    uint32_t low = 0;
    uint32_t high = core->functions;

    while (low < high) {
        uint32_t middle = (low + high) / 2;

        if (core->function[middle].sbdf < sbdf)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct hv_function *hv_function_find(struct hv_core *core, uint32_t sbdf)
{
    uint32_t place = place_of(core, sbdf);

    if (place == core->functions || core->function[place].sbdf != sbdf)
        return NULL;
    return &core->function[place];
}

enum hv_status hv_function_add(struct hv_core *core, const struct hv_pci_device_add_pxm *add)
{
    const struct hv_pci_device_add *device = &add->device;
    struct hv_function made = {
        .sbdf = hv_sbdf(device->seg, device->bus, device->devfn),
        .flags = device->flags,
        .first_message = HV_NO_MESSAGE,
    };
    struct hv_function *known = hv_function_find(core, made.sbdf);
    struct hv_function *physical = NULL;
    uint32_t place;

    if (device->flags & ~(HV_PCI_DEV_EXTFN | HV_PCI_DEV_VIRTFN | HV_PCI_DEV_PXM))
        return HV_INVALID;
    if (device->flags & HV_PCI_DEV_VIRTFN)
        made.physical = hv_sbdf(device->seg, device->physfn_bus, device->physfn_devfn);
    if (device->flags & HV_PCI_DEV_PXM)
        made.pxm = add->pxm;
    if (known != NULL)
        return known->flags == made.flags && known->physical == made.physical && known->pxm == made.pxm ? HV_OK
                                                                                                        : HV_EXISTS;
    if (device->flags & HV_PCI_DEV_VIRTFN) {
        physical = hv_function_find(core, made.physical);
        if (physical == NULL || (physical->flags & HV_PCI_DEV_VIRTFN))
            return HV_NO_DEVICE;
    }
    if (core->functions >= HV_LIMIT_FUNCTIONS)
        return HV_NO_SPACE;
    if (physical != NULL)
        physical->virtuals++;
    place = place_of(core, made.sbdf);
    for (uint32_t i = core->functions; i > place; i--)
        core->function[i] = core->function[i - 1];
    core->function[place] = made;
    core->functions++;
    return HV_OK;
}

enum hv_status hv_function_remove(struct hv_core *core, uint32_t sbdf)
{
    struct hv_function *function = hv_function_find(core, sbdf);
    uint32_t place = place_of(core, sbdf);

    if (function == NULL)
        return HV_NO_DEVICE;
    if (function->domain != 0 || function->virtuals != 0)
        return HV_BUSY;
    hv_function_quiet(core, function);
    if (function->flags & HV_PCI_DEV_VIRTFN)
        hv_function_find(core, function->physical)->virtuals--;
    core->functions--;
    for (uint32_t i = place; i < core->functions; i++)
        core->function[i] = core->function[i + 1];
    return HV_OK;
}

/* ---- Assignment ---- */

enum hv_status hv_assign_device(struct hv_core *core, uint32_t domain, const struct hv_pci_device *device)
{
    struct hv_function *function = hv_function_find(core, hv_sbdf(device->seg, device->bus, device->devfn));

    if (domain == 0)
        return HV_INVALID;
    if (function == NULL)
        return HV_NO_DEVICE;
    if (function->domain != 0 || function->first_message != HV_NO_MESSAGE)
        return HV_BUSY;
    function->domain = (uint16_t)domain;
    return HV_OK;
}

enum hv_status hv_release_device(struct hv_core *core, uint32_t domain, const struct hv_pci_device *device)
{
    struct hv_function *function = hv_function_find(core, hv_sbdf(device->seg, device->bus, device->devfn));

    if (domain == 0)
        return HV_INVALID;
    if (function == NULL)
        return HV_NO_DEVICE;
    if (function->domain != domain)
        return HV_NOT_FOUND;
    hv_function_quiet(core, function);
    function->domain = 0;
    return HV_OK;
}

enum hv_status hv_assign_gsi(struct hv_core *core, uint32_t domain, uint32_t gsi)
{
    uint16_t source = hv_source_of_gsi(core, gsi);

    if (domain == 0 || source == HV_SOURCE_NONE)
        return HV_INVALID;
    if (hv_pin_in_use(core, source))
        return HV_BUSY;
    hv_pin_release(core, source); /* domain 0 may have had a vector for it */
    core->view[hv_source_ioapic(source)][hv_source_pin(source)].domain = (uint16_t)domain;
    return HV_OK;
}

enum hv_status hv_release_gsi(struct hv_core *core, uint32_t domain, uint32_t gsi)
{
    uint16_t source = hv_source_of_gsi(core, gsi);

    if (domain == 0 || source == HV_SOURCE_NONE)
        return HV_INVALID;
    if (core->view[hv_source_ioapic(source)][hv_source_pin(source)].domain != domain)
        return HV_NOT_FOUND;
    hv_pin_release(core, source);
    return HV_OK;
}
