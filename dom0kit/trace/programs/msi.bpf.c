/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* MSI messages as they are written: Linux, include/linux/msi.h, whose struct msi_desc begins with the number. */
struct message {
    u32 address_low;
    u32 address_high;
    u32 data;
};

int on_message(struct pt_regs *ctx)
{
    struct message message = {};
    u32 irq = 0;

    bpf_probe_read_kernel(&irq, sizeof(irq), (void *)PT_REGS_PARM1(ctx));
    bpf_probe_read_kernel(&message, sizeof(message), (void *)PT_REGS_PARM2(ctx));
    tell(KIND_MESSAGE, irq, (u64)message.address_high << 32 | message.address_low, message.data);
    return 0;
}
