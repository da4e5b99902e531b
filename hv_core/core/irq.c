/* SPDX-License-Identifier: MIT */
/* Interrupts of a domain: from a GSI, pIRQ or entry to a (processor, vector) pair, and back when one arrives. */
#include "internal.h"

#define SEARCHED_A_CALL 4096u /* sources that hv_read_interrupt looks at under the lock */

static struct hv_pin *pin_of(struct hv_core *core, uint16_t source)
{
    return &core->ioapic[hv_source_ioapic(source)].pin[hv_source_pin(source)];
}

static struct hv_pin_view *view_of(struct hv_core *core, uint16_t source)
{
    return &core->view[hv_source_ioapic(source)][hv_source_pin(source)];
}

static bool same_binding(struct hv_binding a, struct hv_binding b)
{
    return a.cpu == b.cpu && a.vector == b.vector;
}

/* ---- Names of an interrupt ---- */

uint16_t hv_source_of_gsi(const struct hv_core *core, uint32_t gsi)
{
    return gsi < HV_LIMIT_GSIS ? core->gsi_source[gsi] : (uint16_t)HV_SOURCE_NONE;
}

uint32_t hv_gsi_of_source(const struct hv_core *core, uint16_t source)
{
    if (!hv_source_is_pin(source))
        return HV_NONE;
    return core->ioapic[hv_source_ioapic(source)].gsi_base + hv_source_pin(source);
}

uint16_t hv_source_of_irq(const struct hv_core *core, uint32_t domain, uint32_t irq)
{
    uint16_t source;
    const struct hv_pin_view *view;

    if (irq < HV_LIMIT_PIRQS && core->domain[domain].source[irq] != HV_SOURCE_NONE)
        return core->domain[domain].source[irq];
    source = hv_source_of_gsi(core, irq);
    if (source == HV_SOURCE_NONE)
        return HV_SOURCE_NONE;
    view = &core->view[hv_source_ioapic(source)][hv_source_pin(source)];
    if (view->domain != domain || view->pirq != HV_NO_PIRQ)
        return HV_SOURCE_NONE;
    return source;
}

/* ---- Vectors of a domain, counted ---- */

enum hv_status hv_bind(struct hv_core *core, uint32_t domain, uint32_t cpu, uint32_t order, uint16_t source,
                       struct hv_binding *binding)
{
    struct hv_domain *owner = &core->domain[domain];
    uint32_t count = 1u << order;
    enum hv_status status;

    if (owner->vectors_limit != 0 && owner->vectors + count > owner->vectors_limit)
        return HV_NO_SPACE;
    status = hv_vector_allocate(&core->cpus, cpu, order, source, binding);
    if (status == HV_OK)
        owner->vectors += count;
    return status;
}

enum hv_status hv_claim(struct hv_core *core, uint32_t domain, uint32_t cpu, uint8_t vector, uint16_t source,
                        struct hv_binding *binding)
{
    struct hv_domain *owner = &core->domain[domain];
    enum hv_status status;

    if (owner->vectors_limit != 0 && owner->vectors >= owner->vectors_limit)
        return HV_NO_SPACE;
    status = hv_vector_claim(&core->cpus, cpu, vector, source);
    if (status != HV_OK)
        return status;
    owner->vectors++;
    *binding = (struct hv_binding){.cpu = (uint16_t)cpu, .vector = vector};
    return HV_OK;
}

void hv_unbind(struct hv_core *core, uint32_t domain, struct hv_binding *binding)
{
    if (binding->vector == 0)
        return;
    hv_vector_free(&core->cpus, *binding);
    core->domain[domain].vectors--;
    *binding = (struct hv_binding){0};
}

