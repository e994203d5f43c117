"""The kernel's packet queue: netfilterqueue binds it, everything after that is read and answered without the GIL."""
