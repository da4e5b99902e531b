/* SPDX-License-Identifier: MIT */
/*
 * Runs as the only program of a guest with dom0kit.ko loaded: has everything in use (a pIRQ, a mapping, a watch), puts
 * the machine to sleep and back, and says whether all is as it was. Prints "as it was", or what is not.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <hv_core/abi.h>

#define IOAPIC 0xfec00000ull
#define GSI 20

struct state {
    struct hv_apic version, entry;
    struct hv_alloc_irq_vector vector;
    uint8_t shared[8192];
};

static int device;

static int ask(unsigned nr, void *argument, size_t bytes)
{
    int failed = ioctl(device, _IOC(_IOC_READ | _IOC_WRITE, HV_IOCTL_TYPE, nr, bytes), argument);

    if (failed)
        printf("call %#x: %m\n", nr);
    return failed;
}

static int read_state(struct state *state, const void *shared)
{
    memset(state, 0, sizeof(*state));
    state->version = (struct hv_apic){.apic_physbase = IOAPIC, .reg = 1};
    state->entry = (struct hv_apic){.apic_physbase = IOAPIC, .reg = 0x10 + 2 * GSI};
    state->vector.irq = GSI;
    memcpy(state->shared, shared, sizeof(state->shared));
    return ask(HV_PHYSDEVOP_APIC_READ, &state->version, sizeof(state->version)) ||
           ask(HV_PHYSDEVOP_APIC_READ, &state->entry, sizeof(state->entry)) ||
           ask(HV_PHYSDEVOP_ALLOC_IRQ_VECTOR, &state->vector, sizeof(state->vector));
}

static int put(const char *path, const char *text)
{
    int file = open(path, O_WRONLY);
    int failed = file < 0 || write(file, text, strlen(text)) < 0;

    if (failed)
        printf("%s: %m\n", path);
    close(file);
    return failed;
}

int main(void)
{
    static struct state before, after;
    struct hv_setup_gsi setup = {.gsi = GSI, .triggering = 1, .polarity = 1};
    struct hv_map_pirq map = {.domid = HV_DOMID_SELF, .type = HV_MAP_PIRQ_GSI, .index = GSI, .pirq = GSI};
    struct hv_module_watch watch = {.fd = eventfd(0, EFD_NONBLOCK)};
    uint64_t changes;

    device = open("/dev/dom0kit", O_RDWR);
    const void *shared = mmap(NULL, sizeof(before.shared), PROT_READ, MAP_SHARED, device, 0);
    if (device < 0 || shared == MAP_FAILED || ask(HV_PHYSDEVOP_SETUP_GSI, &setup, sizeof(setup)) ||
        ask(HV_PHYSDEVOP_MAP_PIRQ, &map, sizeof(map)) || ask(HV_MODULE_WATCH, &watch, sizeof(watch)) ||
        read_state(&before, shared))
        return 1;
    /* Everything sleeps, IOAPICs and processors too, but for the firmware; the kernel wakes up by itself. */
    if (put("/sys/module/suspend/parameters/pm_test_delay", "1") || put("/sys/power/pm_test", "core") ||
        put("/sys/power/state", "mem"))
        return 1;
    if (read_state(&after, shared))
        return 1;
    if (memcmp(&before, &after, sizeof(before)) != 0)
        printf("not as it was: entry %#x, now %#x; vector %u, now %u\n", before.entry.value, after.entry.value,
               before.vector.vector, after.vector.vector);
    else if (read(watch.fd, &changes, sizeof(changes)) > 0)
        printf("something changed\n");
    else
        printf("as it was\n");
    return 0;
}