enum hv_status hv_destination_cpu(const struct hv_core *core, bool logical, uint32_t destination, uint32_t *cpu,
                                  bool *several)
{
    bool found = false;

    *several = false;
    if (!logical) {
        *cpu = hv_cpu_by_apic_id(&core->cpus, destination);
        return *cpu == HV_NONE ? HV_OUT_OF_RANGE : HV_OK;
    }
    /* Only the first eight have an id in the flat model. */
    for (uint32_t i = 0; i < core->cpus.count && i < 8; i++) {
        if (!(core->cpus.cpu[i].logical_id & destination))
            continue;
        if (found)
            *several = true;
        else
            *cpu = i;
        found = true;
    }
    return found ? HV_OK : HV_OUT_OF_RANGE;
}

enum hv_status hv_remap(struct hv_core *core, enum hv_format format, uint16_t source, struct hv_binding binding)
{
    if (core->mode != HV_MODE_INTERCEPT || (format != HV_FORMAT_VTD && format != HV_FORMAT_AMD_VI))
        return HV_OK;
    return core->operations->remap(core->home, source, core->cpus.cpu[binding.cpu].apic_id, binding.vector);
}

/* ---- A pin's view becomes the hardware's entry ---- */

/* Intercept mode: a domain knows nothing of a remapper, which is the core's. */
static enum hv_format view_format(const struct hv_core *core)
{
    if (core->mode == HV_MODE_DIRECT || core->entry_format == HV_FORMAT_EXTENDED_DESTINATION)
        return core->entry_format;
    return HV_FORMAT_COMPATIBILITY;
}

static uint32_t destination_of(uint64_t entry, enum hv_format format)
{
    uint32_t destination = (uint32_t)(entry >> 56);

    if (format == HV_FORMAT_EXTENDED_DESTINATION && !(entry & HV_ENTRY_LOGICAL))
        destination |= (uint32_t)(entry >> 49 & 0x7f) << 8;
    return destination;
}

static enum hv_status destination_cpu(const struct hv_core *core, uint64_t entry, enum hv_format format, uint32_t *cpu,
                                      bool *several)
{
    bool logical = (entry & HV_ENTRY_LOGICAL) != 0;
    uint32_t destination = destination_of(entry, format);

    if (hv_destination_is_everybody(format, logical, destination))
        return HV_OUT_OF_RANGE;
    return hv_destination_cpu(core, logical, destination, cpu, several);
}

/* VT-d's table serves many devices, AMD's is the IOAPIC's own. */
static uint16_t handle_of(const struct hv_core *core, uint16_t source)
{
    return core->entry_format == HV_FORMAT_AMD_VI ? (uint16_t)hv_source_pin(source) : source;
}

/* Direct mode: the entry goes into the hardware as it is; the vector it names is taken into the books. */
static enum hv_status set_direct(struct hv_core *core, uint16_t source, uint64_t entry)
{
    struct hv_pin *pin = pin_of(core, source);
    struct hv_pin_view *view = view_of(core, source);
    struct hv_binding bound = {0};
    enum hv_status status;
    bool several = true;
    uint32_t cpu = 0;

    if (!(entry & HV_ENTRY_MASKED) && !hv_entry_is_remapped(entry, core->entry_format)) {
        status = destination_cpu(core, entry, view_format(core), &cpu, &several);
        if (status != HV_OK)
            return status;
    }
    if (!several) {
        bound = (struct hv_binding){.cpu = (uint16_t)cpu, .vector = (uint8_t)entry};
        if (!same_binding(bound, pin->bound)) {
            status = hv_claim(core, view->domain, cpu, (uint8_t)entry, source, &bound);
            if (status != HV_OK)
                return status;
        }
    }
    status = hv_pin_program(core, &core->ioapic[hv_source_ioapic(source)], hv_source_pin(source), entry);
    if (!same_binding(bound, pin->bound))
        hv_unbind(core, view->domain, status == HV_OK ? &pin->bound : &bound);
    if (status != HV_OK)
        return status;
    pin->bound = bound;
    view->entry = entry;
    return HV_OK;
}

