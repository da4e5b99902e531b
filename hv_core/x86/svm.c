/* SPDX-License-Identifier: MIT */
/* The vendor layer for AMD's virtualization extension (AMD APM volume 2, chapter 15). */
#include "home.h"
#include "svm.h"
#include "x86.h"

#define ASID 1u /* 0 is the core's own */
#define PAT_RESET 0x0007040600070406ull
#define DR6_RESET 0xffff0ff0ull
#define DR7_RESET 0x400ull

_Alignas(4096) static struct vmcb vmcbs[HV_LIMIT_CPUS];
_Alignas(4096) static uint8_t host_save[HV_LIMIT_CPUS][4096];
_Alignas(4096) static uint8_t msr_permissions[8192];

static bool intercept_interrupts;
static bool intercept_nmi;
static uint64_t nested_root;

static struct vmcb *vmcb_of(const struct cpu *cpu)
{
    return &vmcbs[cpu->number];
}

static bool present(void)
{
    return cpuid(0x80000000u, 0).eax >= CPUID_SVM && (cpuid(CPUID_EXTENDED_FEATURES, 0).ecx & CPUID_ECX_SVM) != 0 &&
           (cpuid(CPUID_SVM, 0).edx & CPUID_SVM_EDX_NESTED_PAGING) != 0;
}

/* Two bits a register, in three blocks of 0x2000 registers (section 15.11). */
static void intercept_msr(uint32_t msr, bool read, bool write)
{
    uint32_t index = msr & 0x1fff;

    if (msr >= 0xc0010000u)
        index += 0x4000;
    else if (msr >= 0xc0000000u)
        index += 0x2000;
    msr_permissions[index / 4] |= (uint8_t)((uint32_t)(read | write << 1) << (index % 4 * 2));
}

static void configure(bool intercept, bool trap_nmi, uint64_t root)
{
    intercept_interrupts = intercept;
    intercept_nmi = trap_nmi;
    nested_root = root;
    intercept_msr(MSR_APIC_BASE, true, true);
    for (uint32_t msr = MSR_X2APIC_FIRST; msr <= MSR_X2APIC_LAST; msr++)
        intercept_msr(msr, true, true);
    intercept_msr(MSR_EFER, true, true);
    for (uint32_t msr = MSR_VM_CR; msr <= MSR_SMM_KEY; msr++)
        intercept_msr(msr, true, true);
}

static bool enable(struct cpu *cpu)
{
    if (read_msr(MSR_VM_CR) & VM_CR_DISABLE_SVM)
        return false;
    write_msr(MSR_EFER, read_msr(MSR_EFER) | EFER_SVME);
    write_msr(MSR_VM_CR, read_msr(MSR_VM_CR) | VM_CR_REDIRECT_INIT);
    write_msr(MSR_VM_HSAVE_PA, physical_of(host_save[cpu->number]));
    __asm__ volatile("clgi" : : : "memory");
    return true;
}

/* ---- States to begin with ---- */

static struct vmcb_segment segment(uint16_t selector, uint16_t attributes, uint32_t limit, uint64_t base)
{
    return (struct vmcb_segment){.selector = selector, .attributes = attributes, .limit = limit, .base = base};
}

static void set_data(struct vmcb *vmcb, struct vmcb_segment data)
{
    vmcb->ds = data;
    vmcb->es = data;
    vmcb->ss = data;
    vmcb->fs = data;
    vmcb->gs = data;
}

static void set_controls(struct vmcb *vmcb)
{
    vmcb->intercepts = INTERCEPT_INIT | INTERCEPT_CPUID | INTERCEPT_INVLPGA | INTERCEPT_MSR | INTERCEPT_SHUTDOWN |
                       (intercept_nmi ? INTERCEPT_NMI : 0) | (intercept_interrupts ? INTERCEPT_INTERRUPT : 0);
    vmcb->intercepts_svm = INTERCEPT_VMRUN | INTERCEPT_VMMCALL | INTERCEPT_VMLOAD | INTERCEPT_VMSAVE | INTERCEPT_STGI |
                           INTERCEPT_CLGI | INTERCEPT_SKINIT;
    vmcb->msrpm = physical_of(msr_permissions);
    vmcb->asid = ASID;
    vmcb->tlb_control = TLB_FLUSH_ALL;
    vmcb->vintr = intercept_interrupts ? VINTR_MASKING | VINTR_IGNORE_TPR : 0;
    vmcb->interrupt_shadow = 0;
    vmcb->event = 0;
    vmcb->nested_enable = 1;
    vmcb->nested_cr3 = nested_root;
}

