/* SPDX-License-Identifier: MIT */
/* Instructions, registers and bits of the x86-64 architecture (AMD APM volumes 2 and 3). */
#ifndef X86_X86_H
#define X86_X86_H

#include <hv_core/types.h>

#define CR0_PE (1ull << 0)
#define CR0_ET (1ull << 4)
#define CR0_NE (1ull << 5)
#define CR0_WP (1ull << 16)
#define CR0_NW (1ull << 29)
#define CR0_CD (1ull << 30)
#define CR0_PG (1ull << 31)
#define CR4_PAE (1ull << 5)
#define CR4_LA57 (1ull << 12)
#define CR4_OSXSAVE (1ull << 18)
#define CR4_PKE (1ull << 22)

#define EFER_SCE (1ull << 0)
#define EFER_LME (1ull << 8)
#define EFER_LMA (1ull << 10)
#define EFER_NXE (1ull << 11)
#define EFER_SVME (1ull << 12)
#define EFER_FFXSR (1ull << 14)
#define EFER_TCE (1ull << 15)
#define EFER_AUTOMATIC_IBRS (1ull << 21)

#define RFLAGS_FIXED (1ull << 1)
#define RFLAGS_IF (1ull << 9)

#define MSR_APIC_BASE 0x1bu
#define MSR_X2APIC_FIRST 0x800u
#define MSR_X2APIC_LAST 0x8ffu
#define MSR_EFER 0xc0000080u

#define APIC_BASE_ENABLED (1ull << 11)
#define APIC_BASE_X2APIC (1ull << 10)
#define APIC_BASE_ADDRESS 0x000ffffffffff000ull

#define VECTOR_NMI 2u
#define VECTOR_INVALID_OPCODE 6u
#define VECTOR_GENERAL_PROTECTION 13u
#define VECTOR_SECURITY 30u

#define PAGE_PRESENT (1ull << 0)
#define PAGE_WRITABLE (1ull << 1)
#define PAGE_USER (1ull << 2)
#define PAGE_LARGE (1ull << 7)
#define PAGE_ADDRESS 0x000ffffffffff000ull

struct cpuid {
    uint32_t eax, ebx, ecx, edx;
};

static inline struct cpuid cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct cpuid out;

    __asm__ volatile("cpuid" : "=a"(out.eax), "=b"(out.ebx), "=c"(out.ecx), "=d"(out.edx) : "a"(leaf), "c"(subleaf));
    return out;
}

static inline uint64_t read_msr(uint32_t msr)
{
    uint32_t low;
    uint32_t high;

    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return (uint64_t)high << 32 | low;
}

static inline void write_msr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr" : : "a"((uint32_t)value), "d"((uint32_t)(value >> 32)), "c"(msr) : "memory");
}

static inline uint8_t in8(uint16_t port)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void write_cr3(uint64_t value)
{
    __asm__ volatile("mov %0, %%cr3" : : "r"(value) : "memory");
}

static inline void pause(void)
{
    __asm__ volatile("pause" : : : "memory");
}

/* Stops this processor for ever, whatever comes. */
__attribute__((noreturn)) static inline void halt_for_ever(void)
{
    for (;;)
        __asm__ volatile("cli; hlt");
}

/* Everything is mapped at its physical address; the compiler is not to know that there is no object of C's there. */
static inline void *at_physical(uint64_t address)
{
    __asm__("" : "+r"(address));
    return (void *)address; /* NOLINT(performance-no-int-to-ptr) */
}

static inline uint64_t physical_of(const void *pointer)
{
    return (uint64_t)pointer;
}

static inline uint32_t read_register32(uint64_t address)
{
    return *(volatile uint32_t *)at_physical(address);
}

static inline void write_register32(uint64_t address, uint32_t value)
{
    *(volatile uint32_t *)at_physical(address) = value;
}

#endif
