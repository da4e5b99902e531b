// SPDX-License-Identifier: MIT
/*
 * What a test wants done at dom0's highest privilege. Loading it does one thing, says how it went in the kernel's log,
 * and is then refused (EAGAIN), so that it can be loaded again.
 */
#include <linux/delay.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <asm/asm.h>
#include <asm/desc_defs.h>

static char *instruction = "";
module_param(instruction, charp, 0400);
MODULE_PARM_DESC(instruction, "execute it: vmrun vmload vmsave stgi clgi skinit invlpga vmmcall triple_fault");

static ulong rax, rdi, rsi;
module_param(rax, ulong, 0400);
MODULE_PARM_DESC(rax, "registers of vmmcall; rax is also what the others name");
module_param(rdi, ulong, 0400);
MODULE_PARM_DESC(rdi, "");
module_param(rsi, ulong, 0400);
MODULE_PARM_DESC(rsi, "");

static int edu;
module_param(edu, int, 0400);
MODULE_PARM_DESC(edu, "so many interrupts of QEMU's edu device, by INTx");

static int cost;
module_param(cost, int, 0400);
MODULE_PARM_DESC(cost, "cycles of so many reads of an IOAPIC's register, by hypercall and trapped");

/* True: it raised an exception. */
#define RAISES(code)                                                                                                   \
	({                                                                                                             \
		unsigned long raised = 1, out = rax;                                                                   \
		asm volatile("1: " code "\n xor %0, %0\n 2:\n" _ASM_EXTABLE(1b, 2b)                                     \
			     : "+r"(raised), "+a"(out)                                                                 \
			     : "D"(rdi), "S"(rsi), "c"(0)                                                              \
			     : "memory", "cc", "rdx", "rbx");                                                          \
		answer = out;                                                                                          \
		raised != 0;                                                                                           \
	})

static void execute(void)
{
	unsigned long answer = 0;
	bool raised;

	if (!strcmp(instruction, "vmrun"))
		raised = RAISES("vmrun");
	else if (!strcmp(instruction, "vmload"))
		raised = RAISES("vmload");
	else if (!strcmp(instruction, "vmsave"))
		raised = RAISES("vmsave");
	else if (!strcmp(instruction, "stgi"))
		raised = RAISES("stgi");
	else if (!strcmp(instruction, "clgi"))
		raised = RAISES("clgi");
	else if (!strcmp(instruction, "skinit"))
		raised = RAISES("skinit");
	else if (!strcmp(instruction, "invlpga"))
		raised = RAISES("invlpga");
	else
		raised = RAISES("vmmcall");
	pr_info("hv_probe: %s: %s %ld\n", instruction, raised ? "raised" : "returned", (long)answer);
}

/* No handler for anything, then an exception. */
static void triple_fault(void)
{
	struct desc_ptr none = { .size = 0 };

	asm volatile("lidt %0; int3" : : "m"(none));
}

#define IOAPIC 0xfec00000

static void measure(void)
{
	struct {
		u64 address;
		u32 index;
		u32 value;
	} argument = { .address = IOAPIC, .index = 0x10 };
	void __iomem *window = ioremap(IOAPIC, PAGE_SIZE);
	u64 start, called, trapped;
	unsigned long status;
	int i;

	if (!window)
		return;
	start = rdtsc_ordered();
	for (i = 0; i < cost; i++)
		asm volatile("vmmcall" : "=a"(status) : "a"(33ul), "D"(8ul), "S"(&argument) : "memory");
	called = rdtsc_ordered() - start;
	start = rdtsc_ordered();
	for (i = 0; i < cost; i++) {
		writel(0x10, window);
		readl(window + 0x10);
	}
	trapped = rdtsc_ordered() - start;
	iounmap(window);
	pr_info("hv_probe: cost: %llu by hypercall, %llu trapped\n", called / cost, trapped / cost);
}

#define EDU_RAISE 0x60
#define EDU_STATUS 0x24
#define EDU_ACKNOWLEDGE 0x64

static void __iomem *registers;
static atomic_t counted;

static irqreturn_t edu_interrupt(int irq, void *cookie)
{
	u32 status = readl(registers + EDU_STATUS);

	if (!status)
		return IRQ_NONE;
	writel(status, registers + EDU_ACKNOWLEDGE);
	atomic_inc(&counted);
	return IRQ_HANDLED;
}

static int count_edu(void)
{
	struct pci_dev *device = pci_get_device(0x1234, 0x11e8, NULL);
	int i, error;

	if (!device)
		return -ENODEV;
	error = pci_enable_device(device);
	if (error)
		goto put;
	registers = pci_iomap(device, 0, 0);
	if (!registers) {
		error = -ENOMEM;
		goto disable;
	}
	error = request_irq(device->irq, edu_interrupt, IRQF_SHARED, "hv_probe", device);
	if (error)
		goto unmap;
	for (i = 0; i < edu; i++) {
		writel(1, registers + EDU_RAISE);
		msleep(1);
	}
	msleep(20);
	pr_info("hv_probe: edu: irq %d came %d times\n", device->irq, atomic_read(&counted));
	free_irq(device->irq, device);
unmap:
	pci_iounmap(device, registers);
disable:
	pci_disable_device(device);
put:
	pci_dev_put(device);
	return error;
}

static int __init probe(void)
{
	int error = 0;

	if (!strcmp(instruction, "triple_fault"))
		triple_fault();
	else if (*instruction)
		execute();
	if (cost)
		measure();
	if (edu)
		error = count_edu();
	return error ?: -EAGAIN;
}
module_init(probe);

MODULE_DESCRIPTION("what a test of hv_core wants done in dom0's kernel");
MODULE_LICENSE("Dual MIT/GPL");
