/* SPDX-License-Identifier: MIT */
/*
 * What is true of a core between any two calls; the fuzzer looks after every event. It includes invariants 2 and 3 of
 * the design: each (processor, vector) pair has one owner, whose binding it is, and whatever a domain has is its own.
 */
#ifndef HV_CORE_INVARIANT_H
#define HV_CORE_INVARIANT_H

#include "../../core/internal.h"

#define IMPLIES(a, b) (!(a) || (b))

/* ---- Vectors ---- */

static inline bool hv_is_bound(struct hv_binding binding)
{
    return binding.vector != 0;
}

static inline bool hv_is_at(struct hv_binding binding, uint32_t cpu, uint32_t vector)
{
    return binding.vector == vector && binding.cpu == cpu;
}

/* The bindings of a source, there being such an IOAPIC, pin or message or not. */
static inline struct hv_binding hv_bound_of(const struct hv_core *core, uint32_t source)
{
    struct hv_binding none = {0};

    if (source == HV_SOURCE_NONE || source >= HV_SOURCES)
        return none;
    if (source < HV_SOURCE_MESSAGE(0))
        return core->ioapic[(source - 1) / HV_PINS].pin[(source - 1) % HV_PINS].bound;
    return core->message[source - HV_SOURCE_MESSAGE(0)].bound;
}

static inline struct hv_binding hv_drained_of(const struct hv_core *core, uint32_t source)
{
    struct hv_binding none = {0};

    if (source == HV_SOURCE_NONE || source >= HV_SOURCES)
        return none;
    if (source < HV_SOURCE_MESSAGE(0))
        return core->ioapic[(source - 1) / HV_PINS].pin[(source - 1) % HV_PINS].drained;
    return core->message[source - HV_SOURCE_MESSAGE(0)].drained;
}

/* One vector of a processor: free exactly when usable and nobody's; its owner has it as a binding. */
static inline bool hv_vector_holds(const struct hv_core *core, uint32_t cpu, uint32_t vector)
{
    uint32_t owner = core->cpus.cpu[cpu].owner[vector];
    bool free = hv_bit(core->cpus.cpu[cpu].free, vector);
    bool usable = hv_bit(core->cpus.cpu[cpu].usable, vector);

    return free == (usable && owner == HV_SOURCE_NONE) &&
           IMPLIES(usable, vector >= HV_VECTOR_FIRST && vector <= HV_VECTOR_LAST) &&
           IMPLIES(owner != HV_SOURCE_NONE, vector != 0 && (hv_is_at(hv_bound_of(core, owner), cpu, vector) ||
                                                            hv_is_at(hv_drained_of(core, owner), cpu, vector)));
}

/* ...and the other way round; a pair is bound and drained at once by nobody. */
static inline bool hv_binding_holds(const struct hv_core *core, struct hv_binding binding, uint32_t source)
{
    return IMPLIES(hv_is_bound(binding),
                   binding.cpu < core->cpus.count && core->cpus.cpu[binding.cpu].owner[binding.vector] == source) &&
           IMPLIES(!hv_is_bound(binding), binding.cpu == 0) && binding.zero == 0;
}

static inline bool hv_bindings_hold(const struct hv_core *core, struct hv_binding bound, struct hv_binding drained,
                                    uint32_t source)
{
    return hv_binding_holds(core, bound, source) && hv_binding_holds(core, drained, source) &&
           IMPLIES(hv_is_bound(drained), hv_is_bound(bound) && !hv_is_at(bound, drained.cpu, drained.vector));
}

/* The index of processors that can give a run; APIC ids in order. */
static inline bool hv_cpus_hold(const struct hv_core *core)
{
    bool holds = core->cpus.count <= HV_LIMIT_CPUS && core->cpus.next < HV_LIMIT_CPUS;

    for (uint32_t order = 0; order < HV_RUN_ORDERS; order++) {
        for (uint32_t cpu = 0; cpu < HV_LIMIT_CPUS; cpu++) {
            bool can = cpu < core->cpus.count && core->cpus.cpu[cpu].apic_id <= core->cpus.reachable &&
                       hv_run_find(&core->cpus.cpu[cpu], order) != 0;

            holds = holds && hv_bit(core->cpus.can_give[order].word, cpu) == can;
        }
        for (uint32_t word = 0; word < HV_WORDS(HV_LIMIT_CPUS); word++)
            holds = holds &&
                    (core->cpus.can_give[order].summary >> word & 1) == (core->cpus.can_give[order].word[word] != 0);
    }
    for (uint32_t place = 0; place < HV_LIMIT_CPUS; place++)
        holds = holds && IMPLIES(place < core->cpus.count, core->cpus.by_apic_id[place] < core->cpus.count);
    for (uint32_t place = 1; place < HV_LIMIT_CPUS; place++)
        holds = holds && IMPLIES(place < core->cpus.count, core->cpus.cpu[core->cpus.by_apic_id[place - 1]].apic_id <
                                                               core->cpus.cpu[core->cpus.by_apic_id[place]].apic_id);
    return holds;
}

/* ---- Domains, pIRQs, pins, messages ---- */

