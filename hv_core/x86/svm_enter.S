/* SPDX-License-Identifier: MIT */
/*
 * Into dom0 and back (AMD APM volume 2, section 15.5). GIF is clear on both sides: no interrupt and no NMI is taken
 * between, and the core saves no state that it does not use itself (segments, SSE, debug registers are dom0's).
 */
#include "layout.h"

    .text
    .globl svm_enter
svm_enter: /* RDI: physical address of the VMCB; RSI: registers, RAX's and RSP's place unused */
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    pushq %rsi
    movq %rdi, %rax
    movq 8(%rsi), %rcx
    movq 16(%rsi), %rdx
    movq 24(%rsi), %rbx
    movq 40(%rsi), %rbp
    movq 56(%rsi), %rdi
    movq 64(%rsi), %r8
    movq 72(%rsi), %r9
    movq 80(%rsi), %r10
    movq 88(%rsi), %r11
    movq 96(%rsi), %r12
    movq 104(%rsi), %r13
    movq 112(%rsi), %r14
    movq 120(%rsi), %r15
    movq 48(%rsi), %rsi
    sti /* where interrupts are intercepted, this flag lets them stop dom0, whatever dom0's own says */
    vmrun %rax
    cli
    movq (%rsp), %rax /* RAX and RSP are the core's again */
    movq %rcx, 8(%rax)
    movq %rdx, 16(%rax)
    movq %rbx, 24(%rax)
    movq %rbp, 40(%rax)
    movq %rsi, 48(%rax)
    movq %rdi, 56(%rax)
    movq %r8, 64(%rax)
    movq %r9, 72(%rax)
    movq %r10, 80(%rax)
    movq %r11, 88(%rax)
    movq %r12, 96(%rax)
    movq %r13, 104(%rax)
    movq %r14, 112(%rax)
    movq %r15, 120(%rax)
    popq %rsi
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    cld
    ret

    .globl svm_take_nmi
svm_take_nmi:
    stgi
    nop
    clgi
    ret

    .globl svm_take_interrupts
svm_take_interrupts:
    stgi
    sti
    nop
    nop
    cli
    clgi
    ret

/* An NMI between the look and HLT would be slept over; the handler sends such a one on to svm_wait_on. */
    .globl svm_wait, svm_wait_from, svm_wait_to, svm_wait_on
svm_wait:
    stgi
svm_wait_from:
    cmpl $0, (%rdi)
    jne svm_wait_on
    hlt
svm_wait_to:
svm_wait_on:
    clgi
    ret

    .section .note.GNU-stack, "", @progbits
