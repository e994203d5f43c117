# cython: language_level=3
"""Memory that is taken once, before the first packet."""

from libc.stdlib cimport calloc


cdef inline void *zeroed(size_t count, size_t size, str what) except NULL:
    """`count` times `size` bytes of zero, to be freed by whoever asks; MemoryError names `what` they were for."""
    cdef void *found = calloc(count, size)
    if found == NULL:
        raise MemoryError(f"no memory for {what}")
    return found