/* What the hardware shall hold for a view, given where the interrupt goes. */
static uint64_t hardware_entry(const struct hv_core *core, uint16_t source, uint64_t entry, struct hv_binding bound)
{
    const struct hv_ioapic *ioapic = &core->ioapic[hv_source_ioapic(source)];
    uint64_t now = ioapic->pin[hv_source_pin(source)].entry;
    uint64_t wiring = HV_ENTRY_LEVEL | HV_ENTRY_ACTIVE_LOW;
    bool masked = (entry & HV_ENTRY_MASKED) != 0;

    /* A pure mask touches nothing else; an entry without a vector stays masked. */
    if (masked && (bound.vector == 0 || ((entry ^ now) & wiring) == 0))
        return (now & ~wiring) | (entry & wiring) | HV_ENTRY_MASKED;
    return hv_entry_compose(core->entry_format, core->cpus.cpu[bound.cpu].apic_id, bound.vector,
                            handle_of(core, source), (entry & HV_ENTRY_LEVEL) != 0, (entry & HV_ENTRY_ACTIVE_LOW) != 0,
                            masked);
}

/* Intercept mode: programs a view with a binding, which replaces the pin's own; a refusal changes nothing. */
static enum hv_status set_bound(struct hv_core *core, uint16_t source, uint64_t entry, struct hv_binding bound)
{
    struct hv_pin *pin = pin_of(core, source);
    struct hv_pin_view *view = view_of(core, source);
    bool moves = !same_binding(bound, pin->bound);
    enum hv_status status = HV_OK;

    if (moves)
        status = hv_remap(core, core->entry_format, source, bound);
    if (status == HV_OK) {
        status = hv_pin_program(core, &core->ioapic[hv_source_ioapic(source)], hv_source_pin(source),
                                hardware_entry(core, source, entry, bound));
        if (status != HV_OK && moves && pin->bound.vector != 0)
            (void)hv_remap(core, core->entry_format, source, pin->bound);
    }
    if (status != HV_OK)
        return status;
    if (moves) {
        if (pin->live)
            pin->drained = pin->bound;
        else
            hv_unbind(core, view->domain, &pin->bound);
        pin->bound = bound;
        pin->live = false;
    }
    if (!(entry & HV_ENTRY_MASKED))
        pin->live = true;
    view->entry = entry;
    return HV_OK;
}

static enum hv_status set_intercepted(struct hv_core *core, uint16_t source, uint64_t entry)
{
    struct hv_pin *pin = pin_of(core, source);
    uint32_t domain = view_of(core, source)->domain;
    struct hv_binding bound = pin->bound;
    enum hv_status status;
    bool several;
    uint32_t cpu = 0;

    if (!(entry & HV_ENTRY_MASKED)) {
        status = destination_cpu(core, entry, view_format(core), &cpu, &several);
        if (status != HV_OK)
            return status;
        if (bound.vector == 0 || bound.cpu != cpu) {
            if (pin->drained.vector != 0)
                return HV_TRY_AGAIN;
            status = hv_bind(core, domain, cpu, 0, source, &bound);
            if (status != HV_OK)
                return status;
        }
    }
    status = set_bound(core, source, entry, bound);
    if (status != HV_OK && !same_binding(bound, pin->bound))
        hv_unbind(core, domain, &bound);
    return status;
}

enum hv_status hv_pin_set_view(struct hv_core *core, uint16_t source, uint64_t entry)
{
    enum hv_status status = hv_entry_check(entry, view_of(core, source)->entry, view_format(core));

    if (status != HV_OK)
        return status;
    return core->mode == HV_MODE_DIRECT ? set_direct(core, source, entry) : set_intercepted(core, source, entry);
}

void hv_pin_adopt(struct hv_core *core, uint16_t source)
{
    struct hv_pin *pin = pin_of(core, source);
    uint64_t entry = pin->entry;
    uint32_t cpu;
    bool several;

    if ((entry & HV_ENTRY_MASKED) || hv_entry_is_remapped(entry, core->entry_format) ||
        hv_entry_check(entry, entry, core->entry_format) != HV_OK)
        return;
    if (destination_cpu(core, entry, core->entry_format, &cpu, &several) != HV_OK || several)
        return;
    if (hv_claim(core, 0, cpu, (uint8_t)entry, source, &pin->bound) == HV_OK)
        pin->live = true;
}

