/* SPDX-License-Identifier: MIT */
/*
 * Ways in: from the boot loader (Multiboot 0.6.96), from INIT and SIPI for the other processors, from exceptions and
 * interrupts. And the one instruction sequence that waits.
 */
#include "layout.h"

#define MULTIBOOT_MAGIC 0x1badb002
#define MULTIBOOT_FLAGS 3 /* modules on page boundaries, memory map */
#define CR0_PE_ET_NE_WP_PG 0x80010031
#define CR0_PE 1
#define CR4_PAE 0x20
#define MSR_EFER 0xc0000080
#define EFER_LME_NXE 0x900
#define PTE_TABLE 3   /* present, writable */
#define PTE_LARGE 0x83

    .section .multiboot, "a"
    .balign 4
    .long MULTIBOOT_MAGIC, MULTIBOOT_FLAGS, -(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS)

    .text
    .code32
    .globl multiboot_entry
multiboot_entry:
    cli
    cld
    movl %eax, %esi /* magic and information: where the System V ABI has the second and first argument */
    movl %ebx, %edi
    /* 4 GiB of identity map in 2 MiB pages: one table of tables, four tables. */
    movl $boot_level4, %eax
    movl $boot_level3 + PTE_TABLE, (%eax)
    movl $boot_level3, %eax
    movl $boot_level2 + PTE_TABLE, %edx
    movl $4, %ecx
1:  movl %edx, (%eax)
    addl $8, %eax
    addl $4096, %edx
    loop 1b
    movl $boot_level2, %eax
    movl $PTE_LARGE, %edx
    movl $2048, %ecx
2:  movl %edx, (%eax)
    addl $8, %eax
    addl $0x200000, %edx
    loop 2b
    movl $processors + STACK_BYTES, %esp
    movl $3f, %ebp
    jmp to_long_mode
    .code64
3:  call boot
    ud2

/* 32-bit, paging off; goes on at EBP in 64-bit mode. Uses EAX, ECX, EDX. */
    .code32
to_long_mode:
    movl $CR4_PAE, %eax
    movl %eax, %cr4
    movl $boot_level4, %eax
    movl %eax, %cr3
    movl $MSR_EFER, %ecx
    movl $EFER_LME_NXE, %eax
    xorl %edx, %edx
    wrmsr
    movl $CR0_PE_ET_NE_WP_PG, %eax
    movl %eax, %cr0
    lgdt gdt_pointer
    ljmp $SELECTOR_CODE, $1f
    .code64
1:  movl $SELECTOR_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movl %esp, %esp /* the upper halves are undefined */
    movl %ebp, %ebp
    movl %esi, %esi
    movl %edi, %edi
    jmp *%rbp

    .section .rodata
    .balign 8
gdt:
    .quad 0
    .quad 0x00af9b000000ffff /* 64-bit code */
    .quad 0x00cf93000000ffff /* data */
    .quad 0x00cf9b000000ffff /* 32-bit code, on the way from real mode */
gdt_end:
    .globl gdt_pointer
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt

/*
 * Where a SIPI begins: copied to TRAMPOLINE, a page below 1 MiB. The stack of the processor that starts lies in
 * starting_stack; one starts at a time.
 */
    .globl trampoline, trampoline_end
    .code16
trampoline:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl TRAMPOLINE + trampoline_gdt - trampoline
    movl $CR0_PE, %eax
    movl %eax, %cr0
    ljmpl $SELECTOR_CODE32, $started_entry
    .balign 4
trampoline_gdt:
    .word gdt_end - gdt - 1
    .long gdt
trampoline_end:

    .text
    .code32
started_entry:
    movl $SELECTOR_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $1f, %ebp
    jmp to_long_mode
    .code64
1:  movq starting_stack, %rsp
    leaq -STACK_BYTES(%rsp), %rdi
    call started
    ud2

/* ---- Exceptions and interrupts ---- */

    .macro stub number, has_error
    .if !\has_error
    pushq $0 /* two bytes */
    .endif
    .byte 0x68 /* pushq, with four bytes of immediate */
    .long \number
    .byte 0xe9 /* jmp, with four bytes of displacement */
    .long interrupt_common - (. + 4)
    .balign STUB_BYTES
    .endm

/* Exceptions, then interrupts from outside: the same vectors, but none has an error code. */
    .globl exception_stubs, interrupt_stubs
    .balign STUB_BYTES
exception_stubs:
    .set number, 0
    .rept 256
    stub number, (number == 8 || (number >= 10 && number <= 14) || number == 17 || number == 21 || number == 29 || number == 30)
    .set number, number + 1
    .endr
interrupt_stubs:
    .rept 256
    stub number, 0
    .set number, number + 1
    .endr

interrupt_common: /* struct frame: registers, vector, error, and what the processor pushed */
    pushq %r15
    pushq %r14
    pushq %r13
    pushq %r12
    pushq %r11
    pushq %r10
    pushq %r9
    pushq %r8
    pushq %rdi
    pushq %rsi
    pushq %rbp
    pushq %rbx
    pushq %rdx
    pushq %rcx
    pushq %rax
    movq %rsp, %rdi
    movq %rsp, %rsi
    andq $-STACK_BYTES, %rsi /* struct cpu lies at the stack's bottom */
    cld
    call interrupted
    popq %rax
    popq %rcx
    popq %rdx
    popq %rbx
    popq %rbp
    popq %rsi
    popq %rdi
    popq %r8
    popq %r9
    popq %r10
    popq %r11
    popq %r12
    popq %r13
    popq %r14
    popq %r15
    addq $16, %rsp
    iretq

    .bss
    .balign 4096
boot_level4: .skip 4096
boot_level3: .skip 4096
boot_level2: .skip 4 * 4096

    .section .note.GNU-stack, "", @progbits
