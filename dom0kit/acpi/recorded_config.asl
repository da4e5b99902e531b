// SPDX-License-Identifier: MIT
// Puts recorded config space into the one array that acpiexec has behind all PCI_Config regions.
// recorded_config.aml is this file compiled: iasl -p recorded_config recorded_config.asl
DefinitionBlock ("", "SSDT", 2, "DOM0KT", "CONFIG", 1)
{
    External (\DKCB, BuffObj) // 256 bytes of each function

    OperationRegion (DKCR, PCI_Config, 0, 0x100)
    Field (DKCR, AnyAcc, NoLock, Preserve)
    {
        DKCF, 2048
    }

    // Arg0: index of a function. Arg1: a list of (index, offset, length) to lay over its bytes.
    Method (DKFL, 2, Serialized)
    {
        Local0 = Mid (DKCB, Arg0 << 8, 0x100)
        Local1 = Zero
        While (Local1 < SizeOf (Arg1))
        {
            Local2 = DerefOf (Arg1 [Local1]) << 8
            Local3 = DerefOf (Arg1 [Local1 + 1])
            Local4 = DerefOf (Arg1 [Local1 + 2])
            While (Local4)
            {
                Local0 [Local3] = DerefOf (DKCB [Local2 + Local3])
                Local3++
                Local4--
            }
            Local1 += 3
        }
        DKCF = Local0
    }

    // An empty buffer, because a package here makes ACPICA complain of a missing node.
    DKFL (Zero, Buffer () {})
}
