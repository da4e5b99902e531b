/* SPDX-License-Identifier: MIT */
/* Fixed-width integers, bool, size_t and NULL: the one file that knows where this home of the core gets them from. */
#ifndef HV_CORE_TYPES_H
#define HV_CORE_TYPES_H

#if defined(__KERNEL__)
#include <linux/types.h> /* the kernel's build has no compiler headers */
#include <linux/stddef.h>
#elif defined(HV_CORE_NO_HEADERS)
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long uint64_t;
typedef int int32_t;
typedef long int64_t;
typedef unsigned long size_t;
#define bool _Bool
#define true 1
#define false 0
#define NULL ((void *)0)
#define offsetof(type, field) __builtin_offsetof(type, field)
#else
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#endif

_Static_assert(sizeof(uint8_t) == 1 && sizeof(uint16_t) == 2 && sizeof(uint32_t) == 4 && sizeof(uint64_t) == 8,
               "integers have the width of their name");
_Static_assert(sizeof(size_t) == 8 && sizeof(void *) == 8, "x86-64 only");

#endif