static inline bool hv_domain_is(const struct hv_core *core, uint32_t domain)
{
    return domain < HV_LIMIT_DOMAINS && core->domain[domain].present;
}

/* A pIRQ of a domain is free, or leads to what is the domain's and leads back. */
static inline bool hv_pirq_holds(const struct hv_core *core, uint32_t domain, uint32_t pirq)
{
    uint32_t source = core->domain[domain].source[pirq];
    bool free = hv_bit(core->domain[domain].pirq_free, pirq);

    if (source == HV_SOURCE_NONE)
        return free;
    if (source < HV_SOURCE_MESSAGE(0)) {
        uint32_t ioapic = (source - 1) / HV_PINS;
        uint32_t pin = (source - 1) % HV_PINS;

        return !free && core->ioapic[ioapic].address != 0 && pin < core->ioapic[ioapic].pins &&
               core->view[ioapic][pin].domain == domain && core->view[ioapic][pin].pirq == pirq;
    }
    return !free && source < HV_SOURCES && core->message[source - HV_SOURCE_MESSAGE(0)].kind != HV_KIND_NONE &&
           core->message[source - HV_SOURCE_MESSAGE(0)].domain == domain &&
           core->message[source - HV_SOURCE_MESSAGE(0)].pirq == pirq;
}

static inline bool hv_pin_holds(const struct hv_core *core, uint32_t ioapic, uint32_t pin)
{
    const struct hv_pin *physical = &core->ioapic[ioapic].pin[pin];
    const struct hv_pin_view *view = &core->view[ioapic][pin];

    /* What is gone has left nothing behind. */
    if (core->ioapic[ioapic].address == 0 || pin >= core->ioapic[ioapic].pins)
        return !hv_is_bound(physical->bound) && !hv_is_bound(physical->drained);
    return hv_domain_is(core, view->domain) && (view->pirq == HV_NO_PIRQ) == (view->users == 0) &&
           IMPLIES(view->pirq != HV_NO_PIRQ,
                   view->pirq < HV_LIMIT_PIRQS &&
                       core->domain[view->domain].source[view->pirq] == HV_SOURCE_PIN(ioapic, pin)) &&
           (view->entry & HV_ENTRY_STATUS) == 0 && (physical->entry & HV_ENTRY_STATUS) == 0 &&
           hv_bindings_hold(core, physical->bound, physical->drained, HV_SOURCE_PIN(ioapic, pin)) &&
           core->gsi_source[core->ioapic[ioapic].gsi_base + pin] == HV_SOURCE_PIN(ioapic, pin);
}

static inline bool hv_gsi_holds(const struct hv_core *core, uint32_t gsi)
{
    uint32_t source = core->gsi_source[gsi];
    uint32_t ioapic = (source - 1) / HV_PINS;
    uint32_t pin = (source - 1) % HV_PINS;

    return source == HV_SOURCE_NONE || (source < HV_SOURCE_MESSAGE(0) && core->ioapic[ioapic].address != 0 &&
                                        pin < core->ioapic[ioapic].pins && core->ioapic[ioapic].gsi_base + pin == gsi);
}

static inline bool hv_ioapics_hold(const struct hv_core *core)
{
    uint32_t present = 0;
    uint32_t gsis = 0;
    bool holds = true;

    for (uint32_t i = 0; i < HV_LIMIT_IOAPICS; i++) {
        bool is = core->ioapic[i].address != 0;
        uint32_t end = core->ioapic[i].gsi_base + core->ioapic[i].pins;

        holds = holds && core->ioapic[i].pins <= HV_PINS && core->ioapic[i].gsi_base <= HV_LIMIT_GSIS &&
                end <= HV_LIMIT_GSIS && IMPLIES(is, core->ioapic[i].pins >= 1);
        present += is;
        gsis = is && end > gsis ? end : gsis;
        for (uint32_t k = 0; k < i; k++)
            holds = holds && IMPLIES(is, core->ioapic[k].address != core->ioapic[i].address);
    }
    return holds && core->ioapics == present && core->gsis == gsis;
}

static inline bool hv_message_holds(const struct hv_core *core, uint32_t number)
{
    const struct hv_message *message = &core->message[number];
    bool free = hv_bit(core->message_free, number);

    if (message->kind == HV_KIND_NONE)
        return free && !hv_is_bound(message->bound) && !hv_is_bound(message->drained);
    return !free && (message->kind == HV_KIND_MSI || message->kind == HV_KIND_MSIX) &&
           hv_domain_is(core, message->domain) && message->pirq < HV_LIMIT_PIRQS &&
           core->domain[message->domain].source[message->pirq] == HV_SOURCE_MESSAGE(number) &&
           message->run_order < HV_RUN_ORDERS &&
           hv_bindings_hold(core, message->bound, message->drained, HV_SOURCE_MESSAGE(number)) &&
           IMPLIES(core->mode == HV_MODE_INTERCEPT, hv_is_bound(message->bound));
}

/* ---- Functions and the lists of their messages ---- */