/* The entry is masked and has no vector; trigger, polarity and whatever else was in it stay. */
static void silence(struct hv_core *core, uint16_t source)
{
    struct hv_pin *pin = pin_of(core, source);
    struct hv_pin_view *view = view_of(core, source);

    /* A pure mask is never refused. */
    (void)hv_pin_program(core, &core->ioapic[hv_source_ioapic(source)], hv_source_pin(source),
                         pin->entry | HV_ENTRY_MASKED);
    hv_unbind(core, view->domain, &pin->bound);
    hv_unbind(core, view->domain, &pin->drained);
    pin->live = false;
    view->entry |= HV_ENTRY_MASKED;
    view->set_up = false;
}

static void forget_pirq(struct hv_core *core, struct hv_pin_view *view)
{
    struct hv_domain *domain = &core->domain[view->domain];

    if (view->pirq == HV_NO_PIRQ)
        return;
    domain->source[view->pirq] = HV_SOURCE_NONE;
    hv_bit_set(domain->pirq_free, view->pirq);
    view->pirq = HV_NO_PIRQ;
    view->users = 0;
}

void hv_pin_release(struct hv_core *core, uint16_t source)
{
    struct hv_pin_view *view = view_of(core, source);

    silence(core, source);
    forget_pirq(core, view);
    view->domain = 0;
}

bool hv_pin_in_use(const struct hv_core *core, uint16_t source)
{
    const struct hv_pin_view *view = &core->view[hv_source_ioapic(source)][hv_source_pin(source)];

    return view->domain != 0 || view->pirq != HV_NO_PIRQ || view->set_up || !(view->entry & HV_ENTRY_MASKED);
}

/* ---- The calls ---- */

enum hv_status hv_irq_status_query(struct hv_core *core, uint32_t caller, struct hv_irq_status_query *query)
{
    uint16_t source = hv_source_of_irq(core, caller, query->irq);
    const struct hv_pin_view *view;

    if (source == HV_SOURCE_NONE)
        return HV_INVALID;
    query->flags = 0;
    if (!hv_source_is_pin(source))
        return HV_OK;
    view = view_of(core, source);
    if (view->entry & HV_ENTRY_LEVEL)
        query->flags |= HV_IRQ_STATUS_NEEDS_EOI;
    if (view->users > 1)
        query->flags |= HV_IRQ_STATUS_SHARED;
    return HV_OK;
}

/* Intercept mode: a vector for a pin that has none; the hardware's entry carries it from the next write on. */
static enum hv_status bind_pin(struct hv_core *core, uint16_t source)
{
    struct hv_pin *pin = pin_of(core, source);
    const struct hv_pin_view *view = view_of(core, source);
    struct hv_binding bound;
    enum hv_status status;
    bool several;
    uint32_t cpu;

    if (pin->bound.vector != 0)
        return HV_OK;
    status = destination_cpu(core, view->entry, view_format(core), &cpu, &several);
    if (status == HV_OK)
        status = hv_bind(core, view->domain, cpu, 0, source, &bound);
    if (status != HV_OK)
        status = hv_bind(core, view->domain, HV_NONE, 0, source, &bound);
    if (status != HV_OK)
        return status;
    status = hv_remap(core, core->entry_format, source, bound);
    if (status != HV_OK) {
        hv_unbind(core, view->domain, &bound);
        return status;
    }
    pin->bound = bound;
    pin->live = false;
    return HV_OK;
}

static struct hv_binding binding_of(struct hv_core *core, uint16_t source)
{
    return hv_source_is_pin(source) ? pin_of(core, source)->bound : core->message[hv_source_message(source)].bound;
}

