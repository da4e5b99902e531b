/* SPDX-License-Identifier: MIT */
/*
 * Runs in domain 0 of Xen, with dom0kit.ko loaded: what a call costs the caller, in nanoseconds, as one line of three
 * figures. They are medians of rounds in which the three ways take turns:
 *   an ioctl of the module that asks nobody; apic_read by the module; the same apic_read by Xen's privcmd.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#include <hv_core/abi.h>

#define ROUNDS 31
#define CALLS 2000
#define WAYS 3

/* include/uapi/xen/privcmd.h */
struct privcmd_hypercall {
    uint64_t op;
    uint64_t arg[5];
};
#define PRIVCMD_HYPERCALL _IOC(_IOC_NONE, 'P', 0, sizeof(struct privcmd_hypercall))

static int module, privcmd;
static struct hv_apic *apic; /* in memory that the kernel does not move: Xen reads it by address */

static void reset(void)
{
    *apic = (struct hv_apic){.apic_physbase = 0xfec00000, .reg = 0x10};
}

static void must(int result, const char *what)
{
    if (result) {
        perror(what);
        exit(1);
    }
}

static void call(int way)
{
    struct hv_module_information information;
    struct privcmd_hypercall hypercall = {HV_HYPERCALL_PHYSDEV, {HV_PHYSDEVOP_APIC_READ, (uintptr_t)apic}};

    switch (way) {
    case 0:
        must(ioctl(module, _IOWR(HV_IOCTL_TYPE, HV_MODULE_INFORMATION, information), &information), "information");
        break;
    case 1:
        must(ioctl(module, _IOWR(HV_IOCTL_TYPE, HV_PHYSDEVOP_APIC_READ, struct hv_apic), apic), "apic_read");
        break;
    default:
        must(ioctl(privcmd, PRIVCMD_HYPERCALL, &hypercall), "privcmd");
        break;
    }
}

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

int main(void)
{
    static double cost[WAYS][ROUNDS];
    uint32_t value[WAYS] = {0};

    module = open("/dev/dom0kit", O_RDWR);
    privcmd = open("/dev/xen/privcmd", O_RDWR);
    int buffers = open("/dev/xen/hypercall", O_RDWR);
    must(module < 0 || privcmd < 0 || buffers < 0, "open");
    apic = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, buffers, 0);
    must(apic == MAP_FAILED, "mmap");
    for (int round = 0; round < ROUNDS; round++) {
        for (int way = 0; way < WAYS; way++) {
            double start = seconds();

            reset();
            for (int i = 0; i < CALLS; i++)
                call(way);
            cost[way][round] = (seconds() - start) / CALLS * 1e9;
            value[way] = apic->value;
        }
    }
    if (value[1] != value[2]) {
        fprintf(stderr, "the two ways read %#x and %#x\n", value[1], value[2]);
        return 1;
    }
    for (int way = 0; way < WAYS; way++) {
        qsort(cost[way], ROUNDS, sizeof(cost[way][0]), compare);
        printf("%.0f ", cost[way][ROUNDS / 2]);
    }
    printf("\n");
    return 0;
}
