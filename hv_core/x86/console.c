/* SPDX-License-Identifier: MIT */
/* The serial console (16550 at COM1), formatted lines, and the end. */
#include <stdarg.h>

#include "home.h"
#include "x86.h"

#define COM1 0x3f8
#define DATA (COM1 + 0)
#define INTERRUPTS (COM1 + 1)
#define FIFO (COM1 + 2)
#define LINE_CONTROL (COM1 + 3)
#define MODEM_CONTROL (COM1 + 4)
#define LINE_STATUS (COM1 + 5)
#define DIVISOR_LATCH 0x80
#define EIGHT_BITS 3
#define TRANSMITTER_EMPTY 0x20
#define REFUSALS_SHOWN 256u
#define PATIENCE 100000u /* looks at a transmitter that may not be there */

static uint32_t level_shown = LOG_NOTICE;
static uint32_t writing; /* a line at a time */

void console_start(void)
{
    out8(INTERRUPTS, 0);
    out8(LINE_CONTROL, DIVISOR_LATCH | EIGHT_BITS);
    out8(DATA, 1); /* 115200 */
    out8(INTERRUPTS, 0);
    out8(LINE_CONTROL, EIGHT_BITS);
    out8(FIFO, 7);
    out8(MODEM_CONTROL, 3);
}

void console_level(uint32_t level)
{
    level_shown = level;
}

static void write_character(char character)
{
    for (uint32_t i = 0; i < PATIENCE && !(in8(LINE_STATUS) & TRANSMITTER_EMPTY); i++)
        pause();
    out8(DATA, (uint8_t)character);
}

static void write_text(const char *text)
{
    for (; *text != '\0'; text++)
        write_character(*text);
}

static void write_number(uint64_t value, uint32_t base)
{
    char digits[20];
    uint32_t count = 0;

    do {
        digits[count++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    while (count > 0)
        write_character(digits[--count]);
}

/* After a '%' and an 'l' if there is one. */
static void write_argument(char kind, uint64_t value)
{
    if (kind == 'x') {
        write_text("0x");
        write_number(value, 16);
    } else {
        write_number(value, 10);
    }
}

static void write_formatted(const char *format, va_list arguments)
{
    for (; *format != '\0'; format++) {
        if (*format != '%') {
            write_character(*format);
            continue;
        }
        format++;
        switch (*format) {
        case 's':
            write_text(va_arg(arguments, const char *));
            break;
        case 'l':
            format++;
            write_argument(*format, va_arg(arguments, uint64_t));
            break;
        case 'u':
        case 'x':
            write_argument(*format, va_arg(arguments, uint32_t));
            break;
        default:
            return;
        }
    }
}

/* Waits for a line of another processor; not for ever, for that processor may have died in it. */
static void begin_line(void)
{
    for (uint32_t i = 0; i < PATIENCE * 100 && __atomic_exchange_n(&writing, 1, __ATOMIC_ACQUIRE) != 0; i++)
        pause();
    write_text("hv_core: ");
}

static void end_line(void)
{
    write_text("\r\n");
    __atomic_store_n(&writing, 0, __ATOMIC_RELEASE);
}

void log_line(enum log_level level, const char *format, ...)
{
    va_list arguments;

    if ((uint32_t)level > level_shown)
        return;
    begin_line();
    va_start(arguments, format);
    write_formatted(format, arguments);
    va_end(arguments);
    end_line();
}

void log_refusal(const char *format, ...)
{
    static uint32_t lines;
    va_list arguments;
    uint32_t number = __atomic_fetch_add(&lines, 1, __ATOMIC_RELAXED);

    if ((uint32_t)LOG_WARNING > level_shown || number > REFUSALS_SHOWN)
        return;
    begin_line();
    va_start(arguments, format);
    if (number == REFUSALS_SHOWN)
        write_text("dom0 has been refused many things; only the counters tell of more");
    else
        write_formatted(format, arguments);
    va_end(arguments);
    end_line();
}

/* Those that run dom0 leave it by an NMI, and see the flag. */
static void stop_others(void)
{
    __atomic_store_n(&hypervisor.stopped, true, __ATOMIC_SEQ_CST);
    for (uint32_t i = 0; i < hypervisor.dom0_cpus; i++)
        if (&processors[i].cpu != this_cpu())
            cpu_kick(&processors[i].cpu);
}

void panic(const char *format, ...)
{
    static uint32_t panics;
    struct cpu *cpu = this_cpu();
    struct state state;

    if (__atomic_fetch_add(&panics, 1, __ATOMIC_RELAXED) == 0) {
        va_list arguments;

        begin_line();
        write_text("PANIC: ");
        va_start(arguments, format);
        write_formatted(format, arguments);
        va_end(arguments);
        end_line();
        if (cpu->role == CPU_RUNNING && hypervisor.vendor != NULL) {
            hypervisor.vendor->state(cpu, &state);
            log_line(LOG_ERROR, "dom0 on processor %u: rip %lx rsp %lx rflags %lx cpl %u", cpu->number, state.rip,
                     state.rsp, state.rflags, state.cpl);
            log_line(LOG_ERROR, "cr0 %lx cr2 %lx cr3 %lx cr4 %lx efer %lx", state.cr0, state.cr2, state.cr3, state.cr4,
                     state.efer);
            for (uint32_t i = 0; i < GPR_COUNT; i += 4)
                log_line(LOG_ERROR, "r%u to r%u: %lx %lx %lx %lx", i, i + 3, cpu->gpr[i], cpu->gpr[i + 1],
                         cpu->gpr[i + 2], cpu->gpr[i + 3]);
        }
        log_line(LOG_ERROR, "stopped");
        stop_others();
    }
    halt_for_ever();
}
