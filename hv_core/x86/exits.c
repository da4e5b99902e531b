/* SPDX-License-Identifier: MIT */
/* dom0 runs, stops, is answered, runs on. Nothing here knows whose virtualization extension it is. */
#include "home.h"
#include "x86.h"

#define PAGE_BYTES 4096ull
#define INSTRUCTION_CPUID 2u
#define INSTRUCTION_MSR 2u
#define INSTRUCTION_CALL 3u

static void undefined(struct cpu *cpu)
{
    hypervisor.vendor->inject_exception(cpu, VECTOR_INVALID_OPCODE);
}

static void protection(struct cpu *cpu)
{
    hypervisor.vendor->inject_exception(cpu, VECTOR_GENERAL_PROTECTION);
}

/* ---- CPUID ---- */

static const char counter_names[COUNTERS][9] = {
    [COUNT_CPUID] = "cpuid",
    [COUNT_MSR] = "msr",
    [COUNT_HYPERCALL] = "vmmcall",
    [COUNT_IOAPIC] = "ioapic",
    [COUNT_APIC_EOI] = "eoi",
    [COUNT_APIC_ICR] = "icr",
    [COUNT_APIC_OTHER] = "apic",
    [COUNT_NMI] = "nmi",
    [COUNT_INTERRUPT] = "intr",
    [COUNT_WINDOW] = "window",
    [COUNT_OTHER] = "other",
    [COUNT_REFUSED_MEMORY] = "!memory",
    [COUNT_REFUSED_INSTRUCTION] = "!instr",
    [COUNT_REFUSED_MSR] = "!msr",
    [COUNT_REFUSED_IPI] = "!ipi",
};

static uint32_t four_letters(const char *text)
{
    return (uint8_t)text[0] | (uint32_t)(uint8_t)text[1] << 8 | (uint32_t)(uint8_t)text[2] << 16 |
           (uint32_t)(uint8_t)text[3] << 24;
}

static struct cpuid counter(uint32_t number)
{
    uint64_t sum = 0;

    if (number >= COUNTERS)
        return (struct cpuid){0};
    for (uint32_t i = 0; i < hypervisor.cpus; i++)
        sum += __atomic_load_n(&processors[i].cpu.count[number], __ATOMIC_RELAXED);
    return (struct cpuid){
        .eax = (uint32_t)sum,
        .ebx = (uint32_t)(sum >> 32),
        .ecx = four_letters(counter_names[number]),
        .edx = four_letters(counter_names[number] + 4),
    };
}

static struct cpuid own_leaf(uint32_t leaf, uint32_t subleaf)
{
    const struct hv_core *core = hypervisor.core;

    switch (leaf) {
    case HV_CPUID_BASE:
        return (struct cpuid){
            .eax = HV_CPUID_COUNTERS,
            .ebx = four_letters(HV_CPUID_SIGNATURE),
            .ecx = four_letters(&HV_CPUID_SIGNATURE[4]),
            .edx = four_letters(&HV_CPUID_SIGNATURE[8]),
        };
    case HV_CPUID_VERSION:
        return (struct cpuid){.eax = HV_ABI_VERSION};
    case HV_CPUID_FEATURES:
        return (struct cpuid){
            .eax = core->features,
            .ebx = HV_LIMIT_CPUS,
            .ecx = HV_LIMIT_IOAPICS,
            .edx = HV_LIMIT_DOMAINS,
        };
    case HV_CPUID_SHARED_INFO:
        return (struct cpuid){.eax = (uint32_t)core->shared_at, .ebx = (uint32_t)(core->shared_at >> 32)};
    case HV_CPUID_COUNTERS:
        return counter(subleaf);
    default:
        return (struct cpuid){0};
    }
}

#define LEAF1_ECX_VMX (1u << 5)
#define LEAF1_ECX_X2APIC (1u << 21)
#define LEAF1_ECX_OSXSAVE (1u << 27)
#define LEAF1_ECX_HYPERVISOR (1u << 31)
#define LEAF7_ECX_OSPKE (1u << 4)
#define EXTENDED_ECX_SVM (1u << 2)
#define EXTENDED_ECX_SKINIT (1u << 12)
#define EXTENDED_ECX_MWAITX (1u << 29) /* an emulator that never wakes from it stops dom0 (Bochs 2.7) */

