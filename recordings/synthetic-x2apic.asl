// SPDX-License-Identifier: MIT
// Two segments, link devices beside GSIs, an IOAPIC that no MADT tells of, processors and memory with proximity.
DefinitionBlock ("", "DSDT", 2, "DOM0KT", "SYNTHTIC", 1)
{
    Name (PICM, 0)
    Method (_PIC, 1) { PICM = Arg0 }

    Scope (\_SB)
    {
        Device (PC00)
        {
            Name (_HID, EisaId ("PNP0A08"))
            Name (_CID, EisaId ("PNP0A03"))
            Name (_UID, 0)
            Name (_SEG, 0)
            Name (_BBN, 0)
            Name (_PXM, 0)
            Name (_CRS, ResourceTemplate ()
            {
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0x00, 0x7F, 0, 0x80)
                IO (Decode16, 0x0CF8, 0x0CF8, 1, 8)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0x0000, 0x0CF7, 0, 0x0CF8)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                    0, 0x90000000, 0xBFFFFFFF, 0, 0x30000000)
            })
            // In PIC mode by link devices, in APIC mode by GSIs: what \_PIC chooses.
            Method (_PRT)
            {
                If (PICM)
                {
                    Return (Package ()
                    {
                        Package () { 0x001CFFFF, 0, 0, 16 },
                        Package () { 0x001CFFFF, 1, 0, 17 },
                        Package () { 0x001CFFFF, 2, 0, 18 },
                        Package () { 0x001CFFFF, 3, 0, 19 },
                        Package () { 0x001FFFFF, 0, \_SB.LNKH, 0 }
                    })
                }
                Return (Package ()
                {
                    Package () { 0x001CFFFF, 0, \_SB.LNKA, 0 },
                    Package () { 0x001CFFFF, 1, \_SB.LNKB, 0 }
                })
            }

            Device (RP01)
            {
                Name (_ADR, 0x001C0000)
                Name (_SUN, 1)
                Method (_PRT)
                {
                    Return (Package ()
                    {
                        Package () { 0x0000FFFF, 0, 0, 16 },
                        Package () { 0x0000FFFF, 1, 0, 17 },
                        Package () { 0x0000FFFF, 2, 0, 18 },
                        Package () { 0x0000FFFF, 3, 0, 19 }
                    })
                }
                Device (SLOT)
                {
                    Name (_ADR, 0)
                    Name (_RMV, 1)
                    Method (_EJ0, 1) { }
                }
            }

            Device (LPCB) { Name (_ADR, 0x001F0000) }
        }

        Device (PC80)
        {
            Name (_HID, EisaId ("PNP0A08"))
            Name (_CID, EisaId ("PNP0A03"))
            Name (_UID, 0x80)
            Name (_SEG, 1)
            Name (_BBN, 0x80)
            Name (_PXM, 1)
            Name (_CRS, ResourceTemplate ()
            {
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0x80, 0xFF, 0, 0x80)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                    0, 0xC0000000, 0xDFFFFFFF, 0, 0x20000000)
            })
            // No port below has a _PRT of its own: pins are swizzled through four bridges up to here.
            Name (_PRT, Package ()
            {
                Package () { 0x0002FFFF, 0, 0, 24 },
                Package () { 0x0002FFFF, 1, 0, 25 },
                Package () { 0x0002FFFF, 2, 0, 26 },
                Package () { 0x0002FFFF, 3, 0, 48 }
            })
        }

        Device (LNKA)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 1)
            Name (_PRS, ResourceTemplate () { IRQ (Level, ActiveLow, Shared) { 10, 11 } })
            Name (_CRS, ResourceTemplate () { IRQ (Level, ActiveLow, Shared) { 10 } })
            Method (_SRS, 1) { }
        }
        Device (LNKB)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 2)
            Name (_PRS, ResourceTemplate () { IRQ (Level, ActiveLow, Shared) { 11 } })
            Name (_CRS, ResourceTemplate () { IRQ (Level, ActiveLow, Shared) { 11 } })
            Method (_SRS, 1) { }
        }
        Device (LNKH)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 8)
            Name (_PRS, ResourceTemplate () { Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 23 } })
            Name (_CRS, ResourceTemplate () { Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 23 } })
            Method (_SRS, 1) { }
        }

        // Hot-added with its socket: known from the namespace alone.
        Device (IOA2)
        {
            Name (_HID, "ACPI0009")
            Name (_UID, 10)
            Name (_GSB, 48)
            Name (_CRS, ResourceTemplate () { Memory32Fixed (ReadWrite, 0xFEC40000, 0x1000) })
        }

        Device (MEM1)
        {
            Name (_HID, EisaId ("PNP0C80"))
            Name (_UID, 1)
            Name (_PXM, 1)
            Name (_STA, 0)
            Name (_CRS, ResourceTemplate ()
            {
                QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite,
                    0, 0x2000000000, 0x2FFFFFFFFF, 0, 0x1000000000)
            })
            Method (_EJ0, 1) { }
        }

        Device (C1FF)
        {
            Name (_HID, "ACPI0007")
            Name (_UID, 0x1FF)
            Name (_PXM, 1)
            // A MADT entry of type 9: x2APIC id 0x1ff, enabled
            Name (_MAT, Buffer () { 0x09, 0x10, 0, 0, 0xFF, 0x01, 0, 0, 0x01, 0, 0, 0, 0xFF, 0x01, 0, 0 })
        }
    }
}
