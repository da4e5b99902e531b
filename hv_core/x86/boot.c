/* SPDX-License-Identifier: MIT */
/* From the boot loader to dom0 (Multiboot 0.6.96). */
#include "home.h"
#include "x86.h"

#define MULTIBOOT_MAGIC 0x2badb002u /* what a boot loader says */
#define HAS_LINE (1u << 2)
#define HAS_MODULES (1u << 3)
#define HAS_MAP (1u << 6)
#define HAS_LOADER_NAME (1u << 9)
#define LINE_BYTES 4096u
#define MODULES 2u /* kernel and initrd */
#define MIB 0x100000ull
#define PIC_FIRST_MASK 0x21
#define PIC_SECOND_MASK 0xa1
#define FOUR_GIB 0x100000000ull

struct multiboot {
    uint32_t flags;         /* 0 */
    uint32_t memory[2];     /* 4 */
    uint32_t device;        /* 12 */
    uint32_t line;          /* 16 */
    uint32_t modules;       /* 20: how many */
    uint32_t modules_at;    /* 24 */
    uint32_t symbols[4];    /* 28 */
    uint32_t map_bytes;     /* 44 */
    uint32_t map_at;        /* 48 */
    uint32_t drives[2];     /* 52 */
    uint32_t configuration; /* 60 */
    uint32_t loader_name;   /* 64 */
};
HV_ASSERT_OFFSET(struct multiboot, line, 16);
HV_ASSERT_OFFSET(struct multiboot, modules, 20);
HV_ASSERT_OFFSET(struct multiboot, map_bytes, 44);
HV_ASSERT_OFFSET(struct multiboot, loader_name, 64);

struct multiboot_module {
    uint32_t start;
    uint32_t end;
    uint32_t line;
    uint32_t reserved;
};
HV_ASSERT_SIZE(struct multiboot_module, 16);

struct __attribute__((packed)) multiboot_range {
    uint32_t bytes; /* of the rest */
    uint64_t start;
    uint64_t length;
    uint32_t type;
};
HV_ASSERT_SIZE(struct multiboot_range, 24);

extern const uint8_t image_start[], image_end[];
void boot(uint32_t information, uint32_t magic);

_Alignas(HV_PAGE_BYTES) static struct hv_core the_core;
struct hypervisor hypervisor;
static char own_line[LINE_BYTES];
static char module_lines[MODULES][LINE_BYTES];
static struct module modules[MODULES];

/* ---- What the boot loader says ---- */

static bool is_text(const char *text, const char *wanted)
{
    while (*text == *wanted && *text != '\0') {
        text++;
        wanted++;
    }
    return *text == *wanted;
}

/* QEMU puts a file's name before its arguments, GRUB does not. */
static void copy_line(char to[LINE_BYTES], uint32_t from, bool named)
{
    const char *text = at_physical(from);
    uint32_t i = 0;

    while (named && *text != '\0' && *text != ' ')
        text++;
    while (*text == ' ')
        text++;
    for (; i < LINE_BYTES - 1 && text[i] != '\0'; i++)
        to[i] = text[i];
    to[i] = '\0';
}

static void take_modules(const struct multiboot *multiboot, bool named)
{
    const struct multiboot_module *list = at_physical(multiboot->modules_at);

    if (!(multiboot->flags & HAS_MODULES) || multiboot->modules == 0)
        panic("the boot loader brought no module: dom0's kernel is the first, its initrd the second");
    for (uint32_t i = 0; i < multiboot->modules && i < MODULES; i++) {
        modules[i].range = (struct range){list[i].start, list[i].end};
        modules[i].line = module_lines[i];
        copy_line(module_lines[i], list[i].line, named);
        if (list[i].end <= list[i].start || !taken_add(&hypervisor.taken, modules[i].range))
            panic("module %u is empty", i);
    }
}