static void handle_cpuid(struct cpu *cpu, const struct state *state)
{
    uint32_t leaf = (uint32_t)cpu->gpr[GPR_RAX];
    uint32_t subleaf = (uint32_t)cpu->gpr[GPR_RCX];
    struct cpuid out = leaf >> 28 == HV_CPUID_BASE >> 28 ? own_leaf(leaf, subleaf) : cpuid(leaf, subleaf);

    /* Two bits follow CR4, which is the core's while it asks. */
    if (leaf == 1) {
        out.ecx &= ~(LEAF1_ECX_VMX | LEAF1_ECX_X2APIC | LEAF1_ECX_OSXSAVE);
        out.ecx |= LEAF1_ECX_HYPERVISOR | ((state->cr4 & CR4_OSXSAVE) ? LEAF1_ECX_OSXSAVE : 0);
    } else if (leaf == 7 && subleaf == 0) {
        out.ecx = (out.ecx & ~LEAF7_ECX_OSPKE) | ((state->cr4 & CR4_PKE) ? LEAF7_ECX_OSPKE : 0);
    } else if (leaf == 0x80000001u) {
        out.ecx &= ~(EXTENDED_ECX_SVM | EXTENDED_ECX_SKINIT | EXTENDED_ECX_MWAITX);
    } else if (leaf == 0x8000000au || leaf == 0x8000001fu) { /* SVM; encrypted memory */
        out = (struct cpuid){0};
    }
    cpu->gpr[GPR_RAX] = out.eax;
    cpu->gpr[GPR_RBX] = out.ebx;
    cpu->gpr[GPR_RCX] = out.ecx;
    cpu->gpr[GPR_RDX] = out.edx;
    hypervisor.vendor->skip(cpu, INSTRUCTION_CPUID);
}

/* ---- MSRs: all but these are dom0's own ---- */

static bool may_have_efer(uint64_t efer, const struct state *state)
{
    uint64_t allowed = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;

    if (cpuid(0x80000001u, 0).edx & 1u << 25)
        allowed |= EFER_FFXSR;
    if (cpuid(0x80000001u, 0).ecx & 1u << 17)
        allowed |= EFER_TCE;
    if (cpuid(0x80000000u, 0).eax >= 0x80000021u && (cpuid(0x80000021u, 0).eax & 1u << 8))
        allowed |= EFER_AUTOMATIC_IBRS;
    return !(efer & ~allowed) && !((state->cr0 & CR0_PG) && ((efer ^ state->efer) & EFER_LME));
}

static bool read_for_dom0(uint32_t msr, const struct state *state, uint64_t *value)
{
    if (msr == MSR_EFER)
        *value = state->efer;
    else if (msr == MSR_APIC_BASE)
        *value = read_msr(msr);
    else
        return false;
    return true;
}

static bool write_for_dom0(struct cpu *cpu, uint32_t msr, const struct state *state, uint64_t value)
{
    if (msr == MSR_EFER && may_have_efer(value, state)) {
        hypervisor.vendor->set_efer(cpu, (value & ~EFER_LMA) | (state->efer & EFER_LMA));
        return true;
    }
    /* The local APIC stays where it is, as it is. */
    return msr == MSR_APIC_BASE && value == read_msr(msr);
}

static void handle_msr(struct cpu *cpu, const struct state *state, bool write)
{
    uint32_t msr = (uint32_t)cpu->gpr[GPR_RCX];
    uint64_t value = cpu->gpr[GPR_RDX] << 32 | (uint32_t)cpu->gpr[GPR_RAX];
    bool allowed = write ? write_for_dom0(cpu, msr, state, value) : read_for_dom0(msr, state, &value);

    if (!allowed) {
        cpu->count[COUNT_REFUSED_MSR]++;
        log_refusal("dom0's %s of MSR %x is refused (rip %lx)", write ? "write" : "read", msr, state->rip);
        protection(cpu);
        return;
    }
    if (!write) {
        cpu->gpr[GPR_RAX] = (uint32_t)value;
        cpu->gpr[GPR_RDX] = value >> 32;
    }
    hypervisor.vendor->skip(cpu, INSTRUCTION_MSR);
}

/* ---- Hypercalls ---- */

static enum hv_status hypercall(const struct cpu *cpu, const struct state *state)
{
    uint64_t number = cpu->gpr[GPR_RAX];
    uint64_t command = cpu->gpr[GPR_RDI];
    uint64_t at = cpu->gpr[GPR_RSI];
    union hv_argument argument;
    enum hv_status status;
    uint32_t bytes;

    if (number > 0xffffffffu || command > 0xffffffffu)
        return HV_NO_CALL;
    bytes = hv_argument_bytes((uint32_t)number, (uint32_t)command);
    if (!guest_copy_in(state, at, &argument, bytes))
        return HV_FAULT;
    if (bytes != 0) {
        uint32_t more = hv_argument_more_bytes((uint32_t)number, (uint32_t)command, &argument);
        if (!guest_copy_in(state, at + bytes, (uint8_t *)&argument + bytes, more))
            return HV_FAULT;
        bytes += more;
    }
    status = hv_hypercall(hypervisor.core, 0, (uint32_t)number, (uint32_t)command, &argument);
    if (status == HV_OK && !guest_copy_out(state, at, &argument, bytes))
        return HV_FAULT;
    return status;
}

