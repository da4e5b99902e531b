/* SPDX-License-Identifier: MIT */
/* AMD's virtualization extension: structures and numbers (AMD APM volume 2, chapter 15, appendices B and C). */
#ifndef X86_SVM_H
#define X86_SVM_H

#include <hv_core/abi.h>

#define CPUID_EXTENDED_FEATURES 0x80000001u
#define CPUID_ECX_SVM (1u << 2)
#define CPUID_EDX_HUGE_PAGES (1u << 26)
#define CPUID_SVM 0x8000000au
#define CPUID_SVM_EDX_NESTED_PAGING (1u << 0)

#define MSR_VM_CR 0xc0010114u
#define MSR_VM_HSAVE_PA 0xc0010117u
#define MSR_SMM_KEY 0xc0010119u
#define VM_CR_REDIRECT_INIT (1u << 1)
#define VM_CR_DISABLE_SVM (1u << 4)

/* Intercepts, in the words at 0x00c and 0x010. */
#define INTERCEPT_INTERRUPT (1u << 0)
#define INTERCEPT_NMI (1u << 1)
#define INTERCEPT_INIT (1u << 3)
#define INTERCEPT_WINDOW (1u << 4)
#define INTERCEPT_CPUID (1u << 18)
#define INTERCEPT_INVLPGA (1u << 26)
#define INTERCEPT_MSR (1u << 28)
#define INTERCEPT_SHUTDOWN (1u << 31)
#define INTERCEPT_VMRUN (1u << 0)
#define INTERCEPT_VMMCALL (1u << 1)
#define INTERCEPT_VMLOAD (1u << 2)
#define INTERCEPT_VMSAVE (1u << 3)
#define INTERCEPT_STGI (1u << 4)
#define INTERCEPT_CLGI (1u << 5)
#define INTERCEPT_SKINIT (1u << 6)

#define TLB_FLUSH_ALL 1u

/* vintr, at 0x060 */
#define VINTR_REQUEST (1ull << 8)
#define VINTR_IGNORE_TPR (1ull << 20)
#define VINTR_MASKING (1ull << 24)

/* eventinj and exitintinfo */
#define EVENT_INTERRUPT (0ull << 8)
#define EVENT_NMI (2ull << 8)
#define EVENT_EXCEPTION (3ull << 8)
#define EVENT_ERROR (1ull << 11)
#define EVENT_VALID (1ull << 31)

#define SVM_EXIT_INTERRUPT 0x60u
#define SVM_EXIT_NMI 0x61u
#define SVM_EXIT_INIT 0x63u
#define SVM_EXIT_WINDOW 0x64u
#define SVM_EXIT_CPUID 0x72u
#define SVM_EXIT_INVLPGA 0x7au
#define SVM_EXIT_MSR 0x7cu
#define SVM_EXIT_SHUTDOWN 0x7fu
#define SVM_EXIT_VMRUN 0x80u
#define SVM_EXIT_VMMCALL 0x81u
#define SVM_EXIT_SKINIT 0x86u
#define SVM_EXIT_NESTED_FAULT 0x400u
#define NESTED_FAULT_WRITE (1ull << 1)

struct vmcb_segment {
    uint16_t selector;   /* 0 */
    uint16_t attributes; /* 2: descriptor bits 55:52 and 47:40 */
    uint32_t limit;      /* 4 */
    uint64_t base;       /* 8 */
};
HV_ASSERT_SIZE(struct vmcb_segment, 16);

#define SEGMENT_CODE16 0x009bu
#define SEGMENT_CODE32 0x0c9bu
#define SEGMENT_CODE64 0x0a9bu
#define SEGMENT_DATA16 0x0093u
#define SEGMENT_DATA32 0x0c93u
#define SEGMENT_LDT 0x0082u
#define SEGMENT_TSS 0x008bu
#define ATTRIBUTE_LONG (1u << 9)
#define ATTRIBUTE_BIG (1u << 10)

