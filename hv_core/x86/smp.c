/* SPDX-License-Identifier: MIT */
/*
 * The other processors: the core starts them before dom0 runs, so that none is ever outside. dom0's INIT and SIPI only
 * tell the core to give one a new state.
 */
#include "home.h"
#include "x86.h"

#define PATIENCE_LOOKS 20000000u

void started(struct cpu *cpu);
extern const uint8_t trampoline[], trampoline_end[];
extern uint64_t starting_stack;
uint64_t starting_stack;

_Alignas(STACK_BYTES) union processor processors[HV_LIMIT_CPUS];

/* A processor arrives here, on its own stack. */
void started(struct cpu *cpu)
{
    memory_own_tables();
    interrupts_start();
    if (!hypervisor.vendor->enable(cpu))
        halt_for_ever();
    if (cpu->role == CPU_KEPT)
        apic_off();
    __atomic_store_n(&cpu->alive, true, __ATOMIC_RELEASE);
    cpu_run(cpu);
}

static bool start_one(struct cpu *cpu)
{
    starting_stack = physical_of(cpu) + STACK_BYTES;
    apic_start(cpu->apic_id);
    for (uint32_t i = 0; i < PATIENCE_LOOKS; i++) {
        if (__atomic_load_n(&cpu->alive, __ATOMIC_ACQUIRE))
            return true;
        pause();
    }
    log_line(LOG_ERROR, "the processor with local APIC id %u does not start", cpu->apic_id);
    return false;
}

void processors_start(void)
{
    static uint8_t under_trampoline[4096];
    const struct hv_cpus *cpus = &hypervisor.core->cpus;
    uint32_t own = apic_own_id();
    uint32_t wanted = hypervisor.options.dom0_cpus;

    processors[0].cpu.apic_id = own;
    hypervisor.cpus = 1;
    hypervisor.dom0_cpus = 1;
    memcpy(under_trampoline, at_physical(TRAMPOLINE), sizeof(under_trampoline));
    memcpy(at_physical(TRAMPOLINE), trampoline, physical_of(trampoline_end) - physical_of(trampoline));
    for (uint32_t i = 0; i < cpus->count && hypervisor.cpus < HV_LIMIT_CPUS; i++) {
        struct cpu *cpu = &processors[hypervisor.cpus].cpu;

        if (cpus->cpu[i].apic_id == own)
            continue;
        cpu->number = hypervisor.cpus;
        cpu->apic_id = cpus->cpu[i].apic_id;
        cpu->role = wanted == 0 || hypervisor.cpus < wanted ? CPU_WAITING : CPU_KEPT;
        if (!start_one(cpu))
            panic("a processor that nobody holds may do anything");
        hypervisor.dom0_cpus += cpu->role == CPU_WAITING;
        hypervisor.cpus++;
    }
    memcpy(at_physical(TRAMPOLINE), under_trampoline, sizeof(under_trampoline));
    apic_learn_processors();
}

/* One that has not arrived yet will do: whoever takes it looks at everything afterwards. */
void cpu_kick(struct cpu *cpu)
{
    if (__atomic_exchange_n(&cpu->kicked, 1, __ATOMIC_SEQ_CST) == 0)
        apic_nmi(cpu->apic_id);
}

void cpu_init(struct cpu *cpu)
{
    __atomic_store_n(&cpu->startup, STARTUP_INIT, __ATOMIC_SEQ_CST);
    if (cpu != this_cpu())
        cpu_kick(cpu);
}

/* One may come before the processor has dealt with the INIT; one that waits for none is ignored. */
void cpu_sipi(struct cpu *cpu, uint8_t vector)
{
    uint32_t startup = __atomic_load_n(&cpu->startup, __ATOMIC_SEQ_CST);

    do {
        if (__atomic_load_n(&cpu->role, __ATOMIC_SEQ_CST) != CPU_WAITING && !(startup & STARTUP_INIT))
            return;
    } while (!__atomic_compare_exchange_n(&cpu->startup, &startup, (startup & STARTUP_INIT) | STARTUP_SIPI | vector,
                                          false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    cpu_kick(cpu);
}
