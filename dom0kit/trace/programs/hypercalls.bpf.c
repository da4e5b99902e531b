/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Calls through our module (its ioctl's number names the call), and multicalls of a PV kernel to Xen. */
BPF_PERCPU_ARRAY(asked, u64, 2);

int on_call(struct pt_regs *ctx)
{
    int zero = 0, one = 1;
    u64 command = PT_REGS_PARM2(ctx) & 0xff, now = bpf_ktime_get_ns();

    asked.update(&zero, &command);
    asked.update(&one, &now);
    return 0;
}

int on_answer(struct pt_regs *ctx)
{
    int zero = 0, one = 1;
    u64 *command = asked.lookup(&zero), *began = asked.lookup(&one);

    if (command && began && *began) {
        tell(KIND_CALL, *command, bpf_ktime_get_ns() - *began, PT_REGS_RC(ctx));
        *began = 0;
    }
    return 0;
}

#ifdef XEN
TRACEPOINT_PROBE(xen, xen_mc_entry)
{
    tell(KIND_MULTICALL, args->op, args->nargs, 0);
    return 0;
}
#endif
