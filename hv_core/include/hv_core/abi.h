/* SPDX-License-Identifier: MIT */
/*
 * The ABI between dom0 and the core: every hypercall, structure, status and ioctl is defined here and nowhere else.
 *
 * Calling. VMMCALL (VMCALL) at CPL 0: RAX = hypercall number, RDI = command, RSI = guest-linear pointer to the
 * argument, RAX = status on return. The argument is copied in once; it is copied out once, and only when the status
 * is HV_OK. The ioctls of /dev/dom0kit carry the same arguments.
 *
 * Physdev operations have Xen's numbers and layouts (xen/include/public/physdev.h, x86-64). What differs from Xen in
 * behaviour is said at the operation. What Xen has no operation for lies under a hypercall number of our own.
 *
 * "irq" is a pIRQ of the calling domain; where the calling domain has not mapped that pIRQ, but owns the GSI of the
 * same number and has not mapped that GSI to another pIRQ, it means this GSI (the identity of 2005).
 *
 * "domain" is HV_DOMID_SELF or the caller's own number; another number only domain 0 may name (HV_NOT_PERMITTED
 * otherwise), and that domain must exist (HV_NO_DOMAIN). So must the caller.
 *
 * A refused call changes nothing. Where several reasons to refuse apply, any of them may be told.
 */
#ifndef HV_CORE_ABI_H
#define HV_CORE_ABI_H

#include <hv_core/types.h>

#define HV_ABI_VERSION 1u

/* ---- Status: one enum; each value is the negative errno of Linux that says the same ---- */

enum hv_status {
    HV_OK = 0,
    HV_NOT_PERMITTED = -1,  /* EPERM: not this domain's pin, vector, message, device; or not a privileged domain */
    HV_NOT_FOUND = -2,      /* ENOENT: nothing there (yet): no vector recorded, end of a list */
    HV_NO_DOMAIN = -3,      /* ESRCH: no such domain */
    HV_TRY_AGAIN = -11,     /* EAGAIN: a move is still draining; the state handed over is out of date */
    HV_FAULT = -14,         /* EFAULT: the argument's address cannot be read or written */
    HV_BUSY = -16,          /* EBUSY: in use; release it first. Or a level interrupt is in service (remote IRR) */
    HV_EXISTS = -17,        /* EEXIST: already there, or taken by another */
    HV_NO_DEVICE = -19,     /* ENODEV: no such PCI function, IOAPIC or ECAM range */
    HV_INVALID = -22,       /* EINVAL: an argument has no meaning */
    HV_NO_SPACE = -28,      /* ENOSPC: no free vector, pIRQ, message, or a compile-time limit is reached */
    HV_OUT_OF_RANGE = -34,  /* ERANGE: a register, pin, vector, processor or destination that does not exist */
    HV_NO_CALL = -38,       /* ENOSYS: no such hypercall number or command */
    HV_NOT_SUPPORTED = -95, /* EOPNOTSUPP: a known call that this core, in this mode, does not do */
};

/* ---- Hypercall numbers ---- */

#define HV_HYPERCALL_PHYSDEV 33u   /* Xen's physdev_op */
#define HV_HYPERCALL_DOM0KIT 0xd0u /* our own; Xen's end at 63 */

/* ---- CPUID: the core's leaves (range reserved for hypervisors) ---- */

#define HV_CPUID_BASE 0x40000000u         /* EAX: highest leaf; EBX, ECX, EDX: the signature */
#define HV_CPUID_SIGNATURE "dom0kit-core" /* 12 bytes, little-endian in EBX, ECX, EDX */
#define HV_CPUID_VERSION 0x40000001u      /* EAX: HV_ABI_VERSION */
#define HV_CPUID_FEATURES 0x40000002u     /* EAX: HV_FEATURE_*; EBX: limit of CPUs; ECX: of IOAPICs; EDX: of domains */
#define HV_CPUID_SHARED_INFO 0x40000003u  /* EAX, EBX: guest-physical address of shared_info, low and high; 0: none */
#define HV_CPUID_COUNTERS 0x40000004u     /* ECX: index; EAX, EBX: exits of that kind; ECX, EDX: its name, 0: no more */

/* ---- Physdev operations ---- */

#define HV_PHYSDEVOP_IRQ_STATUS_QUERY 5u
#define HV_PHYSDEVOP_APIC_READ 8u
#define HV_PHYSDEVOP_APIC_WRITE 9u
#define HV_PHYSDEVOP_ALLOC_IRQ_VECTOR 10u
#define HV_PHYSDEVOP_EOI 12u
#define HV_PHYSDEVOP_MAP_PIRQ 13u
#define HV_PHYSDEVOP_UNMAP_PIRQ 14u
#define HV_PHYSDEVOP_SETUP_GSI 21u
#define HV_PHYSDEVOP_GET_FREE_PIRQ 23u
#define HV_PHYSDEVOP_PCI_MMCFG_RESERVED 24u
#define HV_PHYSDEVOP_PCI_DEVICE_ADD 25u
#define HV_PHYSDEVOP_PCI_DEVICE_REMOVE 26u
#define HV_PHYSDEVOP_PCI_DEVICE_RESET 32u

#define HV_DOMID_SELF 0x7ff0u

/*
 * 5: is an EOI needed, is the line shared? Xen always answers needs_eoi; we answer what is true.
 * HV_INVALID: irq names no interrupt of the caller.
 */
