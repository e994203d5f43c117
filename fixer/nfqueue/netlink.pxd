# cython: language_level=3
"""nfnetlink_queue messages (linux/netfilter/nfnetlink_queue.h): layouts, and writing them.

Netlink headers are in machine order, the queue's own numbers in network order. Every message and attribute begins on a
multiple of 4 bytes.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

cdef extern from "<arpa/inet.h>" nogil:
    uint32_t htonl(uint32_t)
    uint16_t htons(uint16_t)
    uint32_t ntohl(uint32_t)


cdef enum:
    NETLINK_HEADER = 16      # struct nlmsghdr; bytes, and in it the offsets
    NLMSG_LENGTH = 0         # of the whole message
    NLMSG_TYPE = 4
    NLMSG_FLAGS = 6
    NLMSG_SEQUENCE = 8

    FAMILY_HEADER = 4        # struct nfgenmsg: family, version, queue number
    NFGENMSG_QUEUE = 2

    HEADERS = NETLINK_HEADER + FAMILY_HEADER

    ATTRIBUTE = 4            # struct nlattr
    NLA_LENGTH = 0           # with its header
    NLA_TYPE = 2
    ATTRIBUTE_TYPE = 0x3fff  # less the nested and byte-order bits

    NLMSG_ERROR = 2
    MAX_ERRNO = 4095         # linux/err.h
    NLM_F_REQUEST = 1
    NLM_F_ACK = 4

    QUEUE_PACKET = 0x0300    # NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_*
    QUEUE_VERDICT = 0x0301
    QUEUE_CONFIG = 0x0302
    QUEUE_VERDICT_BATCH = 0x0303

    NFQA_PACKET_HDR = 1      # id (32 bits), hardware protocol (16), hook (8)
    NFQA_PACKET_HOOK = 6     # offset of the hook in it
    NFQA_VERDICT_HDR = 2     # verdict (32), id (32)
    NFQA_PAYLOAD = 10
    NFQA_CAP_LEN = 13        # the packet's length where it is more than was copied
    NFQA_SKB_INFO = 14

    NFQA_CFG_PARAMS = 2      # copy range (32), copy mode (8)
    NFQA_CFG_QUEUE_MAXLEN = 3
    NFQA_CFG_MASK = 4
    NFQA_CFG_FLAGS = 5
    NFQNL_COPY_PACKET = 2
    NFQA_CFG_F_FAIL_OPEN = 1
    NFQA_CFG_F_GSO = 4       # hand over merged packets whole, and unfinished ones unfinished (since linux 3.10)

    NF_INET_LOCAL_OUT = 3    # the hook of OUTPUT, linux/netfilter.h
    NF_DROP = 0
    NF_ACCEPT = 1

    COPY_RANGE = 65531       # 65535, the most an attribute's 16-bit length can say, less its header

    # A verdict: the headers, NFQA_VERDICT_HDR, and with a payload the header of NFQA_PAYLOAD. Offsets in the message.
    VERDICT_HEADER = HEADERS
    VERDICT_VALUE = VERDICT_HEADER + ATTRIBUTE
    VERDICT_ID = VERDICT_VALUE + 4
    VERDICT_MESSAGE = VERDICT_ID + 4    # all of it without payload
    MESSAGE_HEAD = VERDICT_MESSAGE + ATTRIBUTE


cdef inline uint32_t aligned(uint32_t length) noexcept nogil:
    return (length + 3) & ~3U


cdef inline void put_header(uint8_t *at, uint32_t length, uint16_t type_, uint16_t flags, uint32_t sequence,
                            uint16_t queue) noexcept nogil:
    """nlmsghdr and nfgenmsg: HEADERS bytes. `length` counts the whole message."""
    memset(at, 0, HEADERS)
    memcpy(at + NLMSG_LENGTH, &length, 4)
    memcpy(at + NLMSG_TYPE, &type_, 2)
    memcpy(at + NLMSG_FLAGS, &flags, 2)
    memcpy(at + NLMSG_SEQUENCE, &sequence, 4)
    queue = htons(queue)
    memcpy(at + NETLINK_HEADER + NFGENMSG_QUEUE, &queue, 2)


cdef inline void put_attribute(uint8_t *at, uint16_t type_, uint16_t length) noexcept nogil:
    """An attribute's header; `length` is its value's, in bytes."""
    length += ATTRIBUTE
    memcpy(at + NLA_LENGTH, &length, 2)
    memcpy(at + NLA_TYPE, &type_, 2)


cdef inline void put_number(uint8_t *at, uint32_t value) noexcept nogil:
    """A 32-bit number in network order."""
    value = htonl(value)
    memcpy(at, &value, 4)


cdef inline uint32_t number(const uint8_t *at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return ntohl(value)


cdef inline void put_verdict(uint8_t *at, uint16_t type_, uint16_t queue, uint32_t verdict, uint32_t packet,
                             uint32_t payload) noexcept nogil:
    """VERDICT or VERDICT_BATCH up to MESSAGE_HEAD bytes; with a `payload` (bytes) its attribute's header is the end."""
    put_header(at, VERDICT_MESSAGE + (ATTRIBUTE + payload if payload else 0), type_, NLM_F_REQUEST, 0, queue)
    put_attribute(at + VERDICT_HEADER, NFQA_VERDICT_HDR, VERDICT_MESSAGE - VERDICT_VALUE)
    put_number(at + VERDICT_VALUE, verdict)
    put_number(at + VERDICT_ID, packet)
    if payload:
        put_attribute(at + VERDICT_MESSAGE, NFQA_PAYLOAD, <uint16_t>payload)
