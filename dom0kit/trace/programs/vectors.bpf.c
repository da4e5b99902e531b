/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* How vectors are handed out, moved and given back (Linux, arch/x86/include/asm/trace/irq_vectors.h). */
TRACEPOINT_PROBE(irq_vectors, vector_alloc)
{
    tell(KIND_ALLOCATED, args->irq, args->vector, args->reserved);
    return 0;
}

TRACEPOINT_PROBE(irq_vectors, vector_activate)
{
    tell(KIND_ACTIVATED, args->irq, args->is_managed, args->can_reserve);
    return 0;
}

TRACEPOINT_PROBE(irq_vectors, vector_deactivate)
{
    tell(KIND_DEACTIVATED, args->irq, args->is_managed, 0);
    return 0;
}

TRACEPOINT_PROBE(irq_vectors, vector_config)
{
    tell(KIND_CONFIGURED, args->irq, args->vector, (u64)args->cpu << 32 | args->apicdest);
    return 0;
}

TRACEPOINT_PROBE(irq_vectors, vector_update)
{
    tell(KIND_MOVED, args->irq, (u64)args->prev_vector << 32 | args->vector, (u64)args->prev_cpu << 32 | args->cpu);
    return 0;
}

TRACEPOINT_PROBE(irq_vectors, vector_clear)
{
    tell(KIND_CLEARED, args->irq, args->vector, args->cpu);
    return 0;
}