/* As an INIT leaves a processor (section 14.1.3); what INIT keeps, is kept. */
static void reset(struct vmcb *vmcb, struct cpu *cpu)
{
    __asm__ volatile("vmsave %0" : : "a"(physical_of(vmcb)) : "memory");
    set_controls(vmcb);
    set_data(vmcb, segment(0, SEGMENT_DATA16, 0xffff, 0));
    vmcb->cs = segment(0, SEGMENT_CODE16, 0xffff, 0);
    vmcb->gdtr = segment(0, 0, 0xffff, 0);
    vmcb->idtr = segment(0, 0, 0xffff, 0);
    vmcb->ldtr = segment(0, SEGMENT_LDT, 0xffff, 0);
    vmcb->tr = segment(0, SEGMENT_TSS, 0xffff, 0);
    vmcb->cpl = 0;
    vmcb->efer = EFER_SVME;
    vmcb->cr0 = CR0_ET | CR0_NW | CR0_CD;
    vmcb->cr3 = 0;
    vmcb->cr4 = 0;
    vmcb->syscall[VMCB_CR2] = 0;
    vmcb->dr6 = DR6_RESET;
    vmcb->dr7 = DR7_RESET;
    vmcb->rflags = RFLAGS_FIXED;
    vmcb->rip = 0;
    vmcb->rsp = 0;
    vmcb->rax = 0;
    vmcb->pat = PAT_RESET;
    for (uint32_t i = 0; i < GPR_COUNT; i++)
        cpu->gpr[i] = 0;
    cpu->gpr[GPR_RDX] = cpuid(1, 0).eax; /* family, model, stepping */
}

static void load_hidden(const struct vmcb *vmcb)
{
    __asm__ volatile("vmload %0" : : "a"(physical_of(vmcb)) : "memory");
}

static void begin(struct cpu *cpu, const struct entry *entry)
{
    struct vmcb *vmcb = vmcb_of(cpu);

    reset(vmcb, cpu);
    set_data(vmcb, segment(0x18, SEGMENT_DATA32, 0xffffffff, 0));
    vmcb->cs = segment(0x10, entry->long_mode ? SEGMENT_CODE64 : SEGMENT_CODE32, 0xffffffff, 0);
    vmcb->gdtr = segment(0, 0, (uint32_t)(entry->gdt.end - entry->gdt.start - 1), entry->gdt.start);
    vmcb->cr0 = CR0_PE | CR0_ET | CR0_NE;
    if (entry->long_mode) {
        vmcb->cr0 |= CR0_PG | CR0_WP;
        vmcb->cr4 = CR4_PAE;
        vmcb->cr3 = entry->cr3;
        vmcb->efer |= EFER_LME | EFER_LMA;
    }
    vmcb->rip = entry->rip;
    cpu->gpr[GPR_RSI] = entry->rsi;
    cpu->gpr[GPR_RBX] = entry->rbx;
    load_hidden(vmcb);
}

static void sipi(struct cpu *cpu, uint8_t vector)
{
    struct vmcb *vmcb = vmcb_of(cpu);

    reset(vmcb, cpu);
    vmcb->cr0 = CR0_ET; /* caches on: the core's memory types are all that nested paging needs */
    vmcb->cs = segment((uint16_t)(vector << 8), SEGMENT_CODE16, 0xffff, (uint64_t)vector << 12);
    load_hidden(vmcb);
}

/* ---- Running ---- */

static enum exit_kind kind_of(uint64_t code)
{
    switch (code) {
    case SVM_EXIT_INTERRUPT:
        return EXIT_INTERRUPT;
    case SVM_EXIT_NMI:
        return EXIT_NMI;
    case SVM_EXIT_INIT:
        return EXIT_INIT;
    case SVM_EXIT_WINDOW:
        return EXIT_WINDOW;
    case SVM_EXIT_CPUID:
        return EXIT_CPUID;
    case SVM_EXIT_SHUTDOWN:
        return EXIT_SHUTDOWN;
    case SVM_EXIT_VMMCALL:
        return EXIT_HYPERCALL;
    case SVM_EXIT_NESTED_FAULT:
        return EXIT_MEMORY;
    default:
        break;
    }
    if (code == SVM_EXIT_INVLPGA || (code >= SVM_EXIT_VMRUN && code <= SVM_EXIT_SKINIT))
        return EXIT_FORBIDDEN;
    return EXIT_OTHER;
}

