/* SPDX-License-Identifier: MIT */
/*
 * dom0's kernel: a bzImage by the 64-bit boot protocol (Linux, Documentation/x86/boot.rst), or an ELF image with a PVH
 * entry (Xen, docs/misc/pvh.pandoc; note XEN_ELFNOTE_PHYS32_ENTRY).
 *
 * What the kernel is told lies in the boot area, which dom0's memory map has as ACPI's: nothing is put over it.
 */
#include "home.h"
#include "x86.h"

#define LARGE_BYTES 0x200000ull
#define FOUR_GIB 0x100000000ull

/* The boot area: page tables for 4 GiB, a GDT, what the kernel is told, its command line. */
#define AREA_LEVEL4 0x0000u
#define AREA_LEVEL3 0x1000u
#define AREA_LEVEL2 0x2000u
#define AREA_GDT 0x6000u
#define AREA_INFORMATION 0x7000u
#define AREA_LINE 0x9000u
#define LINE_BYTES 0x1000u

/* Linux's header and boot_params have the same offsets. */
#define SETUP_SECTORS 0x1f1u
#define SETUP_HEADER 0x1f1u
#define SETUP_JUMP 0x201u /* its second byte: where the header ends, from 0x202 on */
#define SETUP_MAGIC 0x202u
#define SETUP_VERSION 0x206u
#define SETUP_LOADER 0x210u
#define SETUP_RAMDISK 0x218u
#define SETUP_RAMDISK_SIZE 0x21cu
#define SETUP_LINE 0x228u
#define SETUP_RAMDISK_MAX 0x22cu
#define SETUP_ALIGNMENT 0x230u
#define SETUP_FLAGS 0x236u
#define SETUP_LINE_SIZE 0x238u
#define SETUP_ADDRESS 0x258u
#define SETUP_MEMORY 0x260u
#define SETUP_BYTES_LEAST 0x264u
#define PARAMS_RSDP 0x070u
#define PARAMS_MAP_ENTRIES 0x1e8u
#define PARAMS_MAP 0x2d0u
#define PARAMS_BYTES 4096u
#define MAP_ENTRY_BYTES 20u
#define VERSION_2_12 0x020cu /* the first with flags for the 64-bit entry */
#define FLAG_64_BIT 1u
#define LOADER_OTHER 0xffu
#define ENTRY_64_BIT 0x200u

#define PVH_MAGIC 0x336ec578u
#define PVH_MODULE 0x40u
#define PVH_MAP 0x80u
#define PVH_MAP_ENTRY_BYTES 24u
#define NOTE_PVH 18u
#define SEGMENT_LOAD 1u
#define SEGMENT_NOTE 4u

static uint64_t load(const uint8_t *from, uint32_t at, uint32_t bytes)
{
    uint64_t value = 0;

    for (uint32_t i = 0; i < bytes; i++)
        value |= (uint64_t)from[at + i] << (8 * i);
    return value;
}

static void store(uint8_t *to, uint32_t at, uint64_t value, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++)
        to[at + i] = (uint8_t)(value >> (8 * i));
}

static uint64_t length(struct range range)
{
    return range.end - range.start;
}

/* ---- Both ways ---- */

static struct range write_gdt(uint64_t area)
{
    uint64_t *gdt = at_physical(area + AREA_GDT);

    gdt[0] = 0;
    gdt[1] = 0;
    gdt[2] = 0x00af9b000000ffffull; /* 0x10: code */
    gdt[3] = 0x00cf93000000ffffull; /* 0x18: data */
    return (struct range){area + AREA_GDT, area + AREA_GDT + 32};
}

