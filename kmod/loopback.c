// SPDX-License-Identifier: GPL-2.0-only
/*
 * Loopback: the core itself, over a model of this machine's IOAPICs. The model begins as a copy of the real registers;
 * nothing the core does reaches hardware. It makes every call usable, and testable, on any Linux.
 */
#include <linux/errno.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

#include <hv_core/core.h>
#include "dom0kit.h"

static uint entry_format;
module_param(entry_format, uint, 0400);
MODULE_PARM_DESC(entry_format, "Loopback: format of redirection entries (0 compatibility, 1 extended destination id, 2 VT-d, 3 AMD-Vi)");

static bool direct;
module_param(direct, bool, 0400);
MODULE_PARM_DESC(direct, "Loopback: direct mode, in which vectors are the caller's choice (default: the core's)");

struct model {
	u64 address; /* 0: this place is free */
	u32 reg[256];
};

static struct hv_core *core;
static struct model *models; /* HV_LIMIT_IOAPICS of them */

static struct model *model_at(u64 address)
{
	u32 i;

	for (i = 0; i < HV_LIMIT_IOAPICS; i++)
		if (models[i].address == address)
			return &models[i];
	return NULL;
}

static void copy_hardware(struct model *model, const struct hv_hardware_ioapic *real)
{
	u32 pin;

	memset(model->reg, 0, sizeof(model->reg));
	model->reg[0] = real->id;
	model->reg[1] = real->version;
	model->reg[2] = real->arbitration;
	for (pin = 0; pin < real->pins; pin++) {
		model->reg[0x10 + 2 * pin] = (u32)real->entry[pin] & ~(BIT(12) | BIT(14));
		model->reg[0x11 + 2 * pin] = real->entry[pin] >> 32;
	}
}

static enum hv_status ioapic_map(void *home, u64 address)
{
	struct hv_hardware_ioapic *real;
	struct model *model = model_at(0);
	enum hv_status status = HV_NO_DEVICE;

	if (!model)
		return HV_NO_SPACE;
	real = kzalloc(sizeof(*real), GFP_KERNEL);
	if (!real)
		return HV_NO_SPACE;
	real->address = address;
	if (!dom0kit_read_hardware(real)) {
		copy_hardware(model, real);
		model->address = address;
		status = HV_OK;
	}
	kfree(real);
	return status;
}

static void ioapic_unmap(void *home, u64 address)
{
	model_at(address)->address = 0;
}

static u32 ioapic_read(void *home, u64 address, u8 index)
{
	return model_at(address)->reg[index];
}

static void ioapic_write(void *home, u64 address, u8 index, u32 value)
{
	model_at(address)->reg[index] = value;
}

static void ioapic_end(void *home, u64 address, u8 pin, u8 vector)
{
	/* No interrupt ever arrives in this model: no remote IRR to clear. */
}

static enum hv_status remap(void *home, u16 source, u32 apic_id, u8 vector)
{
	return HV_OK; /* the model has a remapping table that nobody looks at */
}

static enum hv_status map_shared_info(void *home, u64 guest_physical)
{
	return HV_OK; /* dom0 gets the pages by mmap; the address is only reported */
}

static void changed(void *home)
{
	dom0kit_changed();
}

static const struct hv_operations operations = {
	.lock = dom0kit_lock,
	.unlock = dom0kit_unlock,
	.read_physical = dom0kit_read_physical,
	.ioapic_map = ioapic_map,
	.ioapic_unmap = ioapic_unmap,
	.ioapic_read = ioapic_read,
	.ioapic_write = ioapic_write,
	.ioapic_end = ioapic_end,
	.remap = remap,
	.map_shared_info = map_shared_info,
	.changed = changed,
};

static bool is_here(void)
{
	return true;
}

static void stop(void)
{
	vfree(core);
	kvfree(models);
	core = NULL;
	models = NULL;
}

static int start(void)
{
	struct hv_start how = {
		.operations = &operations,
		.rsdp = dom0kit_find_rsdp(),
		.mode = direct ? HV_MODE_DIRECT : HV_MODE_INTERCEPT,
		.entry_format = entry_format,
		.message_format = entry_format,
		.features = HV_FEATURE_MODEL,
	};

	core = vmalloc_user(sizeof(*core));
	models = kvcalloc(HV_LIMIT_IOAPICS, sizeof(*models), GFP_KERNEL);
	if (!core || !models) {
		stop();
		return -ENOMEM;
	}
	if (hv_core_start(core, &how) != HV_OK) {
		stop();
		return -EINVAL;
	}
	return 0;
}

static long call(u32 number, u32 command, union hv_argument *argument)
{
	return hv_hypercall(core, 0, number, command, argument);
}

static struct page *shared_page(unsigned int index)
{
	return vmalloc_to_page((u8 *)&core->shared + index * PAGE_SIZE);
}

const struct dom0kit_backend dom0kit_loopback = {
	.number = HV_BACKEND_LOOPBACK,
	.name = "loopback",
	.is_here = is_here,
	.start = start,
	.stop = stop,
	.call = call,
	.shared_page = shared_page,
};