struct hv_irq_status_query {
    uint32_t irq;   /* 0: in */
    uint32_t flags; /* 4: out, HV_IRQ_STATUS_* */
};
#define HV_IRQ_STATUS_NEEDS_EOI 1u /* level triggered */
#define HV_IRQ_STATUS_SHARED 2u    /* mapped by more than one user */

/*
 * 8, 9: one 32-bit register of an IOAPIC, by its index (Intel 82093AA, section 3.2).
 *
 * The caller sees its own view of a redirection entry: what it wrote last (before: what firmware left), with the
 * hardware's delivery status and remote IRR. In direct mode the view is the entry of the hardware.
 * Registers 0, 1, 2 (id, version, arbitration) can be read by domain 0 only, and written by nobody.
 * HV_INVALID: no IOAPIC at that address. HV_OUT_OF_RANGE: no such register. HV_NOT_PERMITTED: not the caller's pin.
 *
 * A write differs from Xen's, which overwrites the mask by the trigger and dies of a bad pin: bounds are checked,
 * a refusal is an error, the mask bit is what was written. Read-only bits (12, 14) are ignored.
 *   The high word of a masked entry is kept, and checked with the next low word.
 *   A low word, or either word of an unmasked entry: HV_INVALID when a reserved bit is set in either word, or the
 *   delivery mode is not Fixed or LowestPriority (a masked write that leaves firmware's mode as it is, passes);
 *   HV_BUSY when the trigger mode would change while remote IRR is set.
 *   An entry to be unmasked (or to stay so) also needs: a vector 0x10 to 0xfe (HV_INVALID), a destination that
 *   exists (HV_OUT_OF_RANGE); direct mode: a (CPU, vector) pair that no other unmasked entry or message has
 *   (HV_EXISTS); intercept mode: a vector of the core's own on the processor of its destination (HV_NO_SPACE when
 *   there is none); an entry bound to another processor moves (HV_TRY_AGAIN while an earlier move is draining).
 * A logical destination is matched with the flat model's ids; of several processors, intercept mode takes the lowest,
 * and direct mode compares nothing. A physical destination 0xff of eight bits is everybody, and no processor's.
 * In direct mode a remapped entry (VT-d with bit 48, AMD-Vi always) has no destination, vector and mode to check: only
 * its reserved bits. In intercept mode a domain knows nothing of a remapper: its entries are never remapped ones.
 * What firmware left unmasked keeps its vector, where it is a legal one, goes to one processor, and is nobody's yet;
 * else it has none until its entry is written.
 */
struct hv_apic {
    uint64_t apic_physbase; /* 0: in, physical address of the IOAPIC */
    uint32_t reg;           /* 8: in, register index, 0 to 255 */
    uint32_t value;         /* 12: in or out */
};

/*
 * 10: the vector of an irq. Intercept mode: allocates one if it has none, on the processor of its view's destination
 * where that has one, else on one of the core's choice. Direct mode: the one that dom0 chose, in an unmasked entry or a
 * message, also for several processors; HV_NOT_FOUND when it has chosen none yet. HV_INVALID: irq names no interrupt of
 * the caller. HV_NO_SPACE.
 */
struct hv_alloc_irq_vector {
    uint32_t irq;    /* 0: in */
    uint32_t vector; /* 4: out */
};

/*
 * 12: the caller has dealt with irq; ends the draining of a move and, in intercept mode, the service of a level GSI
 * (remote IRR). HV_INVALID: irq names no interrupt of the caller.
 */
struct hv_eoi {
    uint32_t irq; /* 0: in */
};

/*
 * 13: give a GSI or MSI messages of a function a pIRQ of a domain.
 *
 * type GSI: index = GSI; pirq = the wanted one, or negative for the lowest free one from 16 on. A level GSI may be
 *   mapped again, to the same pIRQ (negative, or that number): it counts one user more; an edge GSI is HV_EXISTS.
 *   (Xen does not count.) A GSI never set up counts as level when its view's trigger bit says so.
 * type MSI: segment 0, type MSI_SEG: segment in the high 16 bits of bus; index negative; entry_nr = message number
 *   (0 to 2047), MSI with table_base 0 (then entry_nr must be 0), MSI-X otherwise; bits 15:8 of bus must be 0 (type
 *   MSI ignores all above 7); pirq as above, but negative takes the lowest free one from the number of GSIs on (at
 *   least 16; from 16 on where that reaches the limit of pIRQs).
 * type MULTI_MSI: as MSI_SEG, entry_nr = count of messages, a power of two up to 32, table_base 0; pirq negative or
 *   the first of the run; the pIRQs are consecutive, in intercept mode the vectors too, on one processor.
 *
 * HV_INVALID: type, index, count, or no such GSI. HV_OUT_OF_RANGE: pirq or entry_nr beyond the limit.
 * HV_NO_DEVICE: function not added. HV_NOT_PERMITTED: GSI or function of another domain. HV_EXISTS: pirq, GSI or
 * message already mapped; a function has MSI or MSI-X messages, not both. HV_NO_SPACE: no pIRQ, message, vector.
 */
