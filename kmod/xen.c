// SPDX-License-Identifier: GPL-2.0-only
/*
 * Real Xen: physdev operations go to it. What Xen lacks (shared_info with our block, reports, the list of IOAPICs) comes
 * from a core of our own that reads registers through Xen and writes none; Xen's own shared_info is never touched.
 *
 * Three dangers of Xen 4.17 are kept away. A register beyond an IOAPIC's last pin makes it panic (arch/x86/io_apic.c), so
 * the version register is asked first. apic_write returns 0 for writes it ignores, so an entry is read back. And a
 * function whose addition failed stays in its list without a domain, and makes it panic when removed
 * (drivers/passthrough/pci.c, drivers/vpci/vpci.c): only what Linux sees is added, only what is fully there removed.
 */
#include <linux/errno.h>
#include <linux/kconfig.h>
#include <linux/mm.h>
#include <linux/pci.h>
#include <linux/vmalloc.h>
#include <xen/xen.h>

#include "internal.h"
#include "dom0kit.h"

#if IS_ENABLED(CONFIG_XEN_DOM0)

#include <asm/xen/hypercall.h>

static struct hv_core *core;

static long apic_read(u64 address, u32 reg, u32 *value)
{
	struct hv_apic apic = { .apic_physbase = address, .reg = reg };
	long status = HYPERVISOR_physdev_op(HV_PHYSDEVOP_APIC_READ, &apic);

	*value = apic.value;
	/* A PVH domain 0 has no such call in any version of Xen. */
	return status == -ENOSYS ? -EOPNOTSUPP : status;
}

static long check_register(u64 address, u32 reg)
{
	u32 version;
	long status = apic_read(address, 1, &version);

	if (status)
		return status;
	if (reg > 2 && (reg < 0x10 || reg >= 0x10 + 2 * min(((version >> 16) & 0xff) + 1, HV_PINS)))
		return HV_OUT_OF_RANGE;
	return 0;
}

static long checked_read(struct hv_apic *apic)
{
	long status = check_register(apic->apic_physbase, apic->reg);

	return status ? status : apic_read(apic->apic_physbase, apic->reg, &apic->value);
}

/*
 * Xen takes trigger, polarity and (from the vector field) a pIRQ of a low word, and makes the rest itself: vector,
 * destination, and the mask by the trigger. What it does not take, it drops with status 0.
 */
static long checked_write(struct hv_apic *apic)
{
	u32 taken = HV_ENTRY_LEVEL | HV_ENTRY_ACTIVE_LOW;
	u32 now;
	long status = check_register(apic->apic_physbase, apic->reg);

	if (status)
		return status;
	if (apic->reg < 0x10)
		return HV_NOT_PERMITTED;
	if (apic->reg % 2)
		return HV_NOT_SUPPORTED; /* the destination is Xen's choice */
	status = HYPERVISOR_physdev_op(HV_PHYSDEVOP_APIC_WRITE, apic);
	if (status)
		return status;
	status = apic_read(apic->apic_physbase, apic->reg, &now);
	if (status)
		return status;
	return (now ^ apic->value) & taken ? HV_BUSY : HV_OK;
}

static long add_device(struct hv_pci_device_add_pxm *add)
{
	struct pci_dev *seen = pci_get_domain_bus_and_slot(add->device.seg, add->device.bus, add->device.devfn);

	if (!seen)
		return HV_NO_DEVICE;
	pci_dev_put(seen);
	return HYPERVISOR_physdev_op(HV_PHYSDEVOP_PCI_DEVICE_ADD, add);
}

/* Adding once more, as Linux did, changes nothing of a function that is there, and fails for one that is there by half. */
static long remove_device(struct hv_pci_device *device)
{
	struct pci_dev *seen = pci_get_domain_bus_and_slot(device->seg, device->bus, device->devfn);
	struct hv_pci_device_add_pxm again = {
		.device = { .seg = device->seg, .bus = device->bus, .devfn = device->devfn },
	};
	long status;

	if (!seen)
		return HV_NO_DEVICE;
	if (seen->is_virtfn) {
		again.device.flags = HV_PCI_DEV_VIRTFN;
		again.device.physfn_bus = pci_physfn(seen)->bus->number;
		again.device.physfn_devfn = pci_physfn(seen)->devfn;
	} else if (pci_ari_enabled(seen->bus) && PCI_SLOT(seen->devfn)) {
		again.device.flags = HV_PCI_DEV_EXTFN;
	}
	pci_dev_put(seen);
	status = HYPERVISOR_physdev_op(HV_PHYSDEVOP_PCI_DEVICE_ADD, &again);
	return status ? HV_BUSY : HYPERVISOR_physdev_op(HV_PHYSDEVOP_PCI_DEVICE_REMOVE, device);
}