struct vmcb {
    /* control area */
    uint16_t cr_read;           /* 0x000 */
    uint16_t cr_write;          /* 0x002 */
    uint16_t dr_read;           /* 0x004 */
    uint16_t dr_write;          /* 0x006 */
    uint32_t exceptions;        /* 0x008 */
    uint32_t intercepts;        /* 0x00c */
    uint32_t intercepts_svm;    /* 0x010 */
    uint32_t intercepts_more;   /* 0x014 */
    uint8_t reserved018[0x28];  /* 0x018 */
    uint64_t iopm;              /* 0x040 */
    uint64_t msrpm;             /* 0x048: physical address of the MSR permission map */
    uint64_t tsc_offset;        /* 0x050 */
    uint32_t asid;              /* 0x058 */
    uint32_t tlb_control;       /* 0x05c */
    uint64_t vintr;             /* 0x060 */
    uint64_t interrupt_shadow;  /* 0x068 */
    uint64_t exit_code;         /* 0x070 */
    uint64_t exit_info1;        /* 0x078 */
    uint64_t exit_info2;        /* 0x080 */
    uint64_t exit_event;        /* 0x088: EXITINTINFO */
    uint64_t nested_enable;     /* 0x090 */
    uint64_t avic_bar;          /* 0x098 */
    uint64_t ghcb;              /* 0x0a0 */
    uint64_t event;             /* 0x0a8: EVENTINJ */
    uint64_t nested_cr3;        /* 0x0b0 */
    uint64_t branch_records;    /* 0x0b8 */
    uint32_t clean;             /* 0x0c0: 0, all is read anew */
    uint32_t reserved0c4;       /* 0x0c4 */
    uint64_t next_rip;          /* 0x0c8 */
    uint8_t fetched;            /* 0x0d0 */
    uint8_t code[15];           /* 0x0d1 */
    uint8_t reserved0e0[0x320]; /* 0x0e0 */
    /* state save area */
    struct vmcb_segment es;     /* 0x400 */
    struct vmcb_segment cs;     /* 0x410 */
    struct vmcb_segment ss;     /* 0x420 */
    struct vmcb_segment ds;     /* 0x430 */
    struct vmcb_segment fs;     /* 0x440 */
    struct vmcb_segment gs;     /* 0x450 */
    struct vmcb_segment gdtr;   /* 0x460 */
    struct vmcb_segment ldtr;   /* 0x470 */
    struct vmcb_segment idtr;   /* 0x480 */
    struct vmcb_segment tr;     /* 0x490 */
    uint8_t reserved4a0[0x2b];  /* 0x4a0 */
    uint8_t cpl;                /* 0x4cb */
    uint32_t reserved4cc;       /* 0x4cc */
    uint64_t efer;              /* 0x4d0 */
    uint8_t reserved4d8[0x70];  /* 0x4d8 */
    uint64_t cr4;               /* 0x548 */
    uint64_t cr3;               /* 0x550 */
    uint64_t cr0;               /* 0x558 */
    uint64_t dr7;               /* 0x560 */
    uint64_t dr6;               /* 0x568 */
    uint64_t rflags;            /* 0x570 */
    uint64_t rip;               /* 0x578 */
    uint8_t reserved580[0x58];  /* 0x580 */
    uint64_t rsp;               /* 0x5d8 */
    uint8_t reserved5e0[0x18];  /* 0x5e0 */
    uint64_t rax;               /* 0x5f8 */
    uint64_t syscall[9];        /* 0x600: STAR, LSTAR, CSTAR, SFMASK, KernelGSBase, SYSENTER_CS, _ESP, _EIP, CR2 */
    uint8_t reserved648[0x20];  /* 0x648 */
    uint64_t pat;               /* 0x668 */
    uint64_t debug_control;     /* 0x670 */
    uint8_t reserved678[0x988]; /* 0x678 */
};
#define VMCB_CR2 8 /* in syscall */