static void handle_hypercall(struct cpu *cpu, const struct state *state)
{
    if (state->cpl != 0) {
        cpu->count[COUNT_REFUSED_INSTRUCTION]++;
        undefined(cpu);
        return;
    }
    cpu->gpr[GPR_RAX] = (uint64_t)(int64_t)(state->code64 ? hypercall(cpu, state) : HV_NOT_SUPPORTED);
    hypervisor.vendor->skip(cpu, INSTRUCTION_CALL);
}

/* ---- Memory that dom0 does not have ---- */

static bool is_core(uint64_t address)
{
    return range_holds(hypervisor.image, address, 1) || range_holds(hypervisor.tables, address, 1);
}

static bool is_apic(uint64_t address)
{
    return hypervisor.apic_trapped && (address & ~(PAGE_BYTES - 1)) == hypervisor.apic;
}

static uint64_t read_device(struct cpu *cpu, uint64_t address, const struct access *access)
{
    bool whole = access->bytes == 4 && address % 4 == 0;

    if (ioapic_is_at(address)) {
        cpu->count[COUNT_IOAPIC]++;
        return whole ? ioapic_window_read(address) : ~0ull;
    }
    if (is_apic(address))
        return whole ? apic_read(cpu, (uint32_t)(address % PAGE_BYTES)) : ~0ull;
    return ~0ull;
}

static bool write_device(struct cpu *cpu, uint64_t address, const struct access *access)
{
    uint32_t value = (uint32_t)access_value(access, cpu->gpr);

    if (access->bytes != 4 || address % 4 != 0)
        return false;
    if (ioapic_is_at(address)) {
        cpu->count[COUNT_IOAPIC]++;
        ioapic_window_write(address, value);
        return true;
    }
    if (is_apic(address)) {
        apic_write(cpu, (uint32_t)(address % PAGE_BYTES), value);
        return true;
    }
    return false;
}

static void refuse_memory(struct cpu *cpu, const struct state *state, const struct exit *exit)
{
    cpu->count[COUNT_REFUSED_MEMORY]++;
    log_refusal("dom0's %s of %lx is refused: %s (rip %lx)", exit->write ? "write" : "read", exit->address,
                is_core(exit->address) ? "the core's memory" : "not its memory", state->rip);
}

static void handle_memory(struct cpu *cpu, const struct state *state, const struct exit *exit)
{
    uint8_t code[15];
    struct access access;
    uint32_t fetched;

    if (is_core(exit->address) && !exit->write) {
        refuse_memory(cpu, state, exit);
        nested_ones(exit->address & ~(PAGE_BYTES - 1)); /* whatever the instruction is, it reads ones */
        return;
    }
    fetched = guest_fetch(state, code);
    if (!decode(code, fetched, state->code64, state->code32, &access) || access.write != exit->write) {
        refuse_memory(cpu, state, exit);
        log_refusal("its instruction is not one the core knows: %x %x %x %x", code[0], code[1], code[2], code[3]);
        protection(cpu);
        return;
    }
    if (exit->write ? !write_device(cpu, exit->address, &access)
                    : !ioapic_is_at(exit->address) && !is_apic(exit->address))
        refuse_memory(cpu, state, exit);
    if (!exit->write)
        access_read(&access, cpu->gpr, read_device(cpu, exit->address, &access));
    hypervisor.vendor->skip(cpu, access.length);
}

/* ---- Interrupts: intercept mode ---- */

/* What dom0 expects for a vector that arrived: for a pin of an IOAPIC its own choice, for anything else the same. */
static uint32_t vector_for_dom0(const struct cpu *cpu, uint8_t vector)
{
    uint32_t number = hv_cpu_by_apic_id(&hypervisor.core->cpus, cpu->apic_id);
    struct hv_delivery delivery;

    if (number != HV_NONE && hv_interrupt_arrived(hypervisor.core, number, vector, &delivery) == HV_OK)
        return delivery.vector;
    return vector;
}

static void take_arrived(struct cpu *cpu)
{
    for (uint32_t word = 0; word < ARRAY_LENGTH(cpu->arrived); word++) {
        for (; cpu->arrived[word] != 0; cpu->arrived[word] &= cpu->arrived[word] - 1) {
            uint32_t vector = word * 64 + (uint32_t)__builtin_ctzll(cpu->arrived[word]);

            vector = vector_for_dom0(cpu, (uint8_t)vector);
            cpu->pending[vector / 64] |= 1ull << (vector % 64);
        }
    }
}

