# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True

cdef class Witness:
    """Is called by the packet path, in its thread, without the GIL: waits for nobody, asks for no memory."""

    cdef bint wants(self, const uint8_t *packet, const Walk *route) noexcept nogil:
        """Whether it is to be told of a packet that is sound. Asked while `asks` is not 0."""
        return False

    cdef void came(self, const uint8_t *packet, const Walk *route, const Event *event) noexcept nogil:
        """A packet that is not sound, or is wanted: as it came."""

    cdef void left(self, const uint8_t *packet, uint32_t captured, Action action) noexcept nogil:
        """The same packet, as it leaves."""

    cdef void turn(self, uint64_t when) noexcept nogil:
        """About once a second, and at the end; `when`: nanoseconds since the epoch."""
