/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Accesses to PCI config space: Linux, arch/x86/pci/direct.c and mmconfig_64.c, (segment, bus, devfn, register, length,
 * value). For a write the sixth argument is the value; what a read gave is not known yet.
 */
static inline void access(struct pt_regs *ctx, u32 kind)
{
    u64 function = PT_REGS_PARM1(ctx) << 16 | (PT_REGS_PARM2(ctx) & 0xff) << 8 | (PT_REGS_PARM3(ctx) & 0xff);

    tell(kind, function, PT_REGS_PARM4(ctx) << 8 | (PT_REGS_PARM5(ctx) & 0xff), PT_REGS_PARM6(ctx));
}

int on_read(struct pt_regs *ctx)
{
    access(ctx, KIND_READ);
    return 0;
}

int on_write(struct pt_regs *ctx)
{
    access(ctx, KIND_WRITE);
    return 0;
}