struct hv_map_pirq {
    uint16_t domid;      /* 0: in */
    uint16_t padding2;   /* 2: ignored, as in Xen */
    int32_t type;        /* 4: in, HV_MAP_PIRQ_* */
    int32_t index;       /* 8: in */
    int32_t pirq;        /* 12: in and out */
    int32_t bus;         /* 16: in, segment << 16 | bus */
    int32_t devfn;       /* 20: in, device << 3 | function */
    int32_t entry_nr;    /* 24: in */
    uint32_t padding28;  /* 28: ignored */
    uint64_t table_base; /* 32: in, physical address of the MSI-X table, or 0 */
};
#define HV_MAP_PIRQ_MSI 0
#define HV_MAP_PIRQ_GSI 1
#define HV_MAP_PIRQ_MSI_SEG 3
#define HV_MAP_PIRQ_MULTI_MSI 4

/*
 * 14: one user of the pIRQ less; the last one frees it: vector and message are free again, a GSI is masked and no more
 * set up.
 * HV_INVALID: not mapped.
 */
struct hv_unmap_pirq {
    uint16_t domid;    /* 0: in */
    uint16_t padding2; /* 2: ignored */
    int32_t pirq;      /* 4: in */
};

/*
 * 21: trigger and polarity of a GSI of the caller; intercept mode: it gets a vector as by alloc_irq_vector
 * if it has none. The entry stays masked or not as it is (Xen unmasks edge ones).
 * HV_INVALID: no such GSI, triggering or polarity above 1. HV_EXISTS: set up before. HV_NOT_PERMITTED. HV_NO_SPACE.
 * HV_BUSY: trigger would change while remote IRR is set. And what refuses the low word of its view by apic_write.
 */
struct hv_setup_gsi {
    int32_t gsi;        /* 0: in */
    uint8_t triggering; /* 4: in, 0 edge, 1 level */
    uint8_t polarity;   /* 5: in, 0 active high, 1 active low */
    uint16_t padding6;  /* 6: ignored */
};

/*
 * 23: a pIRQ that map_pirq would give for this type and a negative pirq. It is not reserved.
 * HV_INVALID: type. HV_NO_SPACE: none.
 */
struct hv_get_free_pirq {
    int32_t type;  /* 0: in, HV_MAP_PIRQ_MSI, _GSI or _MSI_SEG */
    uint32_t pirq; /* 4: out */
};

/*
 * 24: the ECAM range of an MCFG entry is (not) reserved by firmware. Domain 0 only.
 * HV_NO_DEVICE: no MCFG entry with this address and segment that holds these buses. HV_INVALID: unknown flags.
 */
struct hv_pci_mmcfg_reserved {
    uint64_t address;  /* 0: in, of bus 0 */
    uint16_t segment;  /* 8: in */
    uint8_t start_bus; /* 10: in */
    uint8_t end_bus;   /* 11: in */
    uint32_t flags;    /* 12: in, bit 0: reserved */
};
#define HV_PCI_MMCFG_RESERVED 1u

/*
 * 25: a function has appeared; it belongs to domain 0. Domain 0 only. The same again is HV_OK, with other values
 * HV_EXISTS. HV_INVALID: unknown flags. HV_NO_DEVICE: a virtual function before its physical one. HV_NO_SPACE.
 */
struct hv_pci_device_add {
    uint16_t seg;         /* 0: in */
    uint8_t bus;          /* 2: in */
    uint8_t devfn;        /* 3: in */
    uint32_t flags;       /* 4: in, HV_PCI_DEV_* */
    uint8_t physfn_bus;   /* 8: in, of the physical function, with HV_PCI_DEV_VIRTFN */
    uint8_t physfn_devfn; /* 9: in */
    uint16_t padding10;   /* 10: ignored */
};
struct hv_pci_device_add_pxm {       /* with HV_PCI_DEV_PXM one word follows */
    struct hv_pci_device_add device; /* 0 */
    uint32_t pxm;                    /* 12: in, proximity domain (ACPI _PXM) */
};
#define HV_PCI_DEV_EXTFN 1u
#define HV_PCI_DEV_VIRTFN 2u
#define HV_PCI_DEV_PXM 4u

/*
 * 26: a function is gone: its messages, vectors and pIRQs are freed. Domain 0 only. HV_NO_DEVICE: not added.
 * HV_BUSY: assigned to another domain, or virtual functions of it are left.
 */
struct hv_pci_device {
    uint16_t seg;  /* 0: in */
    uint8_t bus;   /* 2: in */
    uint8_t devfn; /* 3: in */
};

/*
 * 32: a function was reset: its messages are freed as by unmap_pirq. Domain 0 only. HV_NO_DEVICE: not added.
 * HV_INVALID: flags above 3.
 */
struct hv_pci_device_reset {
    struct hv_pci_device dev; /* 0: in */
    uint32_t flags;           /* 4: in, 0 cold, 1 warm, 2 hot, 3 function level */
};

/* ---- Our own calls ---- */

#define HV_OP_INFORMATION 0u
#define HV_OP_MAP_SHARED_INFO 1u
#define HV_OP_HAND_OVER 2u
#define HV_OP_QUERY_VECTOR 3u
#define HV_OP_SET_AFFINITY 4u
#define HV_OP_IOAPIC_ADD 5u
#define HV_OP_IOAPIC_REMOVE 6u
#define HV_OP_DOMAIN_CREATE 7u
#define HV_OP_DOMAIN_DESTROY 8u
#define HV_OP_ASSIGN_DEVICE 9u
#define HV_OP_RELEASE_DEVICE 10u
#define HV_OP_ASSIGN_GSI 11u
#define HV_OP_RELEASE_GSI 12u
#define HV_OP_READ_INTERRUPT 13u
#define HV_OP_READ_REPORT 14u
#define HV_OP_MSI_READ 15u
#define HV_OP_MSI_WRITE 16u
#define HV_OP_COUNT 17u

