/* SPDX-License-Identifier: MIT */
/* What reaches the core itself: NMIs, interrupts in a window, and its own mistakes. */
#include "home.h"
#include "x86.h"

#define GATE_INTERRUPT 0x8e00u /* present, privilege 0, 64-bit interrupt gate */
#define VECTORS 256u

struct gate {
    uint16_t offset_low;
    uint16_t selector;
    uint16_t kind;
    uint16_t offset_middle;
    uint32_t offset_high;
    uint32_t reserved;
};
HV_ASSERT_SIZE(struct gate, 16);

struct frame { /* as entry.S pushes it */
    uint64_t rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15;
    uint64_t vector;
    uint64_t error;
    uint64_t rip, cs, rflags, rsp, ss;
};
HV_ASSERT_SIZE(struct frame, 176);

void interrupted(struct frame *frame, struct cpu *cpu);
extern const uint8_t exception_stubs[], interrupt_stubs[];

/* Two tables: a vector below 32 is an exception, but in a window it may come from outside, with no error code. */
_Alignas(16) static struct gate exception_gates[VECTORS];
_Alignas(16) static struct gate interrupt_gates[VECTORS];

static void fill(struct gate *gates, const uint8_t *stubs)
{
    for (uint32_t i = 0; i < VECTORS; i++) {
        uint64_t address = physical_of(stubs) + (uint64_t)i * STUB_BYTES;

        gates[i] = (struct gate){
            .offset_low = (uint16_t)address,
            .selector = SELECTOR_CODE,
            .kind = GATE_INTERRUPT,
            .offset_middle = (uint16_t)(address >> 16),
            .offset_high = (uint32_t)(address >> 32),
        };
    }
}

static void load(const struct gate *gates)
{
    struct __attribute__((packed)) {
        uint16_t limit;
        uint64_t base;
    } pointer = {.limit = VECTORS * sizeof(*gates) - 1, .base = physical_of(gates)};

    __asm__ volatile("lidt %0" : : "m"(pointer));
}

void interrupts_make(void)
{
    fill(exception_gates, exception_stubs);
    fill(interrupt_gates, interrupt_stubs);
}

void interrupts_start(void)
{
    load(exception_gates);
}

void interrupts_expected(void)
{
    load(interrupt_gates);
}

static void take_nmi(struct frame *frame, struct cpu *cpu)
{
    /* Nobody of ours sent it: the machine did, and dom0 is to see to it. */
    if (__atomic_exchange_n(&cpu->kicked, 0, __ATOMIC_SEQ_CST) == 0)
        __atomic_store_n(&cpu->nmi, 1, __ATOMIC_RELAXED);
    frame->rip = hypervisor.vendor->after_nmi(frame->rip);
}

void interrupted(struct frame *frame, struct cpu *cpu)
{
    if (frame->vector % VECTORS == VECTOR_NMI) {
        take_nmi(frame, cpu);
    } else if (frame->vector >= VECTORS) {
        cpu->arrived[frame->vector % VECTORS / 64] |= 1ull << (frame->vector % 64);
    } else if (frame->vector == VECTOR_SECURITY) {
        /* INIT, turned into an exception: nobody resets a processor of the core's. */
        cpu->count[COUNT_REFUSED_IPI]++;
    } else {
        uint64_t cr2;

        __asm__("mov %%cr2, %0" : "=r"(cr2));
        log_line(LOG_ERROR, "the core's registers: rax %lx rcx %lx rdx %lx rbx %lx rsp %lx rbp %lx rsi %lx rdi %lx",
                 frame->rax, frame->rcx, frame->rdx, frame->rbx, frame->rsp, frame->rbp, frame->rsi, frame->rdi);
        log_line(LOG_ERROR, "r8 %lx r9 %lx r10 %lx r11 %lx r12 %lx r13 %lx r14 %lx r15 %lx", frame->r8, frame->r9,
                 frame->r10, frame->r11, frame->r12, frame->r13, frame->r14, frame->r15);
        panic("exception %lu, error %lx, at %lx, cr2 %lx, on processor %u", frame->vector, frame->error, frame->rip,
              cr2, cpu->number);
    }
}