/* The entry of a GSI, by way of Xen, whose alloc_irq_vector only gives the irq back. */
static long query_vector(struct hv_query_vector *query)
{
	u16 source = hv_source_of_gsi(core, query->irq);
	const struct hv_ioapic *ioapic;
	u32 low, high, pin;
	long status;

	if (!core->ioapics)
		return HV_NOT_SUPPORTED; /* Xen shows a PVH domain 0 none of the real ones */
	if (source == HV_SOURCE_NONE || (query->domain != HV_DOMID_SELF && query->domain))
		return HV_INVALID;
	ioapic = &core->ioapic[hv_source_ioapic(source)];
	pin = hv_source_pin(source);
	status = apic_read(ioapic->address, 0x10 + 2 * pin, &low);
	if (!status)
		status = apic_read(ioapic->address, 0x11 + 2 * pin, &high);
	if (status)
		return status;
	if (!(low & HV_ENTRY_VECTOR))
		return HV_NOT_FOUND;
	query->flags = (low & HV_ENTRY_MASKED ? HV_INTERRUPT_MASKED : 0) | (low & HV_ENTRY_LEVEL ? HV_INTERRUPT_LEVEL : 0) |
		       (low & HV_ENTRY_ACTIVE_LOW ? HV_INTERRUPT_ACTIVE_LOW : 0);
	query->vector = low & HV_ENTRY_VECTOR;
	query->apic_id = high >> 24;
	query->cpu = HV_NONE;
	if ((u64)high << 32 & HV_ENTRY_REMAPPABLE)
		query->flags |= HV_INTERRUPT_REMAPPED;
	else if (!(low & HV_ENTRY_LOGICAL))
		query->cpu = hv_cpu_by_apic_id(&core->cpus, query->apic_id);
	return HV_OK;
}

static long own_call(u32 command, union hv_argument *argument)
{
	struct hv_query_vector *query = &argument->query_vector;

	switch (command) {
	case HV_OP_INFORMATION:
	case HV_OP_MAP_SHARED_INFO:
	case HV_OP_HAND_OVER:
	case HV_OP_READ_REPORT:
		return hv_hypercall(core, 0, HV_HYPERCALL_DOM0KIT, command, argument);
	case HV_OP_QUERY_VECTOR:
		if (query->header.version != HV_ABI_VERSION || query->header.bytes != sizeof(*query) || query->header.zero)
			return HV_INVALID;
		return query_vector(query);
	default:
		return HV_NOT_SUPPORTED;
	}
}

static long call(u32 number, u32 command, union hv_argument *argument)
{
	long status;

	if (number == HV_HYPERCALL_DOM0KIT)
		return own_call(command, argument);
	switch (command) {
	case HV_PHYSDEVOP_APIC_READ:
		return checked_read(&argument->apic);
	case HV_PHYSDEVOP_APIC_WRITE:
		return checked_write(&argument->apic);
	case HV_PHYSDEVOP_PCI_DEVICE_ADD:
		status = add_device(&argument->pci_device_add);
		break;
	case HV_PHYSDEVOP_PCI_DEVICE_REMOVE:
		status = remove_device(&argument->pci_device_remove);
		break;
	default:
		status = HYPERVISOR_physdev_op(command, argument);
		break;
	}
	/* Which operations a domain has depends on Xen's version and on PV or PVH. */
	return status == -ENOSYS ? -EOPNOTSUPP : status;
}

/* ---- What our own core needs ---- */

static enum hv_status ioapic_map(void *home, u64 address)
{
	u32 version;

	return apic_read(address, 1, &version) ? HV_NO_DEVICE : HV_OK;
}

static void ioapic_unmap(void *home, u64 address)
{
}

static u32 ioapic_read(void *home, u64 address, u8 index)
{
	u32 value;

	return apic_read(address, index, &value) ? 0xffffffff : value;
}

static void ioapic_write(void *home, u64 address, u8 index, u32 value)
{
	/* Not reached: no call that writes is handed to our own core. */
	WARN_ON_ONCE(1);
}

static void ioapic_end(void *home, u64 address, u8 pin, u8 vector)
{
}

static enum hv_status remap(void *home, u16 source, u32 apic_id, u8 vector)
{
	return HV_NOT_SUPPORTED;
}

static enum hv_status map_shared_info(void *home, u64 guest_physical)
{
	return HV_OK; /* dom0 gets the pages by mmap */
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
	return xen_initial_domain();
}

static void stop(void)
{
	vfree(core);
	core = NULL;
}

static int start(void)
{
	struct hv_start how = {
		.operations = &operations,
		.rsdp = dom0kit_find_rsdp(),
		.mode = HV_MODE_DIRECT,
		.features = 0,
	};

	core = vmalloc_user(sizeof(*core));
	if (!core)
		return -ENOMEM;
	if (hv_core_start(core, &how) != HV_OK) {
		stop();
		return -EINVAL;
	}
	return 0;
}

static struct page *shared_page(unsigned int index)
{
	return vmalloc_to_page((u8 *)&core->shared + index * PAGE_SIZE);
}

#else

static bool is_here(void)
{
	return false;
}

static int start(void)
{
	return -ENODEV;
}

static void stop(void)
{
}

static long call(u32 number, u32 command, union hv_argument *argument)
{
	return -ENODEV;
}

static struct page *shared_page(unsigned int index)
{
	return NULL;
}

#endif

const struct dom0kit_backend dom0kit_xen = {
	.number = HV_BACKEND_XEN,
	.name = "xen",
	.is_here = is_here,
	.start = start,
	.stop = stop,
	.call = call,
	.shared_page = shared_page,
};