/* Direct mode: an unmasked entry or a message for several processors has a vector, but no binding. 0: it is not one. */
static uint32_t vector_for_several(const struct hv_core *core, uint16_t source, uint32_t *destination)
{
    uint64_t entry;
    bool several;
    uint32_t cpu;

    if (core->mode != HV_MODE_DIRECT)
        return 0;
    if (!hv_source_is_pin(source)) {
        const struct hv_message *message = &core->message[hv_source_message(source)];

        if (message->address == 0 || message->bound.vector != 0 ||
            hv_message_is_remapped(message->address, core->message_format))
            return 0;
        *destination = (uint32_t)(message->address >> 12 & 0xff);
        return message->data & 0xff;
    }
    entry = core->view[hv_source_ioapic(source)][hv_source_pin(source)].entry;
    /* Firmware may have left one that means something else, or nobody. */
    if ((entry & HV_ENTRY_MASKED) || hv_entry_is_remapped(entry, core->entry_format) ||
        hv_entry_check(entry, entry, core->entry_format) != HV_OK ||
        destination_cpu(core, entry, core->entry_format, &cpu, &several) != HV_OK || !several)
        return 0;
    *destination = destination_of(entry, core->entry_format);
    return (uint32_t)(entry & HV_ENTRY_VECTOR);
}

enum hv_status hv_alloc_irq_vector(struct hv_core *core, uint32_t caller, struct hv_alloc_irq_vector *alloc)
{
    uint16_t source = hv_source_of_irq(core, caller, alloc->irq);
    uint32_t destination;
    uint32_t vector;

    if (source == HV_SOURCE_NONE)
        return HV_INVALID;
    if (core->mode == HV_MODE_INTERCEPT && hv_source_is_pin(source)) {
        enum hv_status status = bind_pin(core, source);

        if (status != HV_OK)
            return status;
    }
    vector = binding_of(core, source).vector;
    if (vector == 0)
        vector = vector_for_several(core, source, &destination);
    if (vector == 0)
        return HV_NOT_FOUND;
    alloc->vector = vector;
    return HV_OK;
}

static void end_draining(struct hv_core *core, uint16_t source)
{
    if (hv_source_is_pin(source)) {
        hv_unbind(core, view_of(core, source)->domain, &pin_of(core, source)->drained);
    } else {
        struct hv_message *message = &core->message[hv_source_message(source)];

        hv_unbind(core, message->domain, &message->drained);
    }
}

enum hv_status hv_eoi(struct hv_core *core, uint32_t caller, uint32_t irq)
{
    uint16_t source = hv_source_of_irq(core, caller, irq);

    if (source == HV_SOURCE_NONE)
        return HV_INVALID;
    if (core->mode == HV_MODE_INTERCEPT && hv_source_is_pin(source) &&
        (view_of(core, source)->entry & HV_ENTRY_LEVEL)) {
        core->operations->ioapic_end(core->home, core->ioapic[hv_source_ioapic(source)].address,
                                     (uint8_t)hv_source_pin(source), pin_of(core, source)->bound.vector);
    }
    end_draining(core, source);
    return HV_OK;
}

enum hv_status hv_map_gsi(struct hv_core *core, uint32_t domain, struct hv_map_pirq *map)
{
    struct hv_domain *owner = &core->domain[domain];
    struct hv_pin_view *view;
    uint32_t pirq = (uint32_t)map->pirq;
    uint16_t source;

    source = map->index < 0 ? (uint16_t)HV_SOURCE_NONE : hv_source_of_gsi(core, (uint32_t)map->index);
    if (source == HV_SOURCE_NONE)
        return HV_INVALID;
    view = view_of(core, source);
    if (view->domain != domain)
        return HV_NOT_PERMITTED;
    if (view->pirq != HV_NO_PIRQ) {
        if (!(view->entry & HV_ENTRY_LEVEL) || (map->pirq >= 0 && pirq != view->pirq))
            return HV_EXISTS;
        if (view->users == 0xffffu)
            return HV_NO_SPACE;
        view->users++;
        map->pirq = view->pirq;
        return HV_OK;
    }
    if (map->pirq < 0) {
        pirq = hv_pirq_find(owner, hv_pirq_from(core, HV_MAP_PIRQ_GSI), 1);
        if (pirq == HV_NONE)
            return HV_NO_SPACE;
    } else if (pirq >= HV_LIMIT_PIRQS) {
        return HV_OUT_OF_RANGE;
    } else if (!hv_bit(owner->pirq_free, pirq)) {
        return HV_EXISTS;
    }
    hv_bit_clear(owner->pirq_free, pirq);
    owner->source[pirq] = source;
    view->pirq = (uint16_t)pirq;
    view->users = 1;
    map->pirq = (int32_t)pirq;
    return HV_OK;
}

