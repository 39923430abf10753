"""The strategies: one file each, with its settings, its state machine and its async face."""
