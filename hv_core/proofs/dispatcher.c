/* SPDX-License-Identifier: MIT */
/*
 * hv_hypercall, for every caller, number, command and argument, whatever the domains are: each handler is reached only
 * for a domain that is present, those that change the machine only from domain 0, ours only with a good header and
 * reserved fields zero; the argument's size never passes the union; the answer is a status, counted when it is a
 * refusal. The handlers themselves are replaced: what they do is the fuzzers' and the random walk's business.
 */
#include "../core/physdev.c"

#include "proof.h"

static struct hv_core core;
static uint32_t caller;
static union hv_argument argument;
static uint32_t handled; /* how many handlers were reached */

static void lock(void *home)
{
    (void)home;
}

static const struct hv_operations operations = {.lock = lock, .unlock = lock};

static enum hv_status any_status(void)
{
    enum hv_status status = (enum hv_status)(0 - any_u8());

    assume(status >= HV_NOT_SUPPORTED);
    handled++;
    return status;
}

static void demand_domain(uint32_t domain)
{
    assert(domain < HV_LIMIT_DOMAINS && core.domain[domain].present);
    assert(caller == 0 || domain == caller); /* nobody else reaches another domain */
}

static enum hv_status for_domain(uint32_t domain)
{
    demand_domain(domain);
    return any_status();
}

static enum hv_status privileged_only(void)
{
    assert(caller == 0);
    return for_domain(caller);
}

static void demand_header(uint32_t bytes)
{
    assert(argument.header.version == HV_ABI_VERSION && argument.header.bytes == bytes && argument.header.zero == 0);
}

static enum hv_status own_privileged(uint32_t bytes)
{
    demand_header(bytes);
    return privileged_only();
}

static enum hv_status own_for_domain(uint32_t domain, uint32_t bytes)
{
    demand_header(bytes);
    return for_domain(domain);
}

/* ---- Handlers ---- */

enum hv_status hv_domain_named(const struct hv_core *c, uint32_t by, uint32_t named, uint32_t *domain)
{
    (void)c;
    assert(by == caller);
    *domain = named == HV_DOMID_SELF ? by : named;
    if (*domain == by)
        return HV_OK;
    if (by != 0)
        return HV_NOT_PERMITTED;
    return *domain < HV_LIMIT_DOMAINS && core.domain[*domain].present ? HV_OK : HV_NO_DOMAIN;
}

#define HANDLER(name, ...) enum hv_status name(struct hv_core *c, __VA_ARGS__)

HANDLER(hv_irq_status_query, uint32_t by, struct hv_irq_status_query *q)
{
    return for_domain(by);
}

HANDLER(hv_apic_read, uint32_t by, uint64_t address, uint32_t reg, uint32_t *value)
{
    *value = any_u32();
    return for_domain(by);
}

HANDLER(hv_apic_write, uint32_t by, uint64_t address, uint32_t reg, uint32_t value)
{
    return for_domain(by);
}

HANDLER(hv_alloc_irq_vector, uint32_t by, struct hv_alloc_irq_vector *alloc)
{
    return for_domain(by);
}

HANDLER(hv_eoi, uint32_t by, uint32_t irq)
{
    return for_domain(by);
}

HANDLER(hv_map_gsi, uint32_t domain, struct hv_map_pirq *map)
{
    assert(map->type == HV_MAP_PIRQ_GSI);
    return for_domain(domain);
}

HANDLER(hv_map_msi, uint32_t domain, struct hv_map_pirq *map)
{
    assert(map->type == HV_MAP_PIRQ_MSI || map->type == HV_MAP_PIRQ_MSI_SEG || map->type == HV_MAP_PIRQ_MULTI_MSI);
    return for_domain(domain);
}

HANDLER(hv_unmap_pirq, uint32_t domain, uint32_t pirq)
{
    assert(pirq <= 0x7fffffffu);
    return for_domain(domain);
}

HANDLER(hv_setup_gsi, uint32_t by, const struct hv_setup_gsi *setup)
{
    return for_domain(by);
}

HANDLER(hv_function_add, const struct hv_pci_device_add_pxm *add)
{
    return privileged_only();
}

HANDLER(hv_function_remove, uint32_t sbdf)
{
    return privileged_only();
}

struct hv_function *hv_function_find(struct hv_core *c, uint32_t sbdf)
{
    (void)privileged_only();
    return any_bool() ? &core.function[0] : NULL;
}

void hv_function_quiet(struct hv_core *c, struct hv_function *function)
{
    (void)privileged_only();
}

uint32_t hv_pirq_from(const struct hv_core *c, int32_t type)
{
    return any_u32();
}

