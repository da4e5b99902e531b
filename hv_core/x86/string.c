/* SPDX-License-Identifier: MIT */
/* What a compiler asks for even when freestanding. */
#include "home.h"

void *memcpy(void *to, const void *from, size_t bytes)
{
    void *at = to;

    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(bytes) : : "memory");
    return to;
}

void *memmove(void *to, const void *from, size_t bytes)
{
    uint8_t *out = to;
    const uint8_t *in = from;

    if (out <= in || out >= in + bytes)
        return memcpy(to, from, bytes);
    out += bytes - 1;
    in += bytes - 1;
    __asm__ volatile("std; rep movsb; cld" : "+D"(out), "+S"(in), "+c"(bytes) : : "memory");
    return to;
}

void *memset(void *to, int value, size_t bytes)
{
    void *at = to;

    __asm__ volatile("rep stosb" : "+D"(at), "+c"(bytes) : "a"(value) : "memory");
    return to;
}

int memcmp(const void *a, const void *b, size_t bytes)
{
    const uint8_t *one = a;
    const uint8_t *other = b;

    for (size_t i = 0; i < bytes; i++)
        if (one[i] != other[i])
            return one[i] < other[i] ? -1 : 1;
    return 0;
}