/* The most urgent first, which its number says; where one is left, dom0 stops again as soon as it can take it. */
static void deliver_pending(struct cpu *cpu)
{
    for (uint32_t word = ARRAY_LENGTH(cpu->pending); word-- > 0;) {
        while (cpu->pending[word] != 0) {
            uint32_t bit = 63 - (uint32_t)__builtin_clzll(cpu->pending[word]);

            if (!hypervisor.vendor->inject_interrupt(cpu, (uint8_t)(word * 64 + bit)))
                return;
            cpu->pending[word] &= ~(1ull << bit);
        }
    }
}

/* ---- The loop ---- */

static void handle(struct cpu *cpu, const struct exit *exit)
{
    struct state state;

    hypervisor.vendor->state(cpu, &state);
    switch (exit->kind) {
    case EXIT_CPUID:
        cpu->count[COUNT_CPUID]++;
        handle_cpuid(cpu, &state);
        break;
    case EXIT_MSR_READ:
    case EXIT_MSR_WRITE:
        cpu->count[COUNT_MSR]++;
        handle_msr(cpu, &state, exit->kind == EXIT_MSR_WRITE);
        break;
    case EXIT_HYPERCALL:
        cpu->count[COUNT_HYPERCALL]++;
        handle_hypercall(cpu, &state);
        break;
    case EXIT_MEMORY:
        handle_memory(cpu, &state, exit);
        break;
    case EXIT_FORBIDDEN:
        cpu->count[COUNT_REFUSED_INSTRUCTION]++;
        log_refusal("dom0's virtualization instruction at %lx is refused", state.rip);
        undefined(cpu);
        break;
    case EXIT_NMI:
        cpu->count[COUNT_NMI]++;
        break;
    case EXIT_INTERRUPT:
        cpu->count[COUNT_INTERRUPT]++;
        take_arrived(cpu);
        break;
    case EXIT_WINDOW:
        cpu->count[COUNT_WINDOW]++;
        break;
    case EXIT_INIT:
        cpu->count[COUNT_REFUSED_IPI]++;
        break;
    case EXIT_SHUTDOWN:
        panic("dom0 is at its end: a fault in the handler of a fault in the handler of a fault (triple fault)");
    case EXIT_OTHER:
        panic("the processor stopped dom0 for a reason the core did not ask for: %lx", exit->code);
    }
}

static void wait_for_sipi(struct cpu *cpu)
{
    uint32_t startup;

    for (;;) {
        startup = __atomic_exchange_n(&cpu->startup, 0, __ATOMIC_SEQ_CST);
        if (startup & STARTUP_SIPI)
            break;
        hypervisor.vendor->wait(&cpu->startup);
    }
    __atomic_store_n(&cpu->nmi, 0, __ATOMIC_SEQ_CST);
    hypervisor.vendor->sipi(cpu, (uint8_t)startup);
    __atomic_store_n(&cpu->role, CPU_RUNNING, __ATOMIC_SEQ_CST);
}

static void run_once(struct cpu *cpu)
{
    uint32_t generation;
    struct exit exit;
    bool flush;

    /* Whoever changes the tables from here on sees in_guest and sends an NMI. */
    __atomic_store_n(&cpu->in_guest, true, __ATOMIC_SEQ_CST);
    generation = __atomic_load_n(&hypervisor.nested_generation, __ATOMIC_SEQ_CST);
    flush = generation != cpu->nested_generation;
    __atomic_store_n(&cpu->nested_generation, generation, __ATOMIC_SEQ_CST);
    hypervisor.vendor->run(cpu, flush, &exit);
    __atomic_store_n(&cpu->in_guest, false, __ATOMIC_SEQ_CST);
    handle(cpu, &exit);
}

void cpu_run(struct cpu *cpu)
{
    static const uint32_t never;

    while (cpu->role == CPU_KEPT)
        hypervisor.vendor->wait(&never);
    for (;;) {
        if (__atomic_load_n(&hypervisor.stopped, __ATOMIC_SEQ_CST))
            halt_for_ever();
        if (__atomic_load_n(&cpu->startup, __ATOMIC_SEQ_CST) & STARTUP_INIT) {
            __atomic_store_n(&cpu->role, CPU_WAITING, __ATOMIC_SEQ_CST);
            apic_reset();
        }
        if (cpu->role == CPU_WAITING)
            wait_for_sipi(cpu);
        if (__atomic_exchange_n(&cpu->nmi, 0, __ATOMIC_SEQ_CST))
            hypervisor.vendor->inject_exception(cpu, VECTOR_NMI);
        deliver_pending(cpu);
        run_once(cpu);
    }
}
