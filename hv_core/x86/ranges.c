/* SPDX-License-Identifier: MIT */
/* The map of physical memory, and places in it. Pure logic. */
#include "home.h"

static bool append(struct memory_map *map, struct range range, uint32_t type)
{
    struct memory_range *last = map->count > 0 ? &map->range[map->count - 1] : NULL;

    if (range.start >= range.end)
        return true;
    if (last != NULL && last->type == type && last->range.end == range.start) {
        last->range.end = range.end;
        return true;
    }
    if (map->count == MEMORY_RANGES)
        return false;
    map->range[map->count++] = (struct memory_range){.range = range, .type = type};
    return true;
}

bool memory_set(struct memory_map *map, struct range range, uint32_t type)
{
    /* On the stack of a processor it would be large, and only one processor ever changes a map. */
    static struct memory_map old;
    bool placed = false;
    bool fits = true;

    old = *map;
    map->count = 0;
    for (uint32_t i = 0; i < old.count; i++) {
        struct range before = old.range[i].range;
        struct range after = before;

        if (before.end > range.start)
            before.end = range.start;
        if (after.start < range.end)
            after.start = range.end;
        fits = append(map, before, old.range[i].type) && fits;
        if (!placed && old.range[i].range.end > range.start) {
            fits = append(map, range, type) && fits;
            placed = true;
        }
        fits = append(map, after, old.range[i].type) && fits;
    }
    if (!placed)
        fits = append(map, range, type) && fits;
    if (!fits)
        *map = old;
    return fits;
}

bool memory_is(const struct memory_map *map, uint64_t address, uint64_t bytes, uint32_t type)
{
    for (uint32_t i = 0; i < map->count; i++)
        if (map->range[i].type == type && range_holds(map->range[i].range, address, bytes))
            return true;
    return false;
}

bool taken_add(struct taken *taken, struct range range)
{
    if (taken->count == TAKEN_RANGES)
        return false;
    taken->range[taken->count++] = range;
    return true;
}

bool taken_meets(const struct taken *taken, struct range range)
{
    for (uint32_t i = 0; i < taken->count; i++)
        if (ranges_meet(taken->range[i], range))
            return true;
    return false;
}

static uint64_t align_up(uint64_t value, uint64_t alignment)
{
    return (value + alignment - 1) & ~(alignment - 1);
}

/* The first place from `at` on that no taken range meets, or one behind the end. Each step passes one taken range. */
static uint64_t step_over(const struct taken *taken, uint64_t at, uint64_t bytes, uint64_t alignment)
{
    for (uint32_t steps = 0; steps <= TAKEN_RANGES; steps++) {
        struct range place = {at, at + bytes};
        uint32_t i = 0;

        while (i < taken->count && !ranges_meet(taken->range[i], place))
            i++;
        if (i == taken->count)
            break;
        at = align_up(taken->range[i].end, alignment);
    }
    return at;
}

uint64_t memory_find(const struct memory_map *map, const struct taken *taken, struct range within, uint64_t bytes,
                     uint64_t alignment)
{
    for (uint32_t i = 0; i < map->count; i++) {
        struct range ram = map->range[i].range;
        uint64_t at;

        if (map->range[i].type != MEMORY_RAM)
            continue;
        if (ram.start < within.start)
            ram.start = within.start;
        if (ram.end > within.end)
            ram.end = within.end;
        at = step_over(taken, align_up(ram.start, alignment), bytes, alignment);
        if (range_holds(ram, at, bytes))
            return at;
    }
    return 0;
}
