/* SPDX-License-Identifier: MIT */
/* Compile-time limits: a home may define its own before the core is compiled; HV_OP_INFORMATION reports them. */
#ifndef HV_CORE_LIMITS_H
#define HV_CORE_LIMITS_H

#ifndef HV_LIMIT_CPUS
#define HV_LIMIT_CPUS 4096u /* at most 4096: the index of free processors has two levels of 64 bits */
#endif
#ifndef HV_LIMIT_IOAPICS
#define HV_LIMIT_IOAPICS 128u /* at most 128, Xen's MAX_IO_APICS */
#endif
#ifndef HV_LIMIT_DOMAINS
#define HV_LIMIT_DOMAINS 16u
#endif
#ifndef HV_LIMIT_PIRQS
#define HV_LIMIT_PIRQS 8192u /* a domain; a multiple of 64, at least 64 */
#endif
#ifndef HV_LIMIT_GSIS
#define HV_LIMIT_GSIS 16384u
#endif
#ifndef HV_LIMIT_FUNCTIONS
#define HV_LIMIT_FUNCTIONS 4096u
#endif
#ifndef HV_LIMIT_MESSAGES
#define HV_LIMIT_MESSAGES 16384u /* MSI and MSI-X messages of all functions; a multiple of 64 */
#endif
#ifndef HV_LIMIT_ECAM_RANGES
#define HV_LIMIT_ECAM_RANGES 64u
#endif
#ifndef HV_LIMIT_REPORTS
#define HV_LIMIT_REPORTS 64u
#endif

#ifndef HV_PINS
#define HV_PINS 120u /* of one IOAPIC: the 8-bit index reaches registers 0x10 to 0xff (Intel 82093AA, section 3.2) */
#endif

/*
 * Vectors the core allocates: 0x20 to 0xef less the reserved ones. 0x80 is the 32-bit system call of every guest
 * kernel we know; a home reserves more with hv_vectors_reserve.
 */
#define HV_VECTOR_FIRST 0x20u
#define HV_VECTOR_LAST 0xefu
#define HV_VECTOR_SYSTEM_CALL 0x80u

_Static_assert(HV_LIMIT_CPUS >= 1 && HV_LIMIT_CPUS <= 4096, "two levels of 64 bits");
_Static_assert(HV_LIMIT_IOAPICS >= 1 && HV_LIMIT_IOAPICS <= 128, "the IOAPIC list fits one page");
_Static_assert(HV_LIMIT_DOMAINS >= 1 && HV_LIMIT_DOMAINS < 0x7ff0, "below HV_DOMID_SELF");
_Static_assert(HV_LIMIT_PIRQS >= 64 && HV_LIMIT_PIRQS % 64 == 0, "whole words");
_Static_assert(HV_LIMIT_MESSAGES >= 64 && HV_LIMIT_MESSAGES % 64 == 0, "whole words");
_Static_assert(HV_LIMIT_IOAPICS *HV_PINS + HV_LIMIT_MESSAGES < 0xffff, "a source has 16 bits");

#endif