enum hv_status hv_unmap_pirq(struct hv_core *core, uint32_t domain, uint32_t pirq)
{
    uint16_t source = pirq < HV_LIMIT_PIRQS ? core->domain[domain].source[pirq] : (uint16_t)HV_SOURCE_NONE;

    if (source == HV_SOURCE_NONE)
        return HV_INVALID;
    if (!hv_source_is_pin(source)) {
        hv_message_release(core, hv_source_message(source));
        return HV_OK;
    }
    if (--view_of(core, source)->users == 0) {
        silence(core, source);
        forget_pirq(core, view_of(core, source));
    }
    return HV_OK;
}

enum hv_status hv_setup_gsi(struct hv_core *core, uint32_t caller, const struct hv_setup_gsi *setup)
{
    uint16_t source;
    struct hv_pin *pin;
    struct hv_pin_view *view;
    uint64_t entry;
    enum hv_status status;
    bool had_vector;

    source = setup->gsi < 0 ? (uint16_t)HV_SOURCE_NONE : hv_source_of_gsi(core, (uint32_t)setup->gsi);
    if (source == HV_SOURCE_NONE || setup->triggering > 1 || setup->polarity > 1)
        return HV_INVALID;
    pin = pin_of(core, source);
    view = view_of(core, source);
    if (view->domain != caller)
        return HV_NOT_PERMITTED;
    if (view->set_up)
        return HV_EXISTS;
    entry = (view->entry & ~(HV_ENTRY_LEVEL | HV_ENTRY_ACTIVE_LOW)) | (setup->triggering ? HV_ENTRY_LEVEL : 0) |
            (setup->polarity ? HV_ENTRY_ACTIVE_LOW : 0);
    had_vector = pin->bound.vector != 0;
    if (core->mode == HV_MODE_INTERCEPT) {
        status = bind_pin(core, source);
        if (status != HV_OK)
            return status;
    }
    status = hv_pin_set_view(core, source, entry);
    if (status != HV_OK) {
        if (!had_vector && core->mode == HV_MODE_INTERCEPT)
            hv_unbind(core, caller, &pin->bound);
        return status;
    }
    view->set_up = true;
    return HV_OK;
}

static uint32_t flags_of(struct hv_core *core, uint16_t source)
{
    const struct hv_pin_view *view;
    uint32_t flags = 0;

    if (!hv_source_is_pin(source)) {
        const struct hv_message *message = &core->message[hv_source_message(source)];

        if (message->drained.vector != 0)
            flags |= HV_INTERRUPT_DRAINING;
        if (core->mode == HV_MODE_DIRECT && message->address != 0 &&
            hv_message_is_remapped(message->address, core->message_format))
            flags |= HV_INTERRUPT_REMAPPED;
        return flags;
    }
    view = view_of(core, source);
    if (view->entry & HV_ENTRY_MASKED)
        flags |= HV_INTERRUPT_MASKED;
    if (view->entry & HV_ENTRY_LEVEL)
        flags |= HV_INTERRUPT_LEVEL;
    if (view->entry & HV_ENTRY_ACTIVE_LOW)
        flags |= HV_INTERRUPT_ACTIVE_LOW;
    if (view->users > 1)
        flags |= HV_INTERRUPT_SHARED;
    if (view->set_up)
        flags |= HV_INTERRUPT_SET_UP;
    if (pin_of(core, source)->drained.vector != 0)
        flags |= HV_INTERRUPT_DRAINING;
    if (core->mode == HV_MODE_DIRECT && hv_entry_is_remapped(view->entry, core->entry_format))
        flags |= HV_INTERRUPT_REMAPPED;
    return flags;
}

