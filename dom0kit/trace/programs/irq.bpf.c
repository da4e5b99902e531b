/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Device interrupts: how often each came on each processor and how long its handlers took, counted in the kernel. */
struct key {
    u32 irq;
    u32 slot; /* binary logarithm of the nanoseconds */
};

struct seat {
    u32 irq;
    u32 cpu;
};

/* A line that drivers share runs the handler of each: an interrupt is counted at the one that was seen first. */
struct handler {
    u64 name; /* its first 16 bytes */
    u64 more;
};

BPF_HASH(first, u32, struct handler, 4096);
BPF_PERCPU_HASH(began, u32, u64, 64);
BPF_HASH(counts, struct seat, u64, 65536);
BPF_HASH(took, struct key, u64, 65536);

TRACEPOINT_PROBE(irq, irq_handler_entry)
{
    u32 irq = args->irq;
    u64 now = bpf_ktime_get_ns();
    struct handler handler = {}, *known;
    struct seat seat = {.irq = irq, .cpu = bpf_get_smp_processor_id()};

    TP_DATA_LOC_READ_STR(&handler, name, sizeof(handler));
    known = first.lookup_or_try_init(&irq, &handler);
    if (known && known->name == handler.name && known->more == handler.more)
        counts.atomic_increment(seat);
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

        took.atomic_increment(key);
#ifdef EACH
        if (WANTED(irq))
            tell(KIND_HANDLED, irq, now - *since, args->ret);
#endif
        began.delete(&irq);
    }
    return 0;
}
