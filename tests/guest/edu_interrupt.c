// SPDX-License-Identifier: MIT
/*
 * For a guest that was given QEMU's edu device: has it interrupt once by its INTx pin, and says whether that came.
 * Prints "edu: interrupt seen" or "edu: no interrupt". Source: QEMU, docs/specs/edu.txt (registers).
 */
#include <linux/completion.h>
#include <linux/interrupt.h>
#include <linux/module.h>
#include <linux/pci.h>

#define IDENTITY 0x00 /* ......edh: what kind of device it is */
#define INTERRUPT_STATUS 0x24
#define RAISE 0x60
#define ACKNOWLEDGE 0x64

static DECLARE_COMPLETION(seen);
static void __iomem *registers;

static irqreturn_t interrupted(int irq, void *context)
{
    u32 status = readl(registers + INTERRUPT_STATUS);

    if (!status)
        return IRQ_NONE;
    writel(status, registers + ACKNOWLEDGE);
    complete(&seen);
    return IRQ_HANDLED;
}

static int probe(struct pci_dev *device, const struct pci_device_id *id)
{
    int failed = pci_enable_device(device);

    if (failed)
        return failed;
    registers = pci_iomap(device, 0, 0);
    if (!registers)
        return -ENOMEM;
    pr_info("edu: identity %#x, irq %u\n", readl(registers + IDENTITY), device->irq);
    failed = request_irq(device->irq, interrupted, IRQF_SHARED, "edu", device);
    if (failed)
        return failed;
    writel(1, registers + RAISE);
    pr_info("edu: %s\n", wait_for_completion_timeout(&seen, 20 * HZ) ? "interrupt seen" : "no interrupt");
    free_irq(device->irq, device);
    pci_iounmap(device, registers);
    pci_disable_device(device);
    return -ENODEV; /* it has said what it is for */
}

static const struct pci_device_id ids[] = {{PCI_DEVICE(0x1234, 0x11e8)}, {}};
static struct pci_driver edu_driver = {.name = "edu_interrupt", .id_table = ids, .probe = probe};
module_pci_driver(edu_driver);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("QEMU's edu device interrupts once");
