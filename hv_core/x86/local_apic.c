/* SPDX-License-Identifier: MIT */
/* The local APICs: the core's own use, and dom0's accesses where they are trapped (AMD APM volume 2, chapter 16). */
#include "home.h"
#include "x86.h"

#define REGISTER_ID 0x20u
#define REGISTER_TPR 0x80u
#define REGISTER_EOI 0xb0u
#define REGISTER_LOGICAL_ID 0xd0u
#define REGISTER_DESTINATION_FORMAT 0xe0u
#define REGISTER_SPURIOUS 0xf0u
#define REGISTER_IN_SERVICE 0x100u
#define REGISTER_ICR_LOW 0x300u
#define REGISTER_ICR_HIGH 0x310u
#define REGISTER_LVT_FIRST 0x320u
#define REGISTER_LVT_LAST 0x370u
#define REGISTER_LVT_CMCI 0x2f0u
#define REGISTER_EXTENDED_LVT_FIRST 0x500u /* AMD's */
#define REGISTER_EXTENDED_LVT_LAST 0x530u
#define REGISTER_TIMER_COUNT 0x380u

#define ICR_PENDING (1u << 12)
#define ICR_ASSERT (1u << 14)
#define ICR_LEVEL (1u << 15)
#define LVT_MASKED (1u << 16)
#define SPURIOUS_RESET 0xffu
#define FORMAT_CLUSTER 0u /* bits 31:28 */
#define VECTOR_LOWEST 16u

#define PIT_SPEAKER 0x61u
#define PIT_DATA 0x42u
#define PIT_COMMAND 0x43u
#define PIT_HERTZ 1193182u

static struct ipi_cpus ipi_cpus;

static uint32_t read(uint32_t offset)
{
    return read_register32(hypervisor.apic + offset);
}

static void write(uint32_t offset, uint32_t value)
{
    write_register32(hypervisor.apic + offset, value);
}

static void send(uint32_t apic_id, uint32_t low)
{
    while (read(REGISTER_ICR_LOW) & ICR_PENDING)
        pause();
    write(REGISTER_ICR_HIGH, apic_id << 24);
    write(REGISTER_ICR_LOW, low);
}

/* ---- The core's own use ---- */

uint32_t apic_own_id(void)
{
    return read(REGISTER_ID) >> 24;
}

void apic_nmi(uint32_t apic_id)
{
    send(apic_id, IPI_NMI << 8 | ICR_ASSERT);
}

/* Channel 2 of the timer counts down once, with the speaker off (Intel 8254, mode 0). */
static void wait_microseconds(uint32_t microseconds)
{
    uint32_t ticks = (uint32_t)((uint64_t)PIT_HERTZ * microseconds / 1000000);

    out8(PIT_SPEAKER, (uint8_t)((in8(PIT_SPEAKER) & ~2u) | 1u));
    out8(PIT_COMMAND, 0xb0);
    out8(PIT_DATA, (uint8_t)ticks);
    out8(PIT_DATA, (uint8_t)(ticks >> 8));
    while (!(in8(PIT_SPEAKER) & 0x20))
        pause();
}

void apic_start(uint32_t apic_id)
{
    send(apic_id, IPI_INIT << 8 | ICR_ASSERT | ICR_LEVEL);
    wait_microseconds(10000);
    send(apic_id, IPI_STARTUP << 8 | ICR_ASSERT | TRAMPOLINE >> 12);
    wait_microseconds(200);
    send(apic_id, IPI_STARTUP << 8 | ICR_ASSERT | TRAMPOLINE >> 12);
}

void apic_off(void)
{
    write(REGISTER_LOGICAL_ID, 0);
    write_msr(MSR_APIC_BASE, read_msr(MSR_APIC_BASE) & ~APIC_BASE_ENABLED);
}

/* As INIT does (section 16.3.5), but what has been requested already stays so. */
void apic_reset(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t in_service = 0;

        for (uint32_t word = 0; word < 8; word++)
            in_service |= read(REGISTER_IN_SERVICE + word * 0x10);
        if (in_service == 0)
            break;
        write(REGISTER_EOI, 0);
    }
    for (uint32_t offset = REGISTER_LVT_FIRST; offset <= REGISTER_LVT_LAST; offset += 0x10)
        write(offset, LVT_MASKED);
    write(REGISTER_TIMER_COUNT, 0);
    write(REGISTER_TPR, 0);
    write(REGISTER_LOGICAL_ID, 0);
    write(REGISTER_DESTINATION_FORMAT, 0xffffffffu);
    write(REGISTER_SPURIOUS, SPURIOUS_RESET);
}

/* ---- dom0's interprocessor interrupts ---- */