/*
 * Each argument of ours begins with this header. HV_INVALID when version is not HV_ABI_VERSION, bytes is not the size
 * of the structure, or a reserved field is not zero.
 */
struct hv_header {
    uint16_t version; /* 0 */
    uint16_t bytes;   /* 2 */
    uint32_t zero;    /* 4: reserved */
};

/* 0: what this core is, can and holds. Any domain. */
struct hv_information {
    struct hv_header header;  /* 0 */
    uint32_t features;        /* 8: out, HV_FEATURE_* */
    uint32_t mode;            /* 12: out, enum hv_mode */
    uint32_t limit_cpus;      /* 16: out, compile-time limits */
    uint32_t limit_ioapics;   /* 20 */
    uint32_t limit_domains;   /* 24 */
    uint32_t limit_pirqs;     /* 28: per domain */
    uint32_t limit_functions; /* 32 */
    uint32_t limit_messages;  /* 36 */
    uint32_t cpus;            /* 40: out, present */
    uint32_t ioapics;         /* 44 */
    uint32_t gsis;            /* 48: highest GSI + 1 */
    uint32_t domains;         /* 52 */
    uint32_t functions;       /* 56 */
    uint32_t messages;        /* 60 */
    uint32_t reports;         /* 64: entries HV_OP_READ_REPORT can give */
    uint32_t reports_lost;    /* 68: more than the list holds */
    uint64_t calls;           /* 72: out, hypercalls since the start */
    uint64_t calls_refused;   /* 80 */
    uint64_t bytes;           /* 88: out, size of the core's one structure */
    uint32_t entry_format;    /* 96: out, enum hv_format of redirection entries */
    uint32_t message_format;  /* 100: out, enum hv_format of MSI messages */
    uint64_t trapped;         /* 104: out, trapped accesses to IOAPIC registers since the start */
    uint64_t trapped_refused; /* 112 */
};
#define HV_FEATURE_DIRECT 1u        /* direct mode is on */
#define HV_FEATURE_INTERCEPT 2u     /* intercept mode is on: the core allocates vectors */
#define HV_FEATURE_MODEL 4u         /* the machine is a model: nothing reaches hardware */
#define HV_FEATURE_DMAR 8u          /* the firmware has a DMAR table */
#define HV_FEATURE_IVRS 16u         /* the firmware has an IVRS table */
#define HV_FEATURE_SHARED_INFO 32u  /* shared_info is mapped */
#define HV_FEATURE_HANDED_OVER 64u  /* dom0 has handed over the ACPI tables */
#define HV_FEATURE_BOOKKEEPING 128u /* other domains exist on paper only: no second guest can run */

enum hv_mode {
    HV_MODE_DIRECT = 1,    /* vectors are dom0's choice: validated and recorded */
    HV_MODE_INTERCEPT = 2, /* vectors are the core's choice: allocated, translated on delivery */
};

/*
 * How the bits of a redirection entry or an MSI message are to be read: a property of the interrupt remapper.
 * Reserved in an entry: bits 55:17; with extended destinations 48:17; remapped by VT-d 47:17 and 10:8; by AMD-Vi 63:17
 * and 11. Reserved in a message's address: bits 11:4, 1 and 0; with extended destinations 4, 1 and 0; of a remapped one
 * none. In its data: bits 31:16 and 13:11; remapped by VT-d 31:16, by AMD-Vi 31:11.
 */
enum hv_format {
    HV_FORMAT_COMPATIBILITY = 0,        /* 8-bit destination */
    HV_FORMAT_EXTENDED_DESTINATION = 1, /* 15-bit destination, announced by a hypervisor below */
    HV_FORMAT_VTD = 2,                  /* Intel VT-d 4.1, sections 5.1.5.1 and 5.1.5.2 */
    HV_FORMAT_AMD_VI = 3,               /* AMD IOMMU 3.08, section 2.2.5 */
};

/*
 * 1: put the two shared_info pages at this guest-physical address; 0 takes them away. Domain 0 only; the pages are
 * read-only to it. HV_INVALID: not page aligned, or the two pages would pass 2^52.
 */
struct hv_map_shared_info {
    struct hv_header header; /* 0 */
    uint64_t guest_physical; /* 8: in */
};

/*
 * 2: dom0 has verified these tables. Domain 0 only. The core looks for itself: HV_INVALID when there is no RSDP with
 * good checksums at rsdp, or it does not point to xsdt, or no XSDT (RSDT, when revision 0) with a good checksum is
 * there. HV_TRY_AGAIN: counter is not the one in the block now. The counter in the block goes up.
 */
struct hv_hand_over {
    struct hv_header header; /* 0 */
    uint64_t rsdp;           /* 8: in, physical address */
    uint64_t xsdt;           /* 16: in, physical address of XSDT, or of RSDT */
    uint64_t counter;        /* 24: in */
};

/* 3: IRQ to vector. HV_INVALID: irq names no interrupt of that domain. HV_NOT_FOUND: it has no vector. */
struct hv_query_vector {
    struct hv_header header; /* 0 */
    uint32_t domain;         /* 8: in */
    uint32_t irq;            /* 12: in */
    uint32_t cpu;     /* 16: out, index of the processor in the MADT's order; HV_NONE: logical destination of several */
    uint32_t apic_id; /* 20: out, local APIC id (logical destination: that) */
    uint32_t vector;  /* 24: out */
    uint32_t flags;   /* 28: out, HV_INTERRUPT_* */
};
#define HV_NONE 0xffffffffu

