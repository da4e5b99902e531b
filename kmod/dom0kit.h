/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of the module call of each other. */
#ifndef DOM0KIT_H
#define DOM0KIT_H

#include <linux/types.h>
#include <linux/mm_types.h>
#include <hv_core/abi.h>

struct hv_core;

/* ---- Backends: where a hypercall goes ---- */

struct dom0kit_backend {
	enum hv_backend number;
	const char *name;
	bool (*is_here)(void);
	int (*start)(void);
	void (*stop)(void);
	/* One call of domain 0; the argument is the kernel's copy. Returns a status: HV_OK or a negative errno. */
	long (*call)(u32 number, u32 command, union hv_argument *argument);
	/* Page 0 or 1 of shared_info. */
	struct page *(*shared_page)(unsigned int index);
};

extern const struct dom0kit_backend dom0kit_loopback;
extern const struct dom0kit_backend dom0kit_xen;
extern const struct dom0kit_backend dom0kit_hv_core;

/* The backend asked for by name, or (NULL) the first that is here. NULL: none of that name, or not here. */
const struct dom0kit_backend *dom0kit_backend_choose(const char *name);

/* The counter in shared_info went up. Any context that may sleep. */
void dom0kit_changed(void);

/* ---- machine.c: what the firmware says of this machine ---- */

/* Physical address of the RSDP, or 0. */
u64 dom0kit_find_rsdp(void);
/* hv_operations.read_physical. */
bool dom0kit_read_physical(void *home, u64 address, void *to, u32 bytes);
/* Does the MADT have an IOAPIC at this address? */
bool dom0kit_has_ioapic(u64 address);
/* hv_operations.lock and unlock of the backends with a core of their own: a mutex. */
void dom0kit_lock(void *home);
void dom0kit_unlock(void *home);

/* ---- hardware.c: the real IOAPICs, only read ---- */

int dom0kit_read_hardware(struct hv_hardware_ioapic *ioapic);

/* ---- aml.c ---- */

int dom0kit_evaluate(struct hv_evaluate *evaluate);

#endif