static void take_map(const struct multiboot *multiboot)
{
    uint32_t at = 0;

    if (!(multiboot->flags & HAS_MAP))
        panic("the boot loader brought no memory map");
    while (at + sizeof(struct multiboot_range) <= multiboot->map_bytes) {
        const struct multiboot_range *entry = at_physical((uint64_t)multiboot->map_at + at);
        struct range range = {entry->start, entry->start + entry->length};

        if (range.end > range.start && !memory_set(&hypervisor.firmware, range, entry->type))
            panic("the memory map has too many entries");
        at += entry->bytes + (uint32_t)sizeof(entry->bytes);
    }
}

/* ---- Options ---- */

static bool option(const char *word, const char *name, const char **value)
{
    while (*name != '\0')
        if (*word++ != *name++)
            return false;
    *value = word;
    return true;
}

static uint32_t number(const char *text)
{
    uint32_t value = 0;

    while (*text >= '0' && *text <= '9' && value < 100000)
        value = value * 10 + (uint32_t)(*text++ - '0');
    if (*text != '\0')
        panic("an option's value is not a number: %s", text);
    return value;
}

static void take_option(const char *word)
{
    struct options *options = &hypervisor.options;
    const char *value;

    if (option(word, "dom0_cpus=", &value))
        options->dom0_cpus = number(value);
    else if (option(word, "loglevel=", &value))
        console_level(number(value));
    else if (is_text(word, "interrupts=direct"))
        options->intercept = false;
    else if (is_text(word, "interrupts=intercept"))
        options->intercept = true;
    else if (is_text(word, "apic=trap"))
        options->apic_trap = true;
    else
        log_line(LOG_WARNING, "unknown option: %s", word);
}

static void take_options(char *line)
{
    while (*line != '\0') {
        char *word = line;

        while (*line != '\0' && *line != ' ')
            line++;
        if (*line != '\0')
            *line++ = '\0';
        if (*word != '\0')
            take_option(word);
    }
}

/* ---- The steps ---- */

static void take_multiboot(uint32_t information, uint32_t magic)
{
    const struct multiboot *multiboot = at_physical(information);
    bool named;

    if (magic != MULTIBOOT_MAGIC)
        panic("not started by a Multiboot loader: %x", magic);
    named = (multiboot->flags & HAS_LOADER_NAME) && is_text(at_physical(multiboot->loader_name), "qemu");
    if (multiboot->flags & HAS_LINE)
        copy_line(own_line, multiboot->line, named);
    take_options(own_line);
    take_map(multiboot);
    hypervisor.image = (struct range){physical_of(image_start), physical_of(image_end)};
    if (!taken_add(&hypervisor.taken, (struct range){0, MIB}) || !taken_add(&hypervisor.taken, hypervisor.image))
        panic("too many ranges of memory");
    take_modules(multiboot, named);
}

/* Firmware's timer still ticks through the first 8259A, with the vector of an exception. */
static void mask_pics(void)
{
    out8(PIC_FIRST_MASK, 0xff);
    out8(PIC_SECOND_MASK, 0xff);
}

static void take_apic(void)
{
    uint64_t base = read_msr(MSR_APIC_BASE);

    if (!(base & APIC_BASE_ENABLED) || (base & APIC_BASE_X2APIC))
        panic("firmware left the local APIC off, or in x2APIC mode, which is not supported yet: %lx", base);
    hypervisor.apic = base & APIC_BASE_ADDRESS;
}

static void core_start(uint64_t rsdp)
{
    struct hv_start start = {
        .operations = &machine_operations,
        .rsdp = rsdp,
        .mode = hypervisor.options.intercept ? HV_MODE_INTERCEPT : HV_MODE_DIRECT,
        .entry_format = HV_FORMAT_COMPATIBILITY,
        .message_format = HV_FORMAT_COMPATIBILITY,
    };

    forget_ioapics();
    if (hv_core_start(hypervisor.core, &start) != HV_OK)
        panic("the core does not start");
}

/* dom0's memory is all but the core's; what it is told at the start lies in a part that it leaves alone. */
static uint64_t make_dom0_map(void)
{
    struct memory_map *map = &hypervisor.dom0;
    uint64_t area = memory_find(&hypervisor.firmware, &hypervisor.taken, (struct range){MIB, FOUR_GIB}, BOOT_AREA_BYTES,
                                HV_PAGE_BYTES);
    struct range boot_area = {area, area + BOOT_AREA_BYTES};

    *map = hypervisor.firmware;
    if (area == 0 || !memory_set(map, hypervisor.image, MEMORY_RESERVED) ||
        !memory_set(map, hypervisor.tables, MEMORY_RESERVED) || !memory_set(map, boot_area, MEMORY_ACPI) ||
        !taken_add(&hypervisor.taken, boot_area))
        panic("no room for what dom0 is told");
    return area;
}

