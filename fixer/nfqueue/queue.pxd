# cython: language_level=3
"""One NFQUEUE: its buffers, and what is read from it and gathered for it."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fixer.datapath.pipeline cimport Handed, Pipeline

cdef extern from "<sys/socket.h>" nogil:
    enum: MSG_DONTWAIT, MSG_TRUNC
    struct iovec:
        void *iov_base
        size_t iov_len
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
        int msg_flags
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    int recvmmsg(int, mmsghdr *, unsigned int, int, void *)
    ssize_t sendmsg(int, const msghdr *, int)


cdef struct QueueCounters:
    uint64_t received
    uint64_t sends           # system calls that carried verdicts
    uint64_t batch_verdicts
    uint64_t changed         # packets given back with a new payload
    uint64_t dropped
    uint64_t truncated       # copies shorter than their packet: passed as they were
    uint64_t overruns        # ENOBUFS from the socket, where NETLINK_NO_ENOBUFS is not to be had
    uint64_t refused         # verdicts the kernel answered with an error
    uint64_t unsent          # verdicts that could not be sent: their packets pass a little later, as they were
    uint64_t unreadable      # messages that are not nfnetlink_queue's


cdef class Queue:
    cdef Pipeline pipeline
    cdef object owner        # netfilterqueue.NetfilterQueue, or None for an adopted descriptor
    cdef int fd
    cdef int waker           # an eventfd, polled beside the queue: `stop` writes to it
    cdef uint16_t number
    cdef bint stopping
    cdef object successor    # what the pipeline is to adopt, and the event that says it has; or None
    cdef bint adopting       # there is one
    cdef readonly uint64_t turns  # of the loop that `run` is; it turns once a second or oftener
    cdef uint32_t send_limit  # bytes in one send: below the send buffer, or EMSGSIZE would lose all its verdicts
    cdef uint32_t sequence   # of the last CONFIG
    cdef uint32_t answered   # sequence of the last acknowledgement
    cdef int answer          # its errno, 0 for success
    cdef bint owing          # a verdict could not be sent, and its packet waits
    cdef uint32_t owed       # its id, or the last one's of several
    cdef bint running        # the last gathered message is a batch verdict that may take in the next packet
    cdef QueueCounters counted
    cdef uint8_t *slots
    cdef mmsghdr *arrivals
    cdef iovec *slot_vectors
    cdef uint8_t *heads      # of the messages being gathered
    cdef iovec *vectors
    cdef uint32_t *ends      # index behind each gathered message's last vector
    cdef uint32_t messages, vector_count, gathered
    cdef readonly dict flags  # what the kernel granted: {"fail_open": True, …}
    cdef void serve(self) noexcept nogil
    cdef void wait(self, int milliseconds) noexcept nogil
    cdef int step(self) noexcept nogil
    cdef void take(self, uint8_t *message, uint32_t length, bint cut, Handed *handed) noexcept nogil
    cdef void take_packet(self, uint8_t *message, uint32_t length, bint cut, Handed *handed) noexcept nogil
    cdef void accept(self, uint32_t packet) noexcept nogil
    cdef void give(self, uint32_t packet, uint32_t verdict, uint8_t *payload, uint32_t length) noexcept nogil
    cdef void reserve(self, uint32_t length) noexcept nogil
    cdef void add(self, void *base, uint32_t length) noexcept nogil
    cdef void close_message(self) noexcept nogil
    cdef void flush(self) noexcept nogil
    cdef bint send(self, uint32_t start, uint32_t end) noexcept nogil
