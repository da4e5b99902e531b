/* SPDX-License-Identifier: MIT */
/*
 * The instructions that compilers and kernels use on a register in memory: MOV of a register, an immediate and the
 * accumulator, MOVZX, MOVSX (AMD APM volume 3, chapters 1 and 3). Where in memory, the processor has told already.
 * Pure logic; the code is dom0's and may change under the processor that reads it: it is read once, into `code`.
 */
#include "home.h"

struct cursor {
    const uint8_t *code;
    uint32_t bytes;
    uint32_t at;
    bool short_of; /* read past the end */
};

static uint8_t next(struct cursor *cursor)
{
    if (cursor->at >= cursor->bytes) {
        cursor->short_of = true;
        return 0;
    }
    return cursor->code[cursor->at++];
}

static uint64_t next_number(struct cursor *cursor, uint32_t bytes)
{
    uint64_t value = 0;

    for (uint32_t i = 0; i < bytes; i++)
        value |= (uint64_t)next(cursor) << (8 * i);
    return value;
}

struct prefixes {
    bool operand16;
    bool address_other;
    uint8_t rex;
};

/* Prefixes and the opcode's first byte. */
static uint8_t read_prefixes(struct cursor *cursor, bool code64, struct prefixes *prefixes)
{
    for (;;) {
        uint8_t byte = next(cursor);

        switch (byte) {
        case 0x66:
            prefixes->operand16 = true;
            break;
        case 0x67:
            prefixes->address_other = true;
            break;
        case 0x26:
        case 0x2e:
        case 0x36:
        case 0x3e:
        case 0x64:
        case 0x65:
            break;
        default:
            if (code64 && (byte & 0xf0) == 0x40) {
                prefixes->rex = byte; /* only the last prefix counts as one */
                byte = next(cursor);
                if ((byte & 0xf0) == 0x40 || byte == 0x66 || byte == 0x67)
                    cursor->short_of = true; /* no assembler makes this */
            }
            return byte;
        }
        if (cursor->short_of)
            return 0;
    }
}

/* Passes ModRM, SIB and displacement (32- and 64-bit addressing); the reg field. */
static uint32_t read_modrm(struct cursor *cursor)
{
    uint8_t modrm = next(cursor);
    uint32_t mod = modrm >> 6;
    uint32_t rm = modrm & 7;

    if (mod == 3) /* a register, not memory */
        cursor->short_of = true;
    if (rm == 4 && (next(cursor) & 7) == 5 && mod == 0)
        (void)next_number(cursor, 4);
    if (mod == 0 && rm == 5)
        (void)next_number(cursor, 4);
    if (mod == 1)
        (void)next(cursor);
    if (mod == 2)
        (void)next_number(cursor, 4);
    return modrm >> 3 & 7;
}

static void set_register(struct access *access, uint32_t reg, uint32_t bytes, uint8_t rex)
{
    access->gpr = reg | (rex & 4u ? 8u : 0);
    if (bytes == 1 && rex == 0 && reg >= 4) {
        access->gpr = reg - 4;
        access->high_byte = true;
    }
}

/* 0F B6, B7, BE, BF */
static bool decode_extension(struct cursor *cursor, uint32_t operand, uint8_t rex, struct access *access)
{
    uint8_t opcode = next(cursor);

    if ((opcode & 0xf6) != 0xb6)
        return false;
    access->bytes = opcode & 1 ? 2 : 1;
    access->sign = (opcode & 8) != 0;
    access->fill_bytes = operand;
    access->gpr = read_modrm(cursor) | (rex & 4u ? 8u : 0);
    return true;
}

static uint64_t sign_extended(uint64_t value, uint32_t bytes)
{
    uint32_t unused = 64 - 8 * bytes;

    return (uint64_t)((int64_t)(value << unused) >> unused);
}

bool decode(const uint8_t *code, uint32_t bytes, bool code64, bool code32, struct access *access)
{
    struct cursor cursor = {.code = code, .bytes = bytes};
    struct prefixes prefixes = {0};
    uint8_t opcode = read_prefixes(&cursor, code64, &prefixes);
    uint32_t operand = prefixes.operand16 != (!code64 && !code32) ? 2 : 4;
    uint32_t address = code64 ? 8 : 4;

    *access = (struct access){0};
    if (prefixes.rex & 8)
        operand = 8;
    if (prefixes.address_other)
        address = 4;
    if (!code64 && code32 == prefixes.address_other) /* 16-bit addressing */
        return false;
    switch (opcode) {
    case 0x88: /* MOV memory, register */
    case 0x89:
    case 0x8a: /* MOV register, memory */
    case 0x8b:
        access->bytes = opcode & 1 ? operand : 1;
        access->write = !(opcode & 2);
        access->fill_bytes = access->bytes;
        set_register(access, read_modrm(&cursor), access->bytes, prefixes.rex);
        break;
    case 0xa0: /* MOV accumulator, memory */
    case 0xa1:
    case 0xa2: /* MOV memory, accumulator */
    case 0xa3:
        access->bytes = opcode & 1 ? operand : 1;
        access->write = (opcode & 2) != 0;
        access->fill_bytes = access->bytes;
        access->gpr = GPR_RAX;
        (void)next_number(&cursor, address);
        break;
    case 0xc6: /* MOV memory, immediate */
    case 0xc7:
        access->bytes = opcode & 1 ? operand : 1;
        access->write = true;
        access->has_value = true;
        if (read_modrm(&cursor) != 0)
            return false;
        access->value = next_number(&cursor, access->bytes == 8 ? 4 : access->bytes);
        if (access->bytes == 8)
            access->value = sign_extended(access->value, 4);
        break;
    case 0x0f:
        if (!decode_extension(&cursor, operand, prefixes.rex, access))
            return false;
        break;
    default:
        return false;
    }
    access->length = cursor.at;
    return !cursor.short_of;
}

void access_read(const struct access *access, uint64_t gpr[GPR_COUNT], uint64_t value)
{
    uint64_t *reg = &gpr[access->gpr];

    if (access->bytes < 8)
        value &= (1ull << (8 * access->bytes)) - 1;
    if (access->sign)
        value = sign_extended(value, access->bytes);
    switch (access->fill_bytes) {
    case 8:
        *reg = value;
        break;
    case 4: /* the upper half becomes zero */
        *reg = value & 0xffffffffull;
        break;
    case 2:
        *reg = (*reg & ~0xffffull) | (value & 0xffff);
        break;
    default:
        if (access->high_byte)
            *reg = (*reg & ~0xff00ull) | (value & 0xff) << 8;
        else
            *reg = (*reg & ~0xffull) | (value & 0xff);
        break;
    }
}

uint64_t access_value(const struct access *access, const uint64_t gpr[GPR_COUNT])
{
    uint64_t value = access->has_value ? access->value : gpr[access->gpr];

    if (access->high_byte)
        value >>= 8;
    return access->bytes < 8 ? value & ((1ull << (8 * access->bytes)) - 1) : value;
}
