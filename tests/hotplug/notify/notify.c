// SPDX-License-Identifier: MIT
/*
 * Evaluates one ACPI method without arguments, as firmware would by an interrupt. Loading it does that, and is then
 * refused (EAGAIN), so that it can be loaded again.
 */
#include <linux/acpi.h>
#include <linux/module.h>

static char *method = "";
module_param(method, charp, 0400);
MODULE_PARM_DESC(method, "its path");

static int __init evaluate(void)
{
	acpi_status status = acpi_evaluate_object(NULL, method, NULL, NULL);

	pr_info("notify: %s: %s\n", method, acpi_format_exception(status));
	return -EAGAIN;
}
module_init(evaluate);
MODULE_DESCRIPTION("Evaluates one ACPI method");
MODULE_LICENSE("Dual MIT/GPL");