/*
 * 4: move an interrupt to a processor; the destination in a GSI's view follows. The old vector stays taken until
 * it has drained: until the domain's next EOI, or the first arrival on the new one (an entry not unmasked since it got
 * its vector has nothing to drain). HV_NOT_SUPPORTED: direct mode (dom0 does it itself). HV_INVALID: irq.
 * HV_OUT_OF_RANGE: no such processor, or its APIC id does not fit the format. HV_NOT_FOUND: no vector yet.
 * HV_TRY_AGAIN: a move is draining. HV_NO_SPACE. A message of a multi-message run is HV_NOT_SUPPORTED.
 */
struct hv_set_affinity {
    struct hv_header header; /* 0 */
    uint32_t domain;         /* 8: in */
    uint32_t irq;            /* 12: in */
    uint32_t cpu;            /* 16: in */
    uint32_t zero;           /* 20 */
};

/*
 * 5: an IOAPIC has appeared: all its pins are masked and belong to domain 0. Domain 0 only.
 * HV_INVALID: address 0, not a multiple of 256, or beyond 2^52. HV_EXISTS: an IOAPIC is at that address, or the GSIs
 * overlap those of another. HV_NO_DEVICE: the version register reads all ones or all zeros. HV_NO_SPACE: limit.
 * HV_OUT_OF_RANGE: gsi_base + pins is beyond HV_LIMIT_GSIS.
 */
struct hv_ioapic_add {
    struct hv_header header; /* 0 */
    uint64_t address;        /* 8: in */
    uint32_t gsi_base;       /* 16: in */
    uint32_t pins;           /* 20: out, what it has; 120 at most */
};

/* 6: an IOAPIC goes. Domain 0 only. HV_NO_DEVICE: none there. HV_BUSY: a pin is unmasked, mapped, set up or assigned.
 */
struct hv_ioapic_remove {
    struct hv_header header; /* 0 */
    uint64_t address;        /* 8: in */
};

/*
 * 7: a domain for the books. Domain 0 only. domain = 0xffff: the lowest free number.
 * HV_EXISTS: taken. HV_OUT_OF_RANGE: beyond the limit. HV_NO_SPACE: none free.
 */
struct hv_domain_create {
    struct hv_header header; /* 0 */
    uint32_t domain;         /* 8: in and out */
    /* 12: in, how many vectors it may hold at most, 0: no limit but the machine's. A vector that takes another's place
     * is taken before that is given back. */
    uint32_t vectors;
};
#define HV_DOMAIN_ANY 0xffffu

/*
 * 8: a domain ends: its pIRQs, vectors and messages are freed, its devices and GSIs (masked) are domain 0's again.
 * Domain 0 only. HV_NO_DOMAIN. HV_NOT_PERMITTED: domain 0 itself.
 */
struct hv_domain_destroy {
    struct hv_header header; /* 0 */
    uint32_t domain;         /* 8: in */
    uint32_t zero;           /* 12 */
};

/*
 * 9: domain 0 gives a function away; 10: takes it back, which frees its messages. Domain 0 only.
 * HV_NO_DOMAIN. HV_INVALID: to domain 0. HV_NO_DEVICE: not added. HV_BUSY (9): not domain 0's, or it has messages.
 * HV_NOT_FOUND (10): it is not that domain's.
 */
struct hv_assign_device {
    struct hv_header header;     /* 0 */
    uint32_t domain;             /* 8: in */
    struct hv_pci_device device; /* 12: in */
};

/*
 * 11: domain 0 gives a GSI away, masked; 12: takes it back, which masks it and frees vector and pIRQ. Domain 0 only.
 * HV_NO_DOMAIN. HV_INVALID: to domain 0, no such GSI. HV_BUSY (11): not domain 0's, mapped, set up, or unmasked.
 * HV_NOT_FOUND (12): it is not that domain's.
 */
struct hv_assign_gsi {
    struct hv_header header; /* 0 */
    uint32_t domain;         /* 8: in */
    uint32_t gsi;            /* 12: in */
};

/*
 * 13: the interrupts of a domain, one a call: begin with cursor 0, go on with the cursor returned. kind is
 * HV_KIND_NONE when the part searched held none; HV_NOT_FOUND at the end.
 */
struct hv_read_interrupt {
    struct hv_header header;     /* 0 */
    uint32_t domain;             /* 8: in */
    uint32_t cursor;             /* 12: in and out */
    uint32_t kind;               /* 16: out, HV_KIND_* */
    uint32_t pirq;               /* 20: out, HV_NONE: not mapped */
    uint32_t gsi;                /* 24: out, or HV_NONE */
    struct hv_pci_device device; /* 28: out, of a message */
    uint32_t entry;              /* 32: out, message number of that function */
    uint32_t cpu;                /* 36: out, HV_NONE: no vector, or logical destination of several */
    uint32_t vector;             /* 40: out, HV_NONE: none */
    uint32_t flags;              /* 44: out, HV_INTERRUPT_* */
};
#define HV_KIND_NONE 0u
#define HV_KIND_GSI 1u
#define HV_KIND_MSI 2u
#define HV_KIND_MSIX 3u
#define HV_INTERRUPT_MASKED 1u
#define HV_INTERRUPT_LEVEL 2u
#define HV_INTERRUPT_ACTIVE_LOW 4u
#define HV_INTERRUPT_SHARED 8u
#define HV_INTERRUPT_DRAINING 16u /* a move has not ended: the old vector is still taken */
#define HV_INTERRUPT_SET_UP 32u   /* setup_gsi was called */
#define HV_INTERRUPT_REMAPPED 64u /* the entry or message is in a remapped format: cpu and vector are unknown to us */

