/* SPDX-License-Identifier: MIT */
/* Numbers that C and assembly share. */
#ifndef X86_LAYOUT_H
#define X86_LAYOUT_H

#define STACK_BYTES 16384 /* of a processor; struct cpu lies at its bottom */
#define STUB_BYTES 16     /* of the code where an interrupt begins */
#define TRAMPOLINE 0x8000 /* where another processor begins, in real mode */

#define SELECTOR_CODE 8
#define SELECTOR_DATA 16
#define SELECTOR_CODE32 24

#define CPU_GPR 0 /* offset of the guest's registers in struct cpu */

#endif
