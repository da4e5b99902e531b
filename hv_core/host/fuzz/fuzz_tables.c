/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a machine's memory: the core starts on it, or reports. The input is a sequence of pieces: an address of
 * 4 bytes, a length of 2, and the bytes; the RSDP is looked for at 0xe0000. `F` as the first byte of a piece's content
 * asks for the checksum to be put right, so that the fuzzer comes past it.
 */
#include "../model.h"

#include <stdlib.h>
#include <string.h>

static void fix_sum(uint8_t *bytes, size_t count, size_t at)
{
    uint8_t sum = 0;

    if (count <= at)
        return;
    bytes[at] = 0;
    for (size_t i = 0; i < count; i++)
        sum = (uint8_t)(sum + bytes[i]);
    bytes[at] = (uint8_t)(0x100 - sum);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hv_machine *machine = hv_machine_new();
    struct hv_information information = {.header = {.version = HV_ABI_VERSION, .bytes = sizeof(information)}};

    if (machine == NULL)
        abort();
    (void)hv_machine_ioapic(machine, 0xfec00000, 0, 0x170020);
    (void)hv_machine_ioapic(machine, 0xfec10000, 1, 0xef0020);
    while (size >= 7) {
        uint32_t address = data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
        uint32_t count = data[4] | (uint32_t)data[5] << 8;
        bool fix = data[6] & 1;

        data += 7;
        size -= 7;
        if (count > size)
            count = (uint32_t)size;
        if (count != 0) {
            uint8_t *copy = malloc(count);

            if (copy == NULL)
                abort();
            memcpy(copy, data, count);
            if (fix && count >= 36 && memcmp(copy, "RSD PTR ", 8) == 0) {
                fix_sum(copy, 20, 8);
                fix_sum(copy, 36, 32);
            } else if (fix) {
                fix_sum(copy, count, 9);
            }
            (void)hv_machine_memory(machine, address, copy, count);
            free(copy);
        }
        data += count;
        size -= count;
    }
    if (hv_machine_start(machine, 0xe0000, HV_MODE_INTERCEPT, 0, 0) != HV_OK)
        abort();
    if (hv_machine_call(machine, 0, HV_HYPERCALL_DOM0KIT, HV_OP_INFORMATION, &information, sizeof(information)) !=
        HV_OK)
        abort();
    if (information.cpus > HV_LIMIT_CPUS || information.ioapics > HV_LIMIT_IOAPICS || information.gsis > HV_LIMIT_GSIS)
        abort();
    hv_machine_free(machine);
    return 0;
}
