// SPDX-License-Identifier: MIT
// Two root bridges on one segment; interrupts of the second IOAPIC and the third.
DefinitionBlock ("", "DSDT", 2, "DOM0KT", "SYNTHTIC", 1)
{
    Method (_PIC, 1) { }

    Scope (\_SB)
    {
        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A08"))
            Name (_CID, EisaId ("PNP0A03"))
            Name (_UID, 0)
            Name (_BBN, 0)
            Name (_CRS, ResourceTemplate ()
            {
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0x00, 0x7F, 0, 0x80)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                    0, 0xF0000000, 0xF0FFFFFF, 0, 0x01000000)
            })
            Name (_PRT, Package ()
            {
                Package () { 0x0001FFFF, 0, 0, 24 },
                Package () { 0x0001FFFF, 1, 0, 25 },
                Package () { 0x0001FFFF, 2, 0, 26 },
                Package () { 0x0001FFFF, 3, 0, 27 },
                Package () { 0x0014FFFF, 0, 0, 16 }
            })
            Device (GPP1)
            {
                Name (_ADR, 0x00010001)
                Name (_PRT, Package ()
                {
                    Package () { 0xFFFF, 0, 0, 28 },
                    Package () { 0xFFFF, 1, 0, 29 },
                    Package () { 0xFFFF, 2, 0, 30 },
                    Package () { 0xFFFF, 3, 0, 31 }
                })
            }
        }

        Device (PCI1)
        {
            Name (_HID, EisaId ("PNP0A08"))
            Name (_CID, EisaId ("PNP0A03"))
            Name (_UID, 1)
            Name (_BBN, 0x80)
            Name (_CRS, ResourceTemplate ()
            {
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0x80, 0xFF, 0, 0x80)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                    0, 0xF1000000, 0xF1FFFFFF, 0, 0x01000000)
            })
            Name (_PRT, Package ()
            {
                Package () { 0x0003FFFF, 0, 0, 56 },
                Package () { 0x0003FFFF, 1, 0, 57 },
                Package () { 0x0003FFFF, 2, 0, 58 },
                Package () { 0x0003FFFF, 3, 0, 59 }
            })
        }

        Device (FUR0)
        {
            Name (_HID, "AMDI0020")
            Name (_UID, "\\_SB.FUR0")
            Name (_CRS, ResourceTemplate () { IRQ (Edge, ActiveHigh, Exclusive) { 3 } })
        }
    }
}