static void run(struct cpu *cpu, bool flush, struct exit *exit)
{
    struct vmcb *vmcb = vmcb_of(cpu);

    if (flush)
        vmcb->tlb_control = TLB_FLUSH_ALL;
    vmcb->rax = cpu->gpr[GPR_RAX];
    vmcb->rsp = cpu->gpr[GPR_RSP];
    svm_enter(physical_of(vmcb), cpu->gpr);
    cpu->gpr[GPR_RAX] = vmcb->rax;
    cpu->gpr[GPR_RSP] = vmcb->rsp;
    vmcb->tlb_control = 0;
    /* What was on its way into dom0 when it stopped, is to arrive yet (section 15.7.2). */
    vmcb->event = (vmcb->exit_event & EVENT_VALID) ? vmcb->exit_event : 0;
    *exit = (struct exit){.code = vmcb->exit_code};
    if (vmcb->exit_code == SVM_EXIT_MSR) {
        exit->kind = vmcb->exit_info1 & 1 ? EXIT_MSR_WRITE : EXIT_MSR_READ;
        return;
    }
    exit->kind = kind_of(vmcb->exit_code);
    if (exit->kind == EXIT_MEMORY) {
        exit->address = vmcb->exit_info2;
        exit->write = (vmcb->exit_info1 & NESTED_FAULT_WRITE) != 0;
    } else if (exit->kind == EXIT_NMI) {
        svm_take_nmi();
    } else if (exit->kind == EXIT_INTERRUPT) {
        interrupts_expected();
        svm_take_interrupts();
        interrupts_start();
    } else if (exit->kind == EXIT_WINDOW) {
        vmcb->vintr &= ~VINTR_REQUEST;
        vmcb->intercepts &= ~INTERCEPT_WINDOW;
    }
}

static void state(const struct cpu *cpu, struct state *state)
{
    const struct vmcb *vmcb = vmcb_of(cpu);

    *state = (struct state){
        .rip = vmcb->rip,
        .rsp = vmcb->rsp,
        .rflags = vmcb->rflags,
        .cr0 = vmcb->cr0,
        .cr2 = vmcb->syscall[VMCB_CR2],
        .cr3 = vmcb->cr3,
        .cr4 = vmcb->cr4,
        .efer = vmcb->efer & ~EFER_SVME,
        .cs_base = vmcb->cs.base,
        .cpl = vmcb->cpl,
        .code64 = (vmcb->efer & EFER_LMA) != 0 && (vmcb->cs.attributes & ATTRIBUTE_LONG) != 0,
        .code32 = (vmcb->cs.attributes & ATTRIBUTE_BIG) != 0,
    };
}

static void skip(struct cpu *cpu, uint32_t bytes)
{
    struct vmcb *vmcb = vmcb_of(cpu);

    vmcb->rip += bytes;
    vmcb->interrupt_shadow = 0;
}

static void set_efer(struct cpu *cpu, uint64_t efer)
{
    vmcb_of(cpu)->efer = efer | EFER_SVME; /* VMRUN fails without it */
}

static bool has_error_code(uint32_t vector)
{
    return vector == VECTOR_GENERAL_PROTECTION;
}

static void inject_exception(struct cpu *cpu, uint32_t vector)
{
    /* Two do not fit: what was on its way is first, the NMI comes after the next exit. */
    if (vector == VECTOR_NMI && (vmcb_of(cpu)->event & EVENT_VALID)) {
        __atomic_store_n(&cpu->nmi, 1, __ATOMIC_RELAXED);
        return;
    }
    vmcb_of(cpu)->event = EVENT_VALID | vector | (vector == VECTOR_NMI ? EVENT_NMI : EVENT_EXCEPTION) |
                          (has_error_code(vector) ? EVENT_ERROR : 0);
}

static bool inject_interrupt(struct cpu *cpu, uint8_t vector)
{
    struct vmcb *vmcb = vmcb_of(cpu);

    if (!(vmcb->event & EVENT_VALID) && (vmcb->rflags & RFLAGS_IF) && !(vmcb->interrupt_shadow & 1)) {
        vmcb->event = EVENT_VALID | EVENT_INTERRUPT | vector;
        return true;
    }
    /* A virtual interrupt that is never delivered, for its intercept comes first (section 15.21.4). */
    vmcb->vintr |= VINTR_REQUEST;
    vmcb->intercepts |= INTERCEPT_WINDOW;
    return false;
}

static uint64_t after_nmi(uint64_t rip)
{
    return rip >= physical_of(svm_wait_from) && rip < physical_of(svm_wait_to) ? physical_of(svm_wait_on) : rip;
}

static uint64_t nested_page(uint64_t address, uint32_t level, bool writable)
{
    return address | PAGE_PRESENT | PAGE_USER | (writable ? PAGE_WRITABLE : 0) | (level > 0 ? PAGE_LARGE : 0);
}

static uint64_t nested_table(uint64_t address)
{
    return address | PAGE_PRESENT | PAGE_USER | PAGE_WRITABLE;
}

static bool huge_pages(void)
{
    return (cpuid(CPUID_EXTENDED_FEATURES, 0).edx & CPUID_EDX_HUGE_PAGES) != 0;
}

const struct vendor svm = {
    .name = "AMD SVM",
    .present = present,
    .configure = configure,
    .enable = enable,
    .begin = begin,
    .sipi = sipi,
    .run = run,
    .state = state,
    .skip = skip,
    .set_efer = set_efer,
    .inject_exception = inject_exception,
    .inject_interrupt = inject_interrupt,
    .wait = svm_wait,
    .after_nmi = after_nmi,
    .nested_page = nested_page,
    .nested_table = nested_table,
    .huge_pages = huge_pages,
};
