"""Who goes next: the policy contract, the program life cycle, the ledger, one file per policy."""
