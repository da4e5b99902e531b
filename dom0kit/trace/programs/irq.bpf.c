/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Device interrupts: how often each came on each processor and how long its handlers took, counted in the kernel. */
struct key {
    u32 irq;
    u32 slot; /* binary logarithm of the nanoseconds */
};

/* A line that drivers share runs the handler of each: an interrupt is counted at the one that was seen first. */
struct name {
    char text[16];
};

BPF_HASH(first, u32, struct name, 4096);
BPF_PERCPU_HASH(began, u32, u64, 64);
BPF_PERCPU_HASH(counts, u32, u64, 4096);
BPF_PERCPU_HASH(took, struct key, u64, 65536);

TRACEPOINT_PROBE(irq, irq_handler_entry)
{
    u32 irq = args->irq;
    u64 now = bpf_ktime_get_ns();
    struct name name = {}, *known;

    TP_DATA_LOC_READ_STR(&name.text, name, sizeof(name.text));
    known = first.lookup_or_try_init(&irq, &name);
    if (known && !__builtin_memcmp(known->text, name.text, 8) && !__builtin_memcmp(known->text + 8, name.text + 8, 8))
        counts.increment(irq);
    began.update(&irq, &now);
    return 0;
}

TRACEPOINT_PROBE(irq, irq_handler_exit)
{
    u32 irq = args->irq;
    u64 *since = began.lookup(&irq);

    if (since) {
        u64 now = bpf_ktime_get_ns();
        struct key key = {.irq = irq, .slot = bpf_log2l(now - *since)};

        took.increment(key);
#ifdef EACH
        if (WANTED(irq))
            tell(KIND_HANDLED, irq, now - *since, args->ret);
#endif
        began.delete(&irq);
    }
    return 0;
}