HV_ASSERT_OFFSET(struct vmcb, exceptions, 0x008);
HV_ASSERT_OFFSET(struct vmcb, intercepts, 0x00c);
HV_ASSERT_OFFSET(struct vmcb, intercepts_svm, 0x010);
HV_ASSERT_OFFSET(struct vmcb, intercepts_more, 0x014);
HV_ASSERT_OFFSET(struct vmcb, iopm, 0x040);
HV_ASSERT_OFFSET(struct vmcb, msrpm, 0x048);
HV_ASSERT_OFFSET(struct vmcb, tsc_offset, 0x050);
HV_ASSERT_OFFSET(struct vmcb, asid, 0x058);
HV_ASSERT_OFFSET(struct vmcb, tlb_control, 0x05c);
HV_ASSERT_OFFSET(struct vmcb, vintr, 0x060);
HV_ASSERT_OFFSET(struct vmcb, interrupt_shadow, 0x068);
HV_ASSERT_OFFSET(struct vmcb, exit_code, 0x070);
HV_ASSERT_OFFSET(struct vmcb, exit_info1, 0x078);
HV_ASSERT_OFFSET(struct vmcb, exit_info2, 0x080);
HV_ASSERT_OFFSET(struct vmcb, exit_event, 0x088);
HV_ASSERT_OFFSET(struct vmcb, nested_enable, 0x090);
HV_ASSERT_OFFSET(struct vmcb, avic_bar, 0x098);
HV_ASSERT_OFFSET(struct vmcb, ghcb, 0x0a0);
HV_ASSERT_OFFSET(struct vmcb, event, 0x0a8);
HV_ASSERT_OFFSET(struct vmcb, nested_cr3, 0x0b0);
HV_ASSERT_OFFSET(struct vmcb, branch_records, 0x0b8);
HV_ASSERT_OFFSET(struct vmcb, clean, 0x0c0);
HV_ASSERT_OFFSET(struct vmcb, next_rip, 0x0c8);
HV_ASSERT_OFFSET(struct vmcb, fetched, 0x0d0);
HV_ASSERT_OFFSET(struct vmcb, code, 0x0d1);
HV_ASSERT_OFFSET(struct vmcb, es, 0x400);
HV_ASSERT_OFFSET(struct vmcb, cs, 0x410);
HV_ASSERT_OFFSET(struct vmcb, ss, 0x420);
HV_ASSERT_OFFSET(struct vmcb, ds, 0x430);
HV_ASSERT_OFFSET(struct vmcb, fs, 0x440);
HV_ASSERT_OFFSET(struct vmcb, gs, 0x450);
HV_ASSERT_OFFSET(struct vmcb, gdtr, 0x460);
HV_ASSERT_OFFSET(struct vmcb, ldtr, 0x470);
HV_ASSERT_OFFSET(struct vmcb, idtr, 0x480);
HV_ASSERT_OFFSET(struct vmcb, tr, 0x490);
HV_ASSERT_OFFSET(struct vmcb, cpl, 0x4cb);
HV_ASSERT_OFFSET(struct vmcb, efer, 0x4d0);
HV_ASSERT_OFFSET(struct vmcb, cr4, 0x548);
HV_ASSERT_OFFSET(struct vmcb, cr3, 0x550);
HV_ASSERT_OFFSET(struct vmcb, cr0, 0x558);
HV_ASSERT_OFFSET(struct vmcb, dr7, 0x560);
HV_ASSERT_OFFSET(struct vmcb, dr6, 0x568);
HV_ASSERT_OFFSET(struct vmcb, rflags, 0x570);
HV_ASSERT_OFFSET(struct vmcb, rip, 0x578);
HV_ASSERT_OFFSET(struct vmcb, rsp, 0x5d8);
HV_ASSERT_OFFSET(struct vmcb, rax, 0x5f8);
HV_ASSERT_OFFSET(struct vmcb, syscall, 0x600);
HV_ASSERT_OFFSET(struct vmcb, pat, 0x668);
HV_ASSERT_OFFSET(struct vmcb, debug_control, 0x670);
HV_ASSERT_SIZE(struct vmcb, 4096);

/* svm_enter.S: one VMRUN, with dom0's registers but RAX and RSP in and out; and the windows. */
void svm_enter(uint64_t vmcb, uint64_t *gpr);
void svm_take_nmi(void);        /* lets a held NMI in */
void svm_take_interrupts(void); /* lets NMI and interrupts in */
void svm_wait(const uint32_t *word);
extern const char svm_wait_from[], svm_wait_to[], svm_wait_on[];

#endif
