"""Where policies come from. `base` says what a provider is; each other module holds one."""
