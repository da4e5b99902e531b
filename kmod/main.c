// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/dom0kit: every hypercall as an ioctl (hv_core/abi.h says which, and what each refuses), shared_info by mmap.
 *
 * An argument is copied in once, checked, handed to the backend, and copied out once. The caller is always domain 0.
 */
#include <linux/capability.h>
#include <linux/eventfd.h>
#include <linux/fs.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>

#include <hv_core/core.h>
#include "dom0kit.h"

/* Before the start the backend wanted, afterwards the one in use. */
static char *backend;
module_param(backend, charp, 0444);
MODULE_PARM_DESC(backend, "hv_core, xen or loopback (default: the first of these that is there)");

static const struct dom0kit_backend *chosen;

/* ---- Who wants to know of changes ---- */

struct client { /* an open file */
	struct list_head list;
	struct eventfd_ctx *watch;
};

static LIST_HEAD(clients);
static DEFINE_MUTEX(clients_mutex); /* taken inside the core's mutex (dom0kit_changed), never around it */

static void signal_one(struct eventfd_ctx *watch)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
	eventfd_signal(watch, 1);
#else
	eventfd_signal(watch);
#endif
}

void dom0kit_changed(void)
{
	struct client *client;

	mutex_lock(&clients_mutex);
	list_for_each_entry(client, &clients, list)
		if (client->watch)
			signal_one(client->watch);
	mutex_unlock(&clients_mutex);
}

static long set_watch(struct client *client, const struct hv_module_watch *wanted)
{
	struct eventfd_ctx *watch = NULL;

	if (wanted->zero || wanted->fd < -1)
		return -EINVAL;
	if (wanted->fd >= 0) {
		watch = eventfd_ctx_fdget(wanted->fd);
		if (IS_ERR(watch))
			return PTR_ERR(watch);
	}
	mutex_lock(&clients_mutex);
	swap(client->watch, watch);
	mutex_unlock(&clients_mutex);
	if (watch)
		eventfd_ctx_put(watch);
	return 0;
}

/* ---- Ioctls ---- */

static bool may(void)
{
	return capable(CAP_SYS_ADMIN) && capable(CAP_SYS_RAWIO);
}

static bool padding_is_zero(u32 command, const union hv_argument *argument)
{
	switch (command) {
	case HV_PHYSDEVOP_MAP_PIRQ:
		return !argument->map_pirq.padding2 && !argument->map_pirq.padding28;
	case HV_PHYSDEVOP_UNMAP_PIRQ:
		return !argument->unmap_pirq.padding2;
	case HV_PHYSDEVOP_SETUP_GSI:
		return !argument->setup_gsi.padding6;
	case HV_PHYSDEVOP_PCI_DEVICE_ADD:
		return !argument->pci_device_add.device.padding10 &&
		       (argument->pci_device_add.device.flags & HV_PCI_DEV_PXM || !argument->pci_device_add.pxm);
	default:
		return true;
	}
}

static long hypercall(u32 nr, u32 bytes, void __user *user)
{
	u32 number = nr < 0x40 ? HV_HYPERCALL_PHYSDEV : HV_HYPERCALL_DOM0KIT;
	u32 command = nr & 0x3f;
	union hv_argument argument = { 0 };
	u32 wanted = hv_argument_bytes(number, command);
	long status;

	if (!wanted)
		return -ENOTTY;
	if (number == HV_HYPERCALL_PHYSDEV && command == HV_PHYSDEVOP_PCI_DEVICE_ADD)
		wanted = sizeof(struct hv_pci_device_add_pxm);
	if (bytes != wanted)
		return -EINVAL;
	if (copy_from_user(&argument, user, bytes))
		return -EFAULT;
	if (number == HV_HYPERCALL_PHYSDEV && !padding_is_zero(command, &argument))
		return -EINVAL;
	status = chosen->call(number, command, &argument);
	if (status)
		return status;
	return copy_to_user(user, &argument, bytes) ? -EFAULT : 0;
}

static long give_information(u32 bytes, void __user *user)
{
	struct hv_module_information information = {
		.abi_version = HV_ABI_VERSION,
		.backend = chosen->number,
	};

	if (bytes != sizeof(information))
		return -EINVAL;
	strscpy(information.name, chosen->name, sizeof(information.name));
	return copy_to_user(user, &information, bytes) ? -EFAULT : 0;
}

static long watch(struct client *client, u32 bytes, void __user *user)
{
	struct hv_module_watch wanted;

	if (bytes != sizeof(wanted))
		return -EINVAL;
	if (copy_from_user(&wanted, user, bytes))
		return -EFAULT;
	return set_watch(client, &wanted);
}