static uint64_t write_tables(uint64_t area)
{
    uint64_t *level4 = at_physical(area + AREA_LEVEL4);
    uint64_t *level3 = at_physical(area + AREA_LEVEL3);
    uint64_t *level2 = at_physical(area + AREA_LEVEL2);

    level4[0] = (area + AREA_LEVEL3) | PAGE_PRESENT | PAGE_WRITABLE;
    for (uint32_t i = 0; i < 4; i++)
        level3[i] = (area + AREA_LEVEL2 + i * 4096ull) | PAGE_PRESENT | PAGE_WRITABLE;
    for (uint32_t i = 0; i < 4 * 512; i++)
        level2[i] = i * LARGE_BYTES | PAGE_PRESENT | PAGE_WRITABLE | PAGE_LARGE;
    return area + AREA_LEVEL4;
}

/* most: characters that the kernel takes. */
static uint64_t write_line(uint64_t area, const char *line, uint64_t most)
{
    uint8_t *to = at_physical(area + AREA_LINE);
    uint32_t i = 0;

    while (line[i] != '\0') {
        if (i == LINE_BYTES - 1 || i == most)
            panic("dom0's command line has more than %u characters", i);
        to[i] = (uint8_t)line[i];
        i++;
    }
    return area + AREA_LINE;
}

/* Where a module may stay, or has been moved to: below 4 GiB, and not where dom0's image goes. */
static struct range out_of_the_way(struct range module, struct range target)
{
    struct taken taken = hypervisor.taken;
    uint64_t at;

    if (!ranges_meet(module, target) || length(module) == 0)
        return module;
    if (!taken_add(&taken, target))
        panic("too many ranges of memory");
    at = memory_find(&hypervisor.dom0, &taken, (struct range){0x100000, FOUR_GIB}, length(module), 4096);
    if (at == 0)
        panic("no memory to move a module of %lu bytes to", length(module));
    memmove(at_physical(at), at_physical(module.start), length(module));
    log_line(LOG_NOTICE, "a module of %lu bytes is moved from %lx to %lx: dom0's kernel goes there", length(module),
             module.start, at);
    module = (struct range){at, at + length(module)};
    if (!taken_add(&hypervisor.taken, module))
        panic("too many ranges of memory");
    return module;
}

/* ---- bzImage ---- */

static void write_map(uint8_t *params)
{
    const struct memory_map *map = &hypervisor.dom0;

    store(params, PARAMS_MAP_ENTRIES, map->count, 1);
    for (uint32_t i = 0; i < map->count; i++) {
        uint32_t at = PARAMS_MAP + i * MAP_ENTRY_BYTES;

        store(params, at, map->range[i].range.start, 8);
        store(params, at + 8, length(map->range[i].range), 8);
        store(params, at + 16, map->range[i].type, 4);
    }
}

static bool is_linux(const uint8_t *image, uint64_t bytes)
{
    return bytes > SETUP_BYTES_LEAST && load(image, SETUP_MAGIC, 4) == 0x53726448u; /* "HdrS" */
}

static struct entry load_linux(const struct module *kernel, const struct module *initrd, uint64_t area, uint64_t rsdp)
{
    const uint8_t *image = at_physical(kernel->range.start);
    uint8_t *params = at_physical(area + AREA_INFORMATION);
    uint64_t setup_bytes = (load(image, SETUP_SECTORS, 1) + 1) * 512;
    uint64_t header_bytes = (uint64_t)(image[SETUP_JUMP] + SETUP_MAGIC) - SETUP_HEADER;
    uint64_t memory = load(image, SETUP_MEMORY, 4);
    uint64_t payload;
    uint64_t at;

    if (load(image, SETUP_VERSION, 2) < VERSION_2_12 || !(load(image, SETUP_FLAGS, 2) & FLAG_64_BIT))
        panic("dom0's kernel has no 64-bit entry");
    if (setup_bytes >= length(kernel->range))
        panic("dom0's kernel is cut short");
    if (header_bytes > PARAMS_MAP - SETUP_HEADER)
        panic("dom0's kernel has a header of %lu bytes", header_bytes);
    payload = length(kernel->range) - setup_bytes;
    if (memory < payload)
        memory = payload;
    at = memory_find(&hypervisor.dom0, &hypervisor.taken, (struct range){load(image, SETUP_ADDRESS, 8), FOUR_GIB},
                     memory, LARGE_BYTES);
    if (at == 0 || at % load(image, SETUP_ALIGNMENT, 4) != 0)
        panic("no %lu bytes of memory for dom0's kernel", memory);
    memcpy(at_physical(at), image + setup_bytes, payload);