void apic_learn_processors(void)
{
    ipi_cpus.count = hypervisor.cpus;
    ipi_cpus.dom0 = hypervisor.dom0_cpus;
    for (uint32_t i = 0; i < hypervisor.cpus; i++)
        ipi_cpus.cpu[i].apic_id = processors[i].cpu.apic_id;
}

static void refuse(const char *what, uint64_t icr)
{
    this_cpu()->count[COUNT_REFUSED_IPI]++;
    log_refusal("dom0's interprocessor interrupt %lx is not sent: %s", icr, what);
}

static void send_nmi(struct cpu *target)
{
    __atomic_store_n(&target->nmi, 1, __ATOMIC_SEQ_CST);
    if (target != this_cpu())
        cpu_kick(target);
}

/* To each of dom0's processors that is meant, one by one: a broadcast would reach the core's. */
static void send_one_by_one(uint64_t targets, uint32_t low)
{
    for (; targets != 0; targets &= targets - 1)
        send(processors[__builtin_ctzll(targets)].cpu.apic_id, low);
}

static void act(const struct ipi *ipi, uint64_t targets, void (*what)(struct cpu *))
{
    if (ipi->level && !ipi->asserted) /* the end of an INIT, which processors since the Pentium 4 ignore */
        return;
    for (; targets != 0; targets &= targets - 1)
        what(&processors[__builtin_ctzll(targets)].cpu);
}

static void write_icr(struct cpu *cpu, uint32_t low)
{
    uint64_t icr = (uint64_t)cpu->apic_destination << 32 | low;
    struct ipi ipi = ipi_of_icr(icr, false);
    bool kept;
    uint64_t targets = ipi_targets(&ipi, &ipi_cpus, cpu->number, &kept);

    if (ipi.mode == IPI_SMI || ipi.mode == IPI_RESERVED || ipi.mode > IPI_STARTUP) {
        refuse("a delivery mode that is the core's alone, or nobody's", icr);
        return;
    }
    if (kept && !ipi_is_broadcast(&ipi, false))
        refuse("a processor that it would reach is the core's", icr);
    switch (ipi.mode) {
    case IPI_FIXED:
    case IPI_LOWEST_PRIORITY:
        if (ipi.vector < VECTOR_LOWEST) {
            refuse("no such vector", icr);
        } else if (kept) {
            send_one_by_one(targets, ipi.vector | ICR_ASSERT);
        } else {
            write(REGISTER_ICR_HIGH, cpu->apic_destination);
            write(REGISTER_ICR_LOW, low);
        }
        break;
    case IPI_NMI:
        act(&ipi, targets, send_nmi);
        break;
    case IPI_INIT:
        act(&ipi, targets, cpu_init);
        break;
    case IPI_STARTUP:
        for (; targets != 0; targets &= targets - 1)
            cpu_sipi(&processors[__builtin_ctzll(targets)].cpu, (uint8_t)ipi.vector);
        break;
    default: /* refused above */
        break;
    }
}

/* ---- dom0's accesses ---- */

uint32_t apic_read(struct cpu *cpu, uint32_t offset)
{
    cpu->count[COUNT_APIC_OTHER]++;
    if (offset == REGISTER_ICR_HIGH)
        return cpu->apic_destination;
    return read(offset);
}

static void write_lvt(uint32_t offset, uint32_t value)
{
    uint32_t mode = value >> 8 & 7;

    if (mode == IPI_SMI || mode == IPI_INIT)
        refuse("a local interrupt with a delivery mode that is the core's alone", value);
    else
        write(offset, value);
}

void apic_write(struct cpu *cpu, uint32_t offset, uint32_t value)
{
    if (offset == REGISTER_EOI)
        cpu->count[COUNT_APIC_EOI]++;
    else if (offset == REGISTER_ICR_LOW)
        cpu->count[COUNT_APIC_ICR]++;
    else
        cpu->count[COUNT_APIC_OTHER]++;
    switch (offset) {
    case REGISTER_ICR_LOW:
        write_icr(cpu, value);
        break;
    case REGISTER_ICR_HIGH:
        cpu->apic_destination = value;
        break;
    case REGISTER_ID:
        refuse("the id of a local APIC stays", value);
        break;
    case REGISTER_LOGICAL_ID:
        ipi_cpus.cpu[cpu->number].logical_id = value >> 24;
        write(offset, value);
        break;
    case REGISTER_DESTINATION_FORMAT:
        ipi_cpus.cluster = value >> 28 == FORMAT_CLUSTER;
        write(offset, value);
        break;
    case REGISTER_LVT_CMCI:
        write_lvt(offset, value);
        break;
    default:
        if ((offset >= REGISTER_LVT_FIRST && offset <= REGISTER_LVT_LAST) ||
            (offset >= REGISTER_EXTENDED_LVT_FIRST && offset <= REGISTER_EXTENDED_LVT_LAST))
            write_lvt(offset, value);
        else
            write(offset, value);
        break;
    }
}
