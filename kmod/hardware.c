// SPDX-License-Identifier: GPL-2.0-only
/*
 * The registers of a real IOAPIC, only read. Index and data register are a pair that the kernel guards with a lock it
 * does not export, so every processor stands still while we use them, and the index is left as it was found.
 */
#include <linux/io.h>
#include <linux/minmax.h>
#include <linux/stop_machine.h>
#include <xen/xen.h>

#include "dom0kit.h"

#define IOREGSEL 0x00
#define IOWIN 0x10
#define REGISTERS 0x20
#define PINS 120u

struct reading {
	void __iomem *at;
	struct hv_hardware_ioapic *ioapic;
};

static u32 read_register(void __iomem *at, u32 index)
{
	writel(index, at + IOREGSEL);
	return readl(at + IOWIN);
}

static int read_standing_still(void *data)
{
	const struct reading *reading = data;
	struct hv_hardware_ioapic *ioapic = reading->ioapic;
	u32 index = readl(reading->at + IOREGSEL);
	u32 pin;

	ioapic->id = read_register(reading->at, 0);
	ioapic->version = read_register(reading->at, 1);
	ioapic->arbitration = read_register(reading->at, 2);
	ioapic->pins = min(((ioapic->version >> 16) & 0xff) + 1, PINS);
	for (pin = 0; pin < ioapic->pins; pin++)
		ioapic->entry[pin] = read_register(reading->at, 0x10 + 2 * pin) |
				     (u64)read_register(reading->at, 0x11 + 2 * pin) << 32;
	writel(index, reading->at + IOREGSEL);
	return 0;
}

int dom0kit_read_hardware(struct hv_hardware_ioapic *ioapic)
{
	struct reading reading = { .ioapic = ioapic };

	if (xen_pv_domain())
		return -EOPNOTSUPP;
	if (!dom0kit_has_ioapic(ioapic->address))
		return -ENODEV;
	reading.at = ioremap(ioapic->address, REGISTERS);
	if (!reading.at)
		return -ENOMEM;
	stop_machine(read_standing_still, &reading, NULL);
	iounmap(reading.at);
	return 0;
}