/* 14: what the core found wrong when it started or added an IOAPIC. Domain 0 only. HV_NOT_FOUND: no entry index. */
struct hv_read_report {
    struct hv_header header; /* 0 */
    uint32_t index;          /* 8: in */
    uint32_t code;           /* 12: out, HV_REPORT_* */
    uint64_t where;          /* 16: out, physical address of the table or IOAPIC */
    uint64_t value;          /* 24: out, the number that is wrong */
};
#define HV_REPORT_NO_RSDP 1u       /* no RSDP with a good checksum where the home said */
#define HV_REPORT_NO_ROOT_TABLE 2u /* neither XSDT nor RSDT is good */
#define HV_REPORT_BAD_TABLE 3u     /* length or checksum; value: its signature */
#define HV_REPORT_NO_MADT 4u
#define HV_REPORT_SECOND_TABLE 5u    /* a second MADT or MCFG, ignored; value: its signature */
#define HV_REPORT_BAD_ENTRY 6u       /* an entry too short or running over the end; value: its offset */
#define HV_REPORT_CPU_LIMIT 7u       /* more processors than the limit; value: APIC id of the first left out */
#define HV_REPORT_DUPLICATE_CPU 8u   /* value: APIC id */
#define HV_REPORT_IOAPIC_LIMIT 9u    /* value: address of the first left out */
#define HV_REPORT_IOAPIC_ADDRESS 10u /* address 0, unaligned, or used twice */
#define HV_REPORT_IOAPIC_OVERLAP 11u /* its GSIs overlap another's or pass the limit: not used; value: GSI base */
#define HV_REPORT_IOAPIC_ABSENT 12u  /* the version register reads all ones or all zeros: not used */
#define HV_REPORT_IOAPIC_PINS 13u    /* claims more than 120 pins: clipped; value: claimed */
#define HV_REPORT_GSI_GAP 14u        /* no IOAPIC has this GSI, though one has a higher; value: first GSI missing */
#define HV_REPORT_OVERRIDE 15u       /* of a source above 15 or a GSI no IOAPIC has, or a second one; value: source */
#define HV_REPORT_MCFG_LIMIT 16u     /* value: address of the first left out */
#define HV_REPORT_MCFG_ENTRY 17u     /* unaligned, end before start, or overlapping; value: address */
#define HV_REPORT_FIRMWARE_ENTRY 18u /* firmware left it unmasked with an SMI, NMI, INIT or ExtINT; value: GSI */
#define HV_REPORT_NO_CPU 19u         /* the MADT enables no processor */

/*
 * 15: the message of a pIRQ, for the device's capability or table. Intercept mode: composed by the core; direct mode:
 * as recorded, HV_NOT_FOUND when none was. HV_INVALID: no message of that domain.
 * 16: direct mode: dom0 chose this message. HV_NOT_SUPPORTED: intercept mode. HV_INVALID: no message of that domain,
 * not the format's address, reserved bits, delivery mode neither Fixed nor LowestPriority, level trigger, vector
 * outside 0x10 to 0xfe. HV_OUT_OF_RANGE: no such destination. HV_EXISTS: the (CPU, vector) pair is another's.
 */
struct hv_msi {
    struct hv_header header; /* 0 */
    uint32_t domain;         /* 8: in */
    uint32_t irq;            /* 12: in, a pIRQ */
    uint64_t address;        /* 16: in or out */
    uint32_t data;           /* 24: in or out */
    uint32_t zero;           /* 28: reserved */
};

/* Room for any argument, for a home to copy into. */
union hv_argument {
    struct hv_irq_status_query irq_status_query;
    struct hv_apic apic;
    struct hv_alloc_irq_vector alloc_irq_vector;
    struct hv_eoi eoi;
    struct hv_map_pirq map_pirq;
    struct hv_unmap_pirq unmap_pirq;
    struct hv_setup_gsi setup_gsi;
    struct hv_get_free_pirq get_free_pirq;
    struct hv_pci_mmcfg_reserved pci_mmcfg_reserved;
    struct hv_pci_device_add_pxm pci_device_add;
    struct hv_pci_device pci_device_remove;
    struct hv_pci_device_reset pci_device_reset;
    struct hv_header header;
    struct hv_information information;
    struct hv_map_shared_info map_shared_info;
    struct hv_hand_over hand_over;
    struct hv_query_vector query_vector;
    struct hv_set_affinity set_affinity;
    struct hv_ioapic_add ioapic_add;
    struct hv_ioapic_remove ioapic_remove;
    struct hv_domain_create domain_create;
    struct hv_domain_destroy domain_destroy;
    struct hv_assign_device assign_device;
    struct hv_assign_gsi assign_gsi;
    struct hv_read_interrupt read_interrupt;
    struct hv_read_report read_report;
    struct hv_msi msi;
};

/* ---- shared_info: two pages, owned by the core, read-only to dom0 ---- */

#define HV_PAGE_BYTES 4096u
#define HV_SHARED_INFO_XEN_BYTES 3136u        /* Xen's struct shared_info; all zero here */
#define HV_SHARED_BLOCK_MAGIC 0x6b306d6f64ULL /* "dom0k" */
#define HV_SHARED_BLOCK_VERSION 1u

