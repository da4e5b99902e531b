// SPDX-License-Identifier: GPL-2.0-only
/*
 * Objects of the namespace, evaluated by the kernel's own interpreter, which sees the operation regions that an offline
 * interpreter cannot. Evaluating may run any method, so only names are allowed that Linux itself evaluates at boot.
 */
#include <linux/acpi.h>
#include <linux/align.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "dom0kit.h"

#define RESULT_MAX (1u << 20)
#define DEPTH_MAX 8

static const char allowed[][ACPI_NAMESEG_SIZE + 1] = {
	"_STA", "_CRS", "_PRS", "_PRT", "_ADR", "_HID", "_CID", "_UID",
	"_BBN", "_SEG", "_PXM", "_SUN", "_MAT", "_GSB", "_CBA",
};

/* A writer that goes on counting when its room is full. */
struct result {
	u8 *room;
	u32 bytes;
	u32 needed;
};

static void put(struct result *result, u32 type, u32 length, const void *bytes, u32 count)
{
	struct hv_aml_value value = { .type = type, .length = length };
	u32 end = result->needed + sizeof(value) + ALIGN(count, 8);

	if (end > result->needed && end <= result->bytes) {
		memcpy(result->room + result->needed, &value, sizeof(value));
		memcpy(result->room + result->needed + sizeof(value), bytes, count);
	}
	result->needed = end;
}

static int put_reference(struct result *result, acpi_handle handle)
{
	struct acpi_buffer name = { ACPI_ALLOCATE_BUFFER, NULL };

	if (!handle || ACPI_FAILURE(acpi_get_name(handle, ACPI_FULL_PATHNAME, &name))) {
		put(result, HV_AML_REFERENCE, 0, NULL, 0);
		return 0;
	}
	put(result, HV_AML_REFERENCE, strlen(name.pointer), name.pointer, strlen(name.pointer));
	kfree(name.pointer);
	return 0;
}

static int put_object(struct result *result, const union acpi_object *object, unsigned int depth)
{
	u64 integer;
	u32 i;
	int error = 0;

	if (depth > DEPTH_MAX || result->needed > RESULT_MAX)
		return -E2BIG;
	switch (object->type) {
	case ACPI_TYPE_ANY:
		put(result, HV_AML_NOTHING, 0, NULL, 0);
		return 0;
	case ACPI_TYPE_INTEGER:
		integer = object->integer.value;
		put(result, HV_AML_INTEGER, sizeof(integer), &integer, sizeof(integer));
		return 0;
	case ACPI_TYPE_STRING:
	case ACPI_TYPE_BUFFER:
		/* length and pointer lie at the same place in both */
		if (object->buffer.length > RESULT_MAX)
			return -E2BIG;
		put(result, object->type == ACPI_TYPE_STRING ? HV_AML_STRING : HV_AML_BUFFER, object->buffer.length,
		    object->buffer.pointer, object->buffer.length);
		return 0;
	case ACPI_TYPE_LOCAL_REFERENCE:
		return put_reference(result, object->reference.handle);
	case ACPI_TYPE_PACKAGE:
		put(result, HV_AML_PACKAGE, object->package.count, NULL, 0);
		for (i = 0; i < object->package.count && !error; i++)
			error = put_object(result, &object->package.elements[i], depth + 1);
		return error;
	default:
		put(result, HV_AML_OTHER, sizeof(object->type), &object->type, sizeof(object->type));
		return 0;
	}
}

static int check_path(const char *path, size_t room)
{
	size_t length = strnlen(path, room);
	const char *name = path;
	size_t i;

	if (length == room || path[0] != '\\')
		return -EINVAL;
	for (i = 1; i < length; i++) {
		char c = path[i];

		if (c == '.')
			name = path + i;
		else if (!(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') && c != '_')
			return -EINVAL;
	}
	for (i = 0; i < ARRAY_SIZE(allowed); i++)
		if (!strcmp(name + 1, allowed[i]))
			return 0;
	return -EPERM;
}

static int copy_result(struct hv_evaluate *evaluate, const union acpi_object *object)
{
	struct result result = { .bytes = evaluate->bytes };
	int error;

	result.room = kvzalloc(max(result.bytes, 8u), GFP_KERNEL);
	if (!result.room)
		return -ENOMEM;
	error = put_object(&result, object, 0);
	evaluate->needed = result.needed;
	if (!error && result.needed > result.bytes)
		error = -ENOSPC;
	if (!error && copy_to_user(u64_to_user_ptr(evaluate->buffer), result.room, result.needed))
		error = -EFAULT;
	kvfree(result.room);
	return error;
}

int dom0kit_evaluate(struct hv_evaluate *evaluate)
{
	struct acpi_buffer buffer = { ACPI_ALLOCATE_BUFFER, NULL };
	union acpi_object nothing = { .type = ACPI_TYPE_ANY };
	acpi_status status;
	int error;

	if (evaluate->zero || evaluate->bytes > RESULT_MAX)
		return -EINVAL;
	error = check_path(evaluate->path, sizeof(evaluate->path));
	if (error)
		return error;
	if (acpi_disabled)
		return -ENODEV;
	status = acpi_evaluate_object(NULL, evaluate->path, NULL, &buffer);
	evaluate->acpi_status = status;
	if (status == AE_NOT_FOUND)
		return -ENOENT;
	if (ACPI_FAILURE(status))
		return -EIO;
	error = copy_result(evaluate, buffer.pointer ? buffer.pointer : &nothing);
	kfree(buffer.pointer);
	return error;
}