    memset(params, 0, PARAMS_BYTES);
    memcpy(params + SETUP_HEADER, image + SETUP_HEADER, header_bytes);
    store(params, SETUP_LOADER, LOADER_OTHER, 1);
    store(params, SETUP_LINE, write_line(area, kernel->line, load(image, SETUP_LINE_SIZE, 4)), 4);
    store(params, PARAMS_RSDP, rsdp, 8);
    if (initrd != NULL) {
        if (initrd->range.end - 1 > load(image, SETUP_RAMDISK_MAX, 4))
            panic("the initrd lies too high for dom0's kernel");
        store(params, SETUP_RAMDISK, initrd->range.start, 4);
        store(params, SETUP_RAMDISK_SIZE, length(initrd->range), 4);
    }
    write_map(params);
    return (struct entry){
        .long_mode = true,
        .rip = at + ENTRY_64_BIT,
        .rsi = area + AREA_INFORMATION,
        .cr3 = write_tables(area),
        .gdt = write_gdt(area),
    };
}

/* ---- ELF, PVH ---- */

struct elf_segment {
    uint32_t type;
    uint64_t offset;
    uint64_t address; /* physical */
    uint64_t file_bytes;
    uint64_t memory_bytes;
};

static bool is_elf(const uint8_t *image, uint64_t bytes)
{
    return bytes >= 64 && memcmp(image, "\177ELF\2\1", 6) == 0; /* 64-bit, little-endian */
}

static uint32_t elf_segments(const uint8_t *image, uint64_t bytes)
{
    uint64_t at = load(image, 32, 8);
    uint64_t count = load(image, 56, 2);

    return load(image, 54, 2) == 56 && at < bytes && count <= (bytes - at) / 56 ? (uint32_t)count : 0;
}

/* Panics when it lies outside the file. */
static struct elf_segment elf_segment(const uint8_t *image, uint64_t bytes, uint32_t number)
{
    const uint8_t *header = image + load(image, 32, 8) + (uint64_t)number * 56;
    struct elf_segment segment = {
        .type = (uint32_t)load(header, 0, 4),
        .offset = load(header, 8, 8),
        .address = load(header, 24, 8),
        .file_bytes = load(header, 32, 8),
        .memory_bytes = load(header, 40, 8),
    };

    if (segment.offset > bytes || segment.file_bytes > bytes - segment.offset ||
        (segment.type == SEGMENT_LOAD &&
         (segment.memory_bytes < segment.file_bytes || segment.address > FOUR_GIB || segment.memory_bytes > FOUR_GIB)))
        panic("dom0's kernel has a segment that lies outside it");
    return segment;
}

/* The entry that a note names; 0: none. */
static uint64_t pvh_entry(const uint8_t *notes, uint64_t bytes)
{
    uint64_t at = 0;

    while (at + 12 <= bytes) {
        uint64_t name = (load(notes + at, 0, 4) + 3) & ~3ull;
        uint64_t value = (load(notes + at, 4, 4) + 3) & ~3ull;

        if (name + value > bytes - at - 12)
            return 0;
        if (load(notes + at, 8, 4) == NOTE_PVH && name == 4 && value >= 4 && memcmp(notes + at + 12, "Xen", 4) == 0)
            return load(notes + at + 12 + name, 0, 4);
        at += 12 + name + value;
    }
    return 0;
}

static struct range elf_target(const uint8_t *image, uint64_t bytes)
{
    struct range target = {FOUR_GIB, 0};

