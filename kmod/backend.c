// SPDX-License-Identifier: GPL-2.0-only
/* Which hypervisor is there: asked in the order of how much it can do for us; the loopback is always there. */
#include <linux/kernel.h>
#include <linux/string.h>

#include "dom0kit.h"

static const struct dom0kit_backend *const backends[] = {
	&dom0kit_hv_core,
	&dom0kit_xen,
	&dom0kit_loopback,
};

const struct dom0kit_backend *dom0kit_backend_choose(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(backends); i++) {
		if (name && strcmp(name, backends[i]->name))
			continue;
		if (backends[i]->is_here())
			return backends[i];
	}
	return NULL;
}
