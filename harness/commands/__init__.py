"""One module per sub-command; `cli` imports each only when it is asked for."""