    for (uint32_t i = 0; i < elf_segments(image, bytes); i++) {
        struct elf_segment segment = elf_segment(image, bytes, i);

        if (segment.type != SEGMENT_LOAD)
            continue;
        if (segment.address < target.start)
            target.start = segment.address;
        if (segment.address + segment.memory_bytes > target.end)
            target.end = segment.address + segment.memory_bytes;
    }
    return target;
}

static uint64_t write_start_info(uint64_t area, const struct module *kernel, struct range initrd, uint64_t rsdp)
{
    const struct memory_map *map = &hypervisor.dom0;
    uint8_t *info = at_physical(area + AREA_INFORMATION);

    memset(info, 0, PARAMS_BYTES);
    store(info, 0, PVH_MAGIC, 4);
    store(info, 4, 1, 4);
    if (length(initrd) != 0) {
        store(info, 12, 1, 4);
        store(info, 16, area + AREA_INFORMATION + PVH_MODULE, 8);
        store(info, PVH_MODULE, initrd.start, 8);
        store(info, PVH_MODULE + 8, length(initrd), 8);
    }
    store(info, 24, write_line(area, kernel->line, LINE_BYTES), 8);
    store(info, 32, rsdp, 8);
    store(info, 40, area + AREA_INFORMATION + PVH_MAP, 8);
    store(info, 48, map->count, 4);
    for (uint32_t i = 0; i < map->count; i++) {
        uint32_t at = PVH_MAP + i * PVH_MAP_ENTRY_BYTES;

        store(info, at, map->range[i].range.start, 8);
        store(info, at + 8, length(map->range[i].range), 8);
        store(info, at + 16, map->range[i].type, 4);
    }
    return area + AREA_INFORMATION;
}

static struct entry load_elf(const struct module *kernel, const struct module *initrd, uint64_t area, uint64_t rsdp)
{
    struct range target = elf_target(at_physical(kernel->range.start), length(kernel->range));
    struct range file = out_of_the_way(kernel->range, target);
    struct range ramdisk = {0, 0};
    const uint8_t *image = at_physical(file.start);
    struct taken others = {0};
    uint64_t begin = 0;

    if (initrd != NULL)
        ramdisk = out_of_the_way(initrd->range, target);
    (void)taken_add(&others, hypervisor.image);
    (void)taken_add(&others, hypervisor.tables);
    (void)taken_add(&others, file);
    (void)taken_add(&others, ramdisk);
    if (target.start >= target.end || !memory_is(&hypervisor.dom0, target.start, length(target), MEMORY_RAM) ||
        taken_meets(&others, target))
        panic("dom0's kernel wants memory from %lx to %lx, which is not free", target.start, target.end);
    memset(at_physical(target.start), 0, length(target));
    for (uint32_t i = 0; i < elf_segments(image, length(file)); i++) {
        struct elf_segment segment = elf_segment(image, length(file), i);

        if (segment.type == SEGMENT_LOAD)
            memcpy(at_physical(segment.address), image + segment.offset, segment.file_bytes);
        else if (segment.type == SEGMENT_NOTE && begin == 0)
            begin = pvh_entry(image + segment.offset, segment.file_bytes);
    }
    if (!range_holds(target, begin, 1))
        panic("dom0's kernel has no PVH entry");
    return (struct entry){
        .rip = begin,
        .rbx = write_start_info(area, kernel, ramdisk, rsdp),
        .gdt = write_gdt(area),
    };
}

struct entry dom0_load(const struct module *kernel, const struct module *initrd, uint64_t area, uint64_t rsdp)
{
    const uint8_t *image = at_physical(kernel->range.start);

    memset(at_physical(area), 0, BOOT_AREA_ACPI);
    if (is_linux(image, length(kernel->range)))
        return load_linux(kernel, initrd, area, rsdp);
    if (is_elf(image, length(kernel->range)))
        return load_elf(kernel, initrd, area, rsdp);
    panic("the first module is no kernel: neither a bzImage nor a 64-bit ELF image");
}
