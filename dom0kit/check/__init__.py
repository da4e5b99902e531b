# SPDX-License-Identifier: MIT
"""What is wrong with a machine beyond what its decoders see: tables held against each other and against the hardware.

A rule is one small pure function of a machine, declared with what a person must know of it (`rules.check`)::

    from dom0kit.check.rules import findings

    findings(platform)    # the platform's own and those of every rule here, the most severe first

Its test case lies in ``tests/check/``: one machine where it fires and one where it does not.
"""
