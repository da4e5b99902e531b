/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* What every program tells: one event of fixed size through a ring buffer, and how many found no room in it. */
#include <uapi/linux/ptrace.h>

struct event {
    u64 time; /* 0: nanoseconds of the monotonic clock */
    u64 a;    /* 8: the meaning of a, b and c is the kind's */
    u64 b;    /* 16 */
    u64 c;    /* 24 */
    u32 cpu;  /* 32 */
    u32 kind; /* 36 */
};

BPF_RINGBUF_OUTPUT(events, 64);
BPF_ARRAY(lost, u64, 1);

static inline void tell(u32 kind, u64 a, u64 b, u64 c)
{
    struct event *event = events.ringbuf_reserve(sizeof(*event));
    int zero = 0;

    if (!event) {
        lost.atomic_increment(zero);
        return;
    }
    event->time = bpf_ktime_get_ns();
    event->a = a;
    event->b = b;
    event->c = c;
    event->cpu = bpf_get_smp_processor_id();
    event->kind = kind;
    events.ringbuf_submit(event, 0);
}