uint32_t hv_pirq_find(const struct hv_domain *domain, uint32_t from, uint32_t count)
{
    demand_domain((uint32_t)(domain - core.domain));
    return any_u32();
}

HANDLER(hv_map_shared_info, uint64_t at)
{
    return own_privileged(sizeof(struct hv_map_shared_info));
}

HANDLER(hv_hand_over, const struct hv_hand_over *hand_over)
{
    return own_privileged(sizeof(struct hv_hand_over));
}

HANDLER(hv_ioapic_take, uint64_t address, uint32_t gsi_base, bool mask, uint32_t *pins)
{
    assert(mask); /* what appears while we run is silent */
    *pins = any_u32();
    return own_privileged(sizeof(struct hv_ioapic_add));
}

HANDLER(hv_ioapic_remove, uint64_t address)
{
    return own_privileged(sizeof(struct hv_ioapic_remove));
}

void hv_shared_update(struct hv_core *c)
{
    assert(caller == 0);
}

HANDLER(hv_domain_create, struct hv_domain_create *create)
{
    return own_privileged(sizeof(struct hv_domain_create));
}

HANDLER(hv_domain_destroy, uint32_t number)
{
    assert(argument.domain_destroy.zero == 0);
    (void)own_privileged(sizeof(struct hv_domain_destroy));
    return own_for_domain(number, sizeof(struct hv_domain_destroy));
}

HANDLER(hv_assign_device, uint32_t domain, const struct hv_pci_device *device)
{
    (void)own_privileged(sizeof(struct hv_assign_device));
    return own_for_domain(domain, sizeof(struct hv_assign_device));
}

HANDLER(hv_release_device, uint32_t domain, const struct hv_pci_device *device)
{
    (void)own_privileged(sizeof(struct hv_assign_device));
    return own_for_domain(domain, sizeof(struct hv_assign_device));
}

HANDLER(hv_assign_gsi, uint32_t domain, uint32_t gsi)
{
    (void)own_privileged(sizeof(struct hv_assign_gsi));
    return own_for_domain(domain, sizeof(struct hv_assign_gsi));
}

HANDLER(hv_release_gsi, uint32_t domain, uint32_t gsi)
{
    (void)own_privileged(sizeof(struct hv_assign_gsi));
    return own_for_domain(domain, sizeof(struct hv_assign_gsi));
}

HANDLER(hv_query_vector, uint32_t domain, struct hv_query_vector *query)
{
    return own_for_domain(domain, sizeof(struct hv_query_vector));
}

HANDLER(hv_set_affinity, uint32_t domain, const struct hv_set_affinity *affinity)
{
    assert(affinity->zero == 0);
    return own_for_domain(domain, sizeof(struct hv_set_affinity));
}

HANDLER(hv_read_interrupt, uint32_t domain, struct hv_read_interrupt *read)
{
    return own_for_domain(domain, sizeof(struct hv_read_interrupt));
}

HANDLER(hv_msi_read, uint32_t domain, struct hv_msi *msi)
{
    assert(msi->zero == 0);
    return own_for_domain(domain, sizeof(struct hv_msi));
}

HANDLER(hv_msi_write, uint32_t domain, const struct hv_msi *msi)
{
    assert(msi->zero == 0);
    return own_for_domain(domain, sizeof(struct hv_msi));
}

void prove(void)
{
    uint32_t number = any_u32();
    uint32_t command = any_u32();
    uint64_t calls;
    uint64_t refused;
    enum hv_status status;

    core.operations = &operations;
    core.domain[0].present = true;
    for (uint32_t i = 1; i < HV_LIMIT_DOMAINS; i++)
        core.domain[i].present = any_bool();
    core.calls = calls = any_u32();
    core.calls_refused = refused = any_u32();
    core.ecam_ranges = any_u32();
    assume(core.ecam_ranges <= HV_LIMIT_ECAM_RANGES);
    core.reports = any_u32();
    assume(core.reports <= HV_LIMIT_REPORTS);
    __CPROVER_havoc_object(&argument);
    caller = any_u32();

    assert(hv_argument_bytes(number, command) + hv_argument_more_bytes(number, command, &argument) <= sizeof(argument));
    status = hv_hypercall(&core, caller, number, command, &argument);
    assert(status <= HV_OK && status >= HV_NOT_SUPPORTED);
    assert(core.calls == calls + 1 && core.calls_refused == refused + (status != HV_OK));
    if (hv_argument_bytes(number, command) == 0)
        assert(status == HV_NO_CALL && handled == 0);
    else if (caller >= HV_LIMIT_DOMAINS || !core.domain[caller].present)
        assert(status == HV_NO_DOMAIN && handled == 0);
}