enum hv_status hv_query_vector(struct hv_core *core, uint32_t domain, struct hv_query_vector *query)
{
    uint16_t source = hv_source_of_irq(core, domain, query->irq);
    struct hv_binding bound;

    if (source == HV_SOURCE_NONE)
        return HV_INVALID;
    bound = binding_of(core, source);
    if (bound.vector != 0) {
        query->cpu = bound.cpu;
        query->apic_id = core->cpus.cpu[bound.cpu].apic_id;
        query->vector = bound.vector;
    } else {
        query->cpu = HV_NONE;
        query->vector = vector_for_several(core, source, &query->apic_id);
        if (query->vector == 0)
            return HV_NOT_FOUND;
    }
    query->flags = flags_of(core, source);
    return HV_OK;
}

static enum hv_status move_message(struct hv_core *core, uint16_t source, uint32_t cpu)
{
    struct hv_message *message = &core->message[hv_source_message(source)];
    struct hv_binding bound;
    enum hv_status status;

    if (message->run_order != 0)
        return HV_NOT_SUPPORTED;
    status = hv_bind(core, message->domain, cpu, 0, source, &bound);
    if (status != HV_OK)
        return status;
    status = hv_remap(core, core->message_format, source, bound);
    if (status != HV_OK) {
        hv_unbind(core, message->domain, &bound);
        return status;
    }
    message->drained = message->bound;
    message->bound = bound;
    return HV_OK;
}

static enum hv_status move_pin(struct hv_core *core, uint16_t source, uint32_t cpu)
{
    struct hv_pin_view *view = view_of(core, source);
    uint32_t apic_id = core->cpus.cpu[cpu].apic_id;
    bool extended = view_format(core) == HV_FORMAT_EXTENDED_DESTINATION;
    uint64_t entry = view->entry & ~((extended ? 0xfffeull << 48 : 0xff00ull << 48) | HV_ENTRY_LOGICAL);
    struct hv_binding bound = pin_of(core, source)->bound;
    bool moves = bound.cpu != cpu;
    enum hv_status status;

    if (apic_id > (extended ? 0x7fffu : 0xfeu))
        return HV_OUT_OF_RANGE;
    entry |= (uint64_t)(apic_id >> 8) << 49 | (uint64_t)(apic_id & 0xff) << 56;
    if (moves) {
        status = hv_bind(core, view->domain, cpu, 0, source, &bound);
        if (status != HV_OK)
            return status;
    }
    status = set_bound(core, source, entry, bound);
    if (status != HV_OK && moves)
        hv_unbind(core, view->domain, &bound);
    return status;
}

enum hv_status hv_set_affinity(struct hv_core *core, uint32_t domain, const struct hv_set_affinity *affinity)
{
    uint16_t source = hv_source_of_irq(core, domain, affinity->irq);
    struct hv_binding bound;

    if (core->mode == HV_MODE_DIRECT)
        return HV_NOT_SUPPORTED;
    if (source == HV_SOURCE_NONE)
        return HV_INVALID;
    if (affinity->cpu >= core->cpus.count)
        return HV_OUT_OF_RANGE;
    bound = binding_of(core, source);
    if (bound.vector == 0)
        return HV_NOT_FOUND;
    if (flags_of(core, source) & HV_INTERRUPT_DRAINING)
        return HV_TRY_AGAIN;
    if (hv_source_is_pin(source))
        return move_pin(core, source, affinity->cpu); /* its view's destination may be another processor's */
    return bound.cpu == affinity->cpu ? HV_OK : move_message(core, source, affinity->cpu);
}

/* ---- Reading a domain's interrupts ---- */

static bool pin_is_listed(struct hv_core *core, uint16_t source, uint32_t domain)
{
    const struct hv_pin_view *view = view_of(core, source);

    if (core->ioapic[hv_source_ioapic(source)].address == 0 ||
        hv_source_pin(source) >= core->ioapic[hv_source_ioapic(source)].pins || view->domain != domain)
        return false;
    return view->pirq != HV_NO_PIRQ || view->set_up || pin_of(core, source)->bound.vector != 0 ||
           !(view->entry & HV_ENTRY_MASKED);
}

