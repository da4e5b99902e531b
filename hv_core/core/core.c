/* SPDX-License-Identifier: MIT */
/* The core's start, and the list of what it found wrong with the machine. */
#include "internal.h"

void hv_report(struct hv_core *core, uint32_t code, uint64_t where, uint64_t value)
{
    if (core->reports == HV_LIMIT_REPORTS) {
        core->reports_lost++;
        return;
    }
    core->report[core->reports++] = (struct hv_report){.code = code, .where = where, .value = value};
}

static void clear(struct hv_core *core)
{
    uint8_t *byte = (uint8_t *)core;

    for (size_t i = 0; i < sizeof(*core); i++)
        byte[i] = 0;
}

/* The highest APIC id that both formats can carry; remapped ones carry a handle instead. */
static uint32_t reachable(const struct hv_start *start)
{
    const enum hv_format formats[2] = {start->entry_format, start->message_format};
    uint32_t highest = 0xffffffffu;

    for (uint32_t i = 0; i < 2; i++) {
        if (formats[i] == HV_FORMAT_COMPATIBILITY)
            highest = 0xfe; /* 0xff is everybody */
        else if (formats[i] == HV_FORMAT_EXTENDED_DESTINATION && highest > 0x7fff)
            highest = 0x7fff;
    }
    return highest;
}

enum hv_status hv_core_start(struct hv_core *core, const struct hv_start *start)
{
    struct hv_tables tables;

    if ((start->mode != HV_MODE_DIRECT && start->mode != HV_MODE_INTERCEPT) ||
        (uint32_t)start->entry_format > HV_FORMAT_AMD_VI || (uint32_t)start->message_format > HV_FORMAT_AMD_VI ||
        (start->features & ~HV_FEATURE_MODEL))
        return HV_INVALID;
    clear(core);
    core->operations = start->operations;
    core->home = start->home;
    core->mode = start->mode;
    core->entry_format = start->entry_format;
    core->message_format = start->message_format;
    core->features = start->features | HV_FEATURE_BOOKKEEPING |
                     (start->mode == HV_MODE_DIRECT ? HV_FEATURE_DIRECT : HV_FEATURE_INTERCEPT);
    core->cpus.reachable = reachable(start);
    for (uint32_t word = 0; word < HV_WORDS(HV_LIMIT_MESSAGES); word++)
        core->message_free[word] = ~0ull;
    hv_domain_make(core, 0, 0);
    if (start->rsdp != 0 && hv_tables_find(core, start->rsdp, &tables) == HV_OK) {
        core->rsdp = start->rsdp;
        core->xsdt = tables.xsdt;
        hv_tables_take(core, &tables);
    }
    hv_shared_update(core);
    return HV_OK;
}