static inline bool hv_function_holds(const struct hv_core *core, uint32_t place)
{
    const struct hv_function *function = &core->function[place];
    uint32_t listed = function->first_message;
    uint32_t owned = 0;
    uint32_t virtuals = 0;
    bool physical_is = false;
    bool holds = hv_domain_is(core, function->domain);

    for (uint32_t i = 0; i < HV_LIMIT_FUNCTIONS; i++) {
        bool is = i < core->functions;

        holds = holds && IMPLIES(is && i < place, core->function[i].sbdf < function->sbdf);
        virtuals += is && (core->function[i].flags & HV_PCI_DEV_VIRTFN) && core->function[i].physical == function->sbdf;
        physical_is = physical_is || (is && core->function[i].sbdf == function->physical &&
                                      !(core->function[i].flags & HV_PCI_DEV_VIRTFN));
    }
    holds = holds && function->virtuals == virtuals && IMPLIES(function->flags & HV_PCI_DEV_VIRTFN, physical_is) &&
            IMPLIES(virtuals != 0, !(function->flags & HV_PCI_DEV_VIRTFN));
    for (uint32_t i = 0; i < HV_LIMIT_MESSAGES; i++)
        owned += core->message[i].kind != HV_KIND_NONE && core->message[i].function == function->sbdf;
    /* The list has as many messages as the function, all of them its own: so no loop, and none is missing. */
    for (uint32_t i = 0; i < HV_LIMIT_MESSAGES; i++) {
        if (i >= owned || !holds)
            break;
        holds = listed < HV_LIMIT_MESSAGES;
        if (!holds)
            break;
        holds = core->message[listed].kind != HV_KIND_NONE && core->message[listed].function == function->sbdf &&
                core->message[listed].domain == function->domain;
        listed = core->message[listed].next;
    }
    return holds && listed == HV_NO_MESSAGE;
}

/* Each message in use is of a function that is there. */
static inline bool hv_message_has_function(const struct hv_core *core, uint32_t number)
{
    bool is = core->message[number].kind == HV_KIND_NONE;

    for (uint32_t i = 0; i < HV_LIMIT_FUNCTIONS; i++)
        is = is || (i < core->functions && core->function[i].sbdf == core->message[number].function);
    return is;
}

/* ---- Counts ---- */

static inline bool hv_counts_hold(const struct hv_core *core)
{
    uint32_t domains = 0;
    uint32_t messages = 0;
    uint32_t vectors[HV_LIMIT_DOMAINS] = {0};
    bool holds = core->functions <= HV_LIMIT_FUNCTIONS && core->ecam_ranges <= HV_LIMIT_ECAM_RANGES &&
                 core->reports <= HV_LIMIT_REPORTS && core->domain[0].present;

    for (uint32_t i = 0; i < HV_LIMIT_IOAPICS; i++)
        for (uint32_t pin = 0; pin < HV_PINS; pin++)
            for (uint32_t domain = 0; domain < HV_LIMIT_DOMAINS; domain++)
                if (core->view[i][pin].domain == domain)
                    vectors[domain] += (uint32_t)hv_is_bound(core->ioapic[i].pin[pin].bound) +
                                       (uint32_t)hv_is_bound(core->ioapic[i].pin[pin].drained);
    for (uint32_t i = 0; i < HV_LIMIT_MESSAGES; i++) {
        messages += core->message[i].kind != HV_KIND_NONE;
        for (uint32_t domain = 0; domain < HV_LIMIT_DOMAINS; domain++)
            if (core->message[i].domain == domain)
                vectors[domain] +=
                    (uint32_t)hv_is_bound(core->message[i].bound) + (uint32_t)hv_is_bound(core->message[i].drained);
    }
    for (uint32_t domain = 0; domain < HV_LIMIT_DOMAINS; domain++) {
        domains += core->domain[domain].present;
        holds = holds && IMPLIES(core->domain[domain].present, core->domain[domain].vectors == vectors[domain]);
    }
    return holds && core->domains == domains && core->messages == messages;
}

/* All of it, but for single vectors: those by hv_vector_holds. */
static inline bool hv_books_hold(const struct hv_core *core)
{
    bool holds = hv_cpus_hold(core) && hv_ioapics_hold(core) && hv_counts_hold(core);

    for (uint32_t gsi = 0; gsi < HV_LIMIT_GSIS; gsi++)
        holds = holds && hv_gsi_holds(core, gsi);
    for (uint32_t i = 0; i < HV_LIMIT_IOAPICS; i++)
        for (uint32_t pin = 0; pin < HV_PINS; pin++)
            holds = holds && hv_pin_holds(core, i, pin);
    for (uint32_t i = 0; i < HV_LIMIT_MESSAGES; i++)
        holds = holds && hv_message_holds(core, i) && hv_message_has_function(core, i);
    for (uint32_t i = 0; i < HV_LIMIT_FUNCTIONS; i++)
        holds = holds && IMPLIES(i < core->functions, hv_function_holds(core, i));
    for (uint32_t domain = 0; domain < HV_LIMIT_DOMAINS; domain++)
        for (uint32_t pirq = 0; pirq < HV_LIMIT_PIRQS; pirq++)
            holds = holds && IMPLIES(core->domain[domain].present, hv_pirq_holds(core, domain, pirq));
    return holds;
}

#endif