/* Vectors that are dom0's: its messages, its system vectors. The core's are few and high. */
static void reserve_vectors(void)
{
    if (!hypervisor.options.intercept)
        return;
    hv_vectors_reserve(&hypervisor.core->cpus, HV_VECTOR_FIRST, 0xbf);
    hv_vectors_reserve(&hypervisor.core->cpus, 0xec, HV_VECTOR_LAST);
}

static void say_what_there_is(uint32_t features)
{
    const struct hv_core *core = hypervisor.core;

    log_line(LOG_NOTICE, "%u of %u processors are dom0's; %u IOAPICs with %u GSIs; local APICs are %s",
             hypervisor.dom0_cpus, hypervisor.cpus, core->ioapics, core->gsis,
             hypervisor.apic_trapped ? "trapped" : "dom0's");
    if (features & (HV_FEATURE_DMAR | HV_FEATURE_IVRS))
        log_line(LOG_NOTICE, "the IOMMU is hidden from dom0: the core has no driver for it");
    for (uint32_t i = 0; i < core->reports; i++)
        log_line(LOG_WARNING, "firmware: report %u at %lx, value %lx", core->report[i].code, core->report[i].where,
                 core->report[i].value);
}

void boot(uint32_t information, uint32_t magic)
{
    struct cpu *cpu = &processors[0].cpu;
    struct entry entry;
    uint64_t area;
    uint64_t rsdp;
    uint32_t features;

    console_start();
    interrupts_make();
    interrupts_start();
    mask_pics();
    log_line(LOG_NOTICE, "dom0kit core, ABI %u", HV_ABI_VERSION);
    take_multiboot(information, magic);
    if (!svm.present())
        panic("this processor has no virtualization extension the core knows (AMD SVM with nested paging)");
    hypervisor.vendor = &svm;
    hypervisor.core = &the_core;
    take_apic();
    memory_start();
    hypervisor.rsdp = acpi_find_rsdp();
    if (hypervisor.rsdp == 0)
        panic("no ACPI root pointer (RSDP) below 1 MiB; UEFI is not supported yet");
    core_start(hypervisor.rsdp);
    features = hypervisor.core->features;
    hypervisor.vendor->configure(hypervisor.options.intercept, hypervisor.core->cpus.count > 1, nested_tables());
    if (!hypervisor.vendor->enable(cpu))
        panic("firmware has switched %s off", hypervisor.vendor->name);
    processors_start();
    hypervisor.apic_trapped = hypervisor.cpus > 1 || hypervisor.options.apic_trap;
    if (hypervisor.apic_trapped && nested_hide(hypervisor.apic) != HV_OK)
        panic("no table is left");
    area = make_dom0_map();
    rsdp = acpi_edit(hypervisor.core, (struct range){area + BOOT_AREA_ACPI, area + BOOT_AREA_BYTES});
    if (rsdp == 0)
        panic("the ACPI tables cannot be copied");
    core_start(rsdp);
    hypervisor.core->features |= features & (HV_FEATURE_DMAR | HV_FEATURE_IVRS);
    reserve_vectors();
    say_what_there_is(features);
    entry = dom0_load(&modules[0], modules[1].line != NULL ? &modules[1] : NULL, area, rsdp);
    log_line(LOG_NOTICE, "memory from %lx to %lx and from %lx to %lx is the core's; dom0 starts (%s, interrupts %s)",
             hypervisor.image.start, hypervisor.image.end, hypervisor.tables.start, hypervisor.tables.end,
             hypervisor.vendor->name, hypervisor.options.intercept ? "intercepted" : "direct");
    cpu->role = CPU_RUNNING;
    hypervisor.vendor->begin(cpu, &entry);
    cpu_run(cpu);
}