/*
 * Behind Xen's part of the first page. A reader takes counter (again while it is odd: the core is writing), copies
 * block and list, and takes counter once more: equal, the copy is whole. The 32-bit words of the block and of the
 * list's used entries, checksum included, add up to zero modulo 2^32.
 */
struct hv_shared_block {
    uint64_t magic;       /* 0 */
    uint32_t version;     /* 8 */
    uint32_t bytes;       /* 12: of this block */
    uint32_t checksum;    /* 16 */
    uint32_t flags;       /* 20: HV_SHARED_* */
    uint64_t counter;     /* 24: goes up by two at each change */
    uint64_t rsdp;        /* 32: physical address, 0: unknown */
    uint64_t xsdt;        /* 40: of XSDT, or RSDT; 0: unknown */
    uint32_t list_offset; /* 48: of the IOAPIC list, from the start of the first page */
    uint32_t list_entry;  /* 52: bytes of an entry */
    uint32_t list_count;  /* 56: entries used */
    uint32_t zero;        /* 60: reserved */
};
#define HV_SHARED_HANDED_OVER 1u /* rsdp and xsdt were verified by dom0 and the core, not only found by the core */

struct hv_shared_ioapic {
    uint64_t address;  /* 0: physical */
    uint32_t gsi_base; /* 8 */
    uint16_t pins;     /* 12 */
    uint8_t id;        /* 14: from the id register */
    uint8_t version;   /* 15 */
    uint32_t format;   /* 16: enum hv_format */
    uint32_t zero;     /* 20 */
};

#define HV_SHARED_IOAPICS 128u /* room in the list */

struct hv_shared_info {
    uint8_t xen[HV_SHARED_INFO_XEN_BYTES]; /* 0: zero */
    struct hv_shared_block block;          /* 3136 */
    uint8_t rest[896];
    struct hv_shared_ioapic list[HV_SHARED_IOAPICS]; /* 4096: the second page */
    uint8_t rest_of_list[1024];
};

/* ---- Ioctls of /dev/dom0kit ---- */

/*
 * Physdev operations by their number, our own calls from 0x40 on, the module's from 0x80.
 *
 * The device asks for CAP_SYS_ADMIN and CAP_SYS_RAWIO at every call (EPERM). The argument has exactly the structure's
 * size (EINVAL; pci_device_add always with pxm), all padding and reserved fields are zero
 * (EINVAL); it is copied in once and, after success only, out once (EFAULT). Unknown numbers are ENOTTY. A refusal of
 * the core is -1 with errno of the same number. mmap at offset 0 gives the two pages of shared_info, read-only.
 */
#define HV_IOCTL_TYPE 0xd0u
#define HV_IOCTL(nr, bytes) (3u << 30 | (uint32_t)(bytes) << 16 | HV_IOCTL_TYPE << 8 | (uint32_t)(nr))
#define HV_IOCTL_PHYSDEV(command, bytes) HV_IOCTL((command), (bytes))
#define HV_IOCTL_DOM0KIT(command, bytes) HV_IOCTL(0x40u + (command), (bytes))
#define HV_IOCTL_MODULE(command, bytes) HV_IOCTL((command), (bytes))

/* The module's own. Errors are Linux's. */
#define HV_MODULE_INFORMATION 0x80u
#define HV_MODULE_WATCH 0x81u
#define HV_MODULE_READ_HARDWARE 0x82u
#define HV_MODULE_EVALUATE 0x83u

enum hv_backend {
    HV_BACKEND_LOOPBACK =
        1, /* the core inside the module, over a model of this machine's IOAPICs; no hardware is written */
    HV_BACKEND_XEN = 2,
    HV_BACKEND_HV_CORE = 3,
};

/* 0x80: which module and backend this is. */
struct hv_module_information {
    uint32_t abi_version; /* 0: out, HV_ABI_VERSION */
    uint32_t backend;     /* 4: out, enum hv_backend */
    char name[16];        /* 8: out, the backend's, as in /sys/module/dom0kit/parameters/backend */
};

/*
 * 0x81: add one to this eventfd whenever the counter in shared_info goes up; fd -1: no more. One eventfd an open file.
 * EBADF, EINVAL: not an eventfd.
 */
struct hv_module_watch {
    int32_t fd;    /* 0: in */
    uint32_t zero; /* 4 */
};

/*
 * 0x82: the registers of a real IOAPIC, while every processor stands still and IOREGSEL is restored.
 * ENODEV: the MADT has no IOAPIC there. EOPNOTSUPP: a PV domain of Xen has no access (use apic_read).
 */
struct hv_hardware_ioapic {
    uint64_t address;     /* 0: in, physical */
    uint32_t id;          /* 8: out, the three first registers */
    uint32_t version;     /* 12 */
    uint32_t arbitration; /* 16 */
    uint32_t pins;        /* 20: out, entries read, 120 at most */
    uint64_t entry[120];  /* 24: out */
};

/*
 * 0x83: the kernel's own AML interpreter evaluates an object that Linux itself evaluates at boot, without arguments:
 * _STA _CRS _PRS _PRT _ADR _HID _CID _UID _BBN _SEG _PXM _SUN _MAT _GSB _CBA. The result is written as a sequence of
 * struct hv_aml_value, each followed by its bytes, padded with zeros to 8; a package is followed by its elements.
 * EPERM: another name. EINVAL: not an absolute path. ENOENT: no such object. ENOSPC: `needed` says how much room it
 * takes. EIO: the interpreter failed; `acpi_status` says how (ACPICA, acexcep.h). E2BIG: nested too deep, or too large.
 */
