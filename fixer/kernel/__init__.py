"""What runs in the kernel at the daemon's word: a tc program that finishes packets of diagnosed VTEPs."""
