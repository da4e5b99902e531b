// SPDX-License-Identifier: GPL-2.0-only
/* What the firmware says of this machine: the RSDP, physical memory of the tables, the IOAPICs of the MADT. */
#include <linux/acpi.h>
#include <linux/efi.h>
#include <linux/io.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>

#include "internal.h"
#include "dom0kit.h"

static ulong rsdp;
module_param(rsdp, ulong, 0400);
MODULE_PARM_DESC(rsdp, "Physical address of the ACPI root pointer, where it cannot be found (0: look for it)");

static DEFINE_MUTEX(core_mutex);

void dom0kit_lock(void *home)
{
	mutex_lock(&core_mutex);
}

void dom0kit_unlock(void *home)
{
	mutex_unlock(&core_mutex);
}

bool dom0kit_read_physical(void *home, u64 address, void *to, u32 bytes)
{
	void *from = memremap(address, bytes, MEMREMAP_WB);

	if (!from)
		return false;
	memcpy(to, from, bytes);
	memunmap(from);
	return true;
}

/* ACPI 6.5, section 5.2.5.1: on a 16-byte boundary in the first KiB of the EBDA, or in 0xE0000 to 0xFFFFF. */
static u64 scan(u64 from, u32 bytes)
{
	void *area = memremap(from, bytes, MEMREMAP_WB);
	u64 found = 0;
	u32 at;

	if (!area)
		return 0;
	for (at = 0; at + sizeof(struct acpi_table_rsdp) <= bytes && !found; at += 16)
		if (ACPI_VALIDATE_RSDP_SIG(area + at))
			found = from + at;
	memunmap(area);
	return found;
}

u64 dom0kit_find_rsdp(void)
{
	u16 segment;
	u64 found;

	if (rsdp)
		return rsdp;
	if (IS_ENABLED(CONFIG_EFI) && efi_enabled(EFI_CONFIG_TABLES)) {
		if (efi.acpi20 != EFI_INVALID_TABLE_ADDR)
			return efi.acpi20;
		if (efi.acpi != EFI_INVALID_TABLE_ADDR)
			return efi.acpi;
	}
	found = scan(0xe0000, 0x20000);
	if (!found && dom0kit_read_physical(NULL, 0x40e, &segment, sizeof(segment)) && segment)
		found = scan((u64)segment << 4, 1024);
	return found;
}

bool dom0kit_has_ioapic(u64 address)
{
	struct acpi_table_header *madt;
	struct hv_madt_entry entry;
	bool found = false;
	u32 at = sizeof(struct acpi_table_madt);
	u32 step;

	if (ACPI_FAILURE(acpi_get_table(ACPI_SIG_MADT, 0, &madt)))
		return false;
	while (!found && at < madt->length) {
		step = hv_madt_step((const u8 *)madt + at, madt->length - at, &entry);
		if (!step)
			break;
		found = entry.kind == HV_MADT_IOAPIC && entry.address == address;
		at += step;
	}
	acpi_put_table(madt);
	return found;
}