struct hv_evaluate {
    char path[256];       /* 0: in, absolute, zero-terminated: \_SB_.PCI0._PRT */
    uint64_t buffer;      /* 256: in, address of the room for the result */
    uint32_t bytes;       /* 264: in, of that room, at most 1 MiB */
    uint32_t needed;      /* 268: out */
    uint32_t acpi_status; /* 272: out */
    uint32_t zero;        /* 276 */
};

struct hv_aml_value {
    uint32_t type;   /* 0: HV_AML_* */
    uint32_t length; /* 4: bytes that follow (before padding); of a package: how many elements follow */
};
#define HV_AML_NOTHING 0u /* an element that was not initialised */
#define HV_AML_INTEGER 1u /* 8 bytes */
#define HV_AML_STRING 2u  /* without a terminating zero */
#define HV_AML_BUFFER 3u
#define HV_AML_PACKAGE 4u
#define HV_AML_REFERENCE 5u /* the path of the object referred to */
#define HV_AML_OTHER 6u     /* 4 bytes: ACPICA's object type */

/* ---- What the compiler must agree with ---- */

#define HV_ASSERT_SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type " has " #bytes " bytes")
#define HV_ASSERT_OFFSET(type, field, at)                                                                              \
    _Static_assert(offsetof(type, field) == (at), #field " of " #type " lies at " #at)

HV_ASSERT_SIZE(struct hv_irq_status_query, 8);
HV_ASSERT_SIZE(struct hv_apic, 16);
HV_ASSERT_SIZE(struct hv_alloc_irq_vector, 8);
HV_ASSERT_SIZE(struct hv_eoi, 4);
HV_ASSERT_SIZE(struct hv_map_pirq, 40);
HV_ASSERT_OFFSET(struct hv_map_pirq, type, 4);
HV_ASSERT_OFFSET(struct hv_map_pirq, pirq, 12);
HV_ASSERT_OFFSET(struct hv_map_pirq, entry_nr, 24);
HV_ASSERT_OFFSET(struct hv_map_pirq, table_base, 32);
HV_ASSERT_SIZE(struct hv_unmap_pirq, 8);
HV_ASSERT_SIZE(struct hv_setup_gsi, 8);
HV_ASSERT_OFFSET(struct hv_setup_gsi, polarity, 5);
HV_ASSERT_SIZE(struct hv_get_free_pirq, 8);
HV_ASSERT_SIZE(struct hv_pci_mmcfg_reserved, 16);
HV_ASSERT_OFFSET(struct hv_pci_mmcfg_reserved, flags, 12);
HV_ASSERT_SIZE(struct hv_pci_device_add, 12);
HV_ASSERT_OFFSET(struct hv_pci_device_add, physfn_bus, 8);
HV_ASSERT_SIZE(struct hv_pci_device_add_pxm, 16);
HV_ASSERT_SIZE(struct hv_pci_device, 4);
HV_ASSERT_SIZE(struct hv_pci_device_reset, 8);
HV_ASSERT_SIZE(struct hv_header, 8);
HV_ASSERT_SIZE(struct hv_information, 120);
HV_ASSERT_OFFSET(struct hv_information, calls, 72);
HV_ASSERT_SIZE(struct hv_map_shared_info, 16);
HV_ASSERT_SIZE(struct hv_hand_over, 32);
HV_ASSERT_SIZE(struct hv_query_vector, 32);
HV_ASSERT_SIZE(struct hv_set_affinity, 24);
HV_ASSERT_SIZE(struct hv_ioapic_add, 24);
HV_ASSERT_SIZE(struct hv_ioapic_remove, 16);
HV_ASSERT_SIZE(struct hv_domain_create, 16);
HV_ASSERT_SIZE(struct hv_domain_destroy, 16);
HV_ASSERT_SIZE(struct hv_assign_device, 16);
HV_ASSERT_SIZE(struct hv_assign_gsi, 16);
HV_ASSERT_SIZE(struct hv_read_interrupt, 48);
HV_ASSERT_SIZE(struct hv_read_report, 32);
HV_ASSERT_SIZE(struct hv_msi, 32);
HV_ASSERT_SIZE(union hv_argument, 120);
HV_ASSERT_SIZE(struct hv_shared_block, 64);
HV_ASSERT_OFFSET(struct hv_shared_block, counter, 24);
HV_ASSERT_OFFSET(struct hv_shared_block, list_offset, 48);
HV_ASSERT_SIZE(struct hv_shared_ioapic, 24);
HV_ASSERT_SIZE(struct hv_shared_info, 8192);
HV_ASSERT_OFFSET(struct hv_shared_info, block, 3136);
HV_ASSERT_OFFSET(struct hv_shared_info, list, 4096);
HV_ASSERT_SIZE(struct hv_module_information, 24);
HV_ASSERT_SIZE(struct hv_module_watch, 8);
HV_ASSERT_SIZE(struct hv_hardware_ioapic, 984);
HV_ASSERT_OFFSET(struct hv_hardware_ioapic, entry, 24);
HV_ASSERT_SIZE(struct hv_evaluate, 280);
HV_ASSERT_OFFSET(struct hv_evaluate, buffer, 256);
HV_ASSERT_SIZE(struct hv_aml_value, 8);

#endif