static long read_hardware(u32 bytes, void __user *user)
{
	struct hv_hardware_ioapic *ioapic;
	long error;

	if (bytes != sizeof(*ioapic))
		return -EINVAL;
	ioapic = kzalloc(sizeof(*ioapic), GFP_KERNEL);
	if (!ioapic)
		return -ENOMEM;
	error = copy_from_user(&ioapic->address, user, sizeof(ioapic->address)) ? -EFAULT : 0;
	if (!error)
		error = dom0kit_read_hardware(ioapic);
	if (!error && copy_to_user(user, ioapic, bytes))
		error = -EFAULT;
	kfree(ioapic);
	return error;
}

static long evaluate(u32 bytes, void __user *user)
{
	struct hv_evaluate *wanted;
	long error;

	if (bytes != sizeof(*wanted))
		return -EINVAL;
	wanted = memdup_user(user, bytes);
	if (IS_ERR(wanted))
		return PTR_ERR(wanted);
	error = dom0kit_evaluate(wanted);
	/* How much room it takes, and how the interpreter failed, is for a failed call too. */
	if (copy_to_user(user, wanted, bytes))
		error = -EFAULT;
	kfree(wanted);
	return error;
}

static long dom0kit_ioctl(struct file *file, unsigned int command, unsigned long user)
{
	u32 bytes = _IOC_SIZE(command);
	void __user *argument = (void __user *)user;

	if (!may())
		return -EPERM;
	if (_IOC_TYPE(command) != HV_IOCTL_TYPE || _IOC_DIR(command) != (_IOC_READ | _IOC_WRITE))
		return -ENOTTY;
	switch (_IOC_NR(command)) {
	case HV_MODULE_INFORMATION:
		return give_information(bytes, argument);
	case HV_MODULE_WATCH:
		return watch(file->private_data, bytes, argument);
	case HV_MODULE_READ_HARDWARE:
		return read_hardware(bytes, argument);
	case HV_MODULE_EVALUATE:
		return evaluate(bytes, argument);
	default:
		if (_IOC_NR(command) >= 0x80)
			return -ENOTTY;
		return hypercall(_IOC_NR(command), bytes, argument);
	}
}

/* ---- shared_info, read-only ---- */

static int dom0kit_mmap(struct file *file, struct vm_area_struct *area)
{
	unsigned long pages = vma_pages(area);
	unsigned int i;
	int error = 0;

	if (!may())
		return -EPERM;
	if (area->vm_flags & VM_WRITE)
		return -EACCES;
	if (area->vm_pgoff + pages > 2 || area->vm_pgoff > 2)
		return -EINVAL;
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
	area->vm_flags = (area->vm_flags & ~VM_MAYWRITE) | VM_DONTEXPAND | VM_DONTDUMP;
#else
	vm_flags_mod(area, VM_DONTEXPAND | VM_DONTDUMP, VM_MAYWRITE);
#endif
	for (i = 0; i < pages && !error; i++)
		error = vm_insert_page(area, area->vm_start + i * PAGE_SIZE, chosen->shared_page(area->vm_pgoff + i));
	return error;
}

/* ---- The device ---- */

static int dom0kit_open(struct inode *inode, struct file *file)
{
	struct client *client;

	if (!may())
		return -EPERM;
	client = kzalloc(sizeof(*client), GFP_KERNEL);
	if (!client)
		return -ENOMEM;
	mutex_lock(&clients_mutex);
	list_add(&client->list, &clients);
	mutex_unlock(&clients_mutex);
	file->private_data = client;
	return nonseekable_open(inode, file);
}

static int dom0kit_release(struct inode *inode, struct file *file)
{
	struct client *client = file->private_data;

	mutex_lock(&clients_mutex);
	list_del(&client->list);
	mutex_unlock(&clients_mutex);
	if (client->watch)
		eventfd_ctx_put(client->watch);
	kfree(client);
	return 0;
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.open = dom0kit_open,
	.release = dom0kit_release,
	.unlocked_ioctl = dom0kit_ioctl,
	.mmap = dom0kit_mmap,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "dom0kit",
	.fops = &operations,
	.mode = 0600,
};

static int __init dom0kit_init(void)
{
	int error;

	chosen = dom0kit_backend_choose(backend);
	if (!chosen) {
		pr_err("dom0kit: no backend %s here (hv_core, xen, loopback)\n", backend);
		return -ENODEV;
	}
	error = chosen->start();
	if (error)
		return error;
	error = misc_register(&device);
	if (error) {
		chosen->stop();
		return error;
	}
	backend = (char *)chosen->name;
	pr_info("dom0kit: backend %s\n", backend);
	return 0;
}

static void __exit dom0kit_exit(void)
{
	misc_deregister(&device);
	chosen->stop();
}

module_init(dom0kit_init);
module_exit(dom0kit_exit);

MODULE_DESCRIPTION("Hypercall stubs of dom0kit: IOAPIC redirection, IRQ to vector, pIRQs, over Xen, hv_core or a model");
MODULE_AUTHOR("The dom0kit developers");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1.0");
