/* SPDX-License-Identifier: MIT */
/* For whom an interprocessor interrupt is (AMD APM volume 2, sections 16.5 to 16.7 and 16.13). Pure logic. */
#include "home.h"

struct ipi ipi_of_icr(uint64_t icr, bool x2apic)
{
    return (struct ipi){
        .vector = (uint32_t)icr & 0xff,
        .mode = (uint32_t)icr >> 8 & 7,
        .logical = (icr >> 11 & 1) != 0,
        .asserted = (icr >> 14 & 1) != 0,
        .level = (icr >> 15 & 1) != 0,
        .shorthand = (uint32_t)icr >> 18 & 3,
        .destination = (uint32_t)(x2apic ? icr >> 32 : icr >> 56),
    };
}

static bool logical_match(const struct ipi_cpus *cpus, uint32_t destination, uint32_t id)
{
    if (cpus->x2apic) /* cluster and 16 of its processors */
        return destination >> 16 == id >> 16 && (destination & id & 0xffff) != 0;
    if (cpus->cluster) /* cluster and 4 of its processors; cluster 15 is all of them */
        return (destination >> 4 == id >> 4 || destination >> 4 == 15) && (destination & id & 15) != 0;
    return (destination & id) != 0;
}

bool ipi_is_broadcast(const struct ipi *ipi, bool x2apic)
{
    return ipi->shorthand == IPI_TO_ALL || ipi->shorthand == IPI_TO_OTHERS ||
           (ipi->shorthand == IPI_TO_DESTINATION && ipi->destination == (x2apic ? 0xffffffffu : 0xffu));
}

static bool is_target(const struct ipi *ipi, const struct ipi_cpus *cpus, uint32_t self, uint32_t cpu)
{
    switch (ipi->shorthand) {
    case IPI_TO_SELF:
        return cpu == self;
    case IPI_TO_ALL:
        return true;
    case IPI_TO_OTHERS:
        return cpu != self;
    default:
        break;
    }
    if (ipi_is_broadcast(ipi, cpus->x2apic))
        return true;
    if (ipi->logical)
        return logical_match(cpus, ipi->destination, cpus->cpu[cpu].logical_id);
    return ipi->destination == cpus->cpu[cpu].apic_id;
}

uint64_t ipi_targets(const struct ipi *ipi, const struct ipi_cpus *cpus, uint32_t self, bool *kept)
{
    uint64_t targets = 0;

    *kept = false;
    for (uint32_t cpu = 0; cpu < cpus->count; cpu++) {
        if (!is_target(ipi, cpus, self, cpu))
            continue;
        if (cpu < cpus->dom0)
            targets |= 1ull << cpu;
        else
            *kept = true;
    }
    return targets;
}
