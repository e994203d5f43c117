"""Compiled, nogil, no I/O, no allocation: a packet is walked, diagnosed, decided and mended here."""
