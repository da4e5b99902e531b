// SPDX-License-Identifier: GPL-2.0-only
/* hv_core below us: hypercalls by VMMCALL or VMCALL, shared_info put over two pages of ours. */
#include <linux/errno.h>
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/string.h>
#include <asm/cpufeature.h>
#include <asm/processor.h>

#include "dom0kit.h"

#define PAGES_BYTES (2 * PAGE_SIZE)

static void *pages; /* the core's pages show through here */

static bool is_here(void)
{
	u32 highest, signature[3];

	if (!boot_cpu_has(X86_FEATURE_HYPERVISOR))
		return false;
	cpuid(HV_CPUID_BASE, &highest, &signature[0], &signature[1], &signature[2]);
	return highest >= HV_CPUID_SHARED_INFO && !memcmp(signature, HV_CPUID_SIGNATURE, sizeof(signature)) &&
	       cpuid_eax(HV_CPUID_VERSION) == HV_ABI_VERSION;
}

/* AMD and Hygon have VMMCALL; the other instruction raises #UD there, and the reverse. */
static long call(u32 number, u32 command, union hv_argument *argument)
{
	long status;

	if (boot_cpu_has(X86_FEATURE_VMMCALL))
		asm volatile("vmmcall" : "=a"(status) : "a"((u64)number), "D"((u64)command), "S"(argument) : "memory");
	else
		asm volatile("vmcall" : "=a"(status) : "a"((u64)number), "D"((u64)command), "S"(argument) : "memory");
	return status;
}

static long map_shared_info(u64 address)
{
	union hv_argument argument = {
		.map_shared_info = {
			.header = { .version = HV_ABI_VERSION, .bytes = sizeof(struct hv_map_shared_info) },
			.guest_physical = address,
		},
	};

	return call(HV_HYPERCALL_DOM0KIT, HV_OP_MAP_SHARED_INFO, &argument);
}

static int start(void)
{
	long status;

	pages = alloc_pages_exact(PAGES_BYTES, GFP_KERNEL | __GFP_ZERO);
	if (!pages)
		return -ENOMEM;
	status = map_shared_info(virt_to_phys(pages));
	if (status) {
		free_pages_exact(pages, PAGES_BYTES);
		return status;
	}
	return 0;
}

static void stop(void)
{
	/* Where the core does not let go of the pages, they must not be anybody else's. */
	if (!map_shared_info(0))
		free_pages_exact(pages, PAGES_BYTES);
}

static struct page *shared_page(unsigned int index)
{
	return virt_to_page(pages + index * PAGE_SIZE);
}

const struct dom0kit_backend dom0kit_hv_core = {
	.number = HV_BACKEND_HV_CORE,
	.name = "hv_core",
	.is_here = is_here,
	.start = start,
	.stop = stop,
	.call = call,
	.shared_page = shared_page,
};
