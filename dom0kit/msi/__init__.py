# SPDX-License-Identifier: MIT
"""MSI facts: messages in every address format, MSI capabilities and MSI-X tables."""