static bool message_is_listed(const struct hv_core *core, uint16_t source, uint32_t domain)
{
    const struct hv_message *message = &core->message[hv_source_message(source)];

    return message->kind != HV_KIND_NONE && message->domain == domain;
}

static void describe_name(struct hv_core *core, uint16_t source, struct hv_read_interrupt *read)
{
    read->gsi = hv_gsi_of_source(core, source);
    read->device = (struct hv_pci_device){0};
    read->entry = 0;
    if (hv_source_is_pin(source)) {
        const struct hv_pin_view *view = view_of(core, source);

        read->kind = HV_KIND_GSI;
        read->pirq = view->pirq == HV_NO_PIRQ ? HV_NONE : view->pirq;
    } else {
        const struct hv_message *message = &core->message[hv_source_message(source)];

        read->kind = message->kind;
        read->pirq = message->pirq;
        read->device.seg = (uint16_t)(message->function >> 16);
        read->device.bus = (uint8_t)(message->function >> 8);
        read->device.devfn = (uint8_t)message->function;
        read->entry = message->entry;
    }
}

enum hv_status hv_read_interrupt(struct hv_core *core, uint32_t domain, struct hv_read_interrupt *read)
{
    uint32_t source = read->cursor == 0 ? 1 : read->cursor;
    struct hv_binding bound;
    uint32_t destination;

    for (uint32_t i = 0; i < SEARCHED_A_CALL && source < HV_SOURCES; i++, source++) {
        uint16_t candidate = (uint16_t)source;

        if (hv_source_is_pin(candidate) ? !pin_is_listed(core, candidate, domain)
                                        : !message_is_listed(core, candidate, domain))
            continue;
        describe_name(core, candidate, read);
        bound = binding_of(core, candidate);
        read->cpu = bound.vector == 0 ? HV_NONE : bound.cpu;
        read->vector = bound.vector == 0 ? vector_for_several(core, candidate, &destination) : bound.vector;
        if (read->vector == 0)
            read->vector = HV_NONE;
        read->flags = flags_of(core, candidate);
        read->cursor = source + 1;
        return HV_OK;
    }
    if (source >= HV_SOURCES)
        return HV_NOT_FOUND;
    read->cursor = source;
    read->kind = HV_KIND_NONE;
    return HV_OK;
}

/* ---- Arrival ---- */

static enum hv_status arrived(struct hv_core *core, uint32_t cpu, uint8_t vector, struct hv_delivery *delivery)
{
    uint16_t source = hv_vector_owner(&core->cpus, cpu, vector);
    struct hv_binding bound;

    if (cpu >= core->cpus.count)
        return HV_OUT_OF_RANGE;
    if (source == HV_SOURCE_NONE)
        return HV_NOT_FOUND;
    bound = binding_of(core, source);
    if (bound.cpu == cpu && bound.vector == vector)
        end_draining(core, source);
    *delivery = (struct hv_delivery){.pirq = HV_NONE, .gsi = hv_gsi_of_source(core, source), .vector = vector};
    if (hv_source_is_pin(source)) {
        const struct hv_pin_view *view = view_of(core, source);

        delivery->domain = view->domain;
        delivery->pirq = view->pirq == HV_NO_PIRQ ? HV_NONE : view->pirq;
        delivery->level = (view->entry & HV_ENTRY_LEVEL) != 0;
        delivery->vector = (uint32_t)(view->entry & HV_ENTRY_VECTOR);
    } else {
        const struct hv_message *message = &core->message[hv_source_message(source)];

        delivery->domain = message->domain;
        delivery->pirq = message->pirq;
    }
    return HV_OK;
}

enum hv_status hv_interrupt_arrived(struct hv_core *core, uint32_t cpu, uint8_t vector, struct hv_delivery *delivery)
{
    enum hv_status status;

    core->operations->lock(core->home);
    status = arrived(core, cpu, vector, delivery);
    core->operations->unlock(core->home);
    return status;
}
