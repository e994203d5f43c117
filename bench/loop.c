/* The practical limit of NFQUEUE: what a program has to do that verifies every VXLAN packet and lets it pass, and no more.
 *
 *     loop [--queue N] [--gso] [--repair]
 *
 * 64 packets with one recvmmsg, their checksums summed, one batch verdict for all of them. With --gso the kernel hands over
 * merged packets whole (NFQA_CFG_F_GSO). With --repair an unfinished inner checksum is finished, the outer one after it, and
 * the packet is given back changed; a batch's verdicts, changed packets included, leave with one send.
 *
 * It reads only what the benchmark sends: VXLAN on UDP 4789 over IPv4 without options, inner IPv4, TCP or UDP. It knows no
 * fragments, no policy, no log, no counters by cause, no orderly stop. Whatever else comes in passes unverified. On SIGTERM
 * or SIGINT it prints what it has counted as one JSON object.
 *
 * cc -O3 -o loop loop.c
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
    BATCH = 64,
    SLOT = 66048,         /* the largest copy and what the kernel puts around it */
    COPY_RANGE = 65531,
    HELD = 4096,          /* packets the kernel holds at most: as many as for everybody measured here */
    MESSAGES = 2 * BATCH, /* at most: every packet changed, and a batch verdict before each */
    IP = 20, UDP = 8, VXLAN = 8, ETHERNET = 14,
    PORT = 4789,
};

/* A verdict as it goes to the kernel; the payload's header only if there is one. */
struct verdict {
    struct nlmsghdr netlink;
    struct nfgenmsg family;
    struct nlattr header;
    struct nfqnl_msg_verdict_hdr verdict;
    struct nlattr payload;
};
#define BARE offsetof(struct verdict, payload)

static int nfnetlink;
static uint16_t queue;
static bool repairing;
static size_t send_limit; /* bytes: a send above the socket's buffer is refused whole */

static struct { unsigned long received, verified, repaired, wrong, unread, sends, failed; } counted;
static volatile sig_atomic_t stopping;

static uint8_t slots[BATCH][SLOT];
static struct verdict verdicts[MESSAGES];
static struct iovec vectors[3 * MESSAGES];
static int messages, pieces;
static size_t gathered;
static struct verdict *open_batch; /* the last message, while it is a batch verdict that may take in the next packet */

/* --- checksums (RFC 1071): sums in machine order, folded to 16 bits ------------------------------------------------- */

static uint64_t sum(const uint8_t *data, size_t length)
{
    uint64_t total = 0;
    for (; length >= 4; data += 4, length -= 4) {
        uint32_t word;
        memcpy(&word, data, 4);
        total += word;
    }
    if (length) {
        uint32_t rest = 0;
        memcpy(&rest, data, length);
        total += rest;
    }
    return total;
}

static uint16_t fold(uint64_t total)
{
    while (total >> 16)
        total = (total >> 16) + (total & 0xffff);
    return total;
}

static uint64_t pseudo_header(const uint8_t *ip, uint16_t length)
{
    return sum(ip + 12, 8) + htons(ip[9]) + htons(length);
}

static uint16_t big_endian(const uint8_t *at)
{
    return at[0] << 8 | at[1];
}

/* --- one packet ----------------------------------------------------------------------------------------------------- */

enum outcome { PASS, CHANGED };

static enum outcome judge(uint8_t *packet, size_t length)
{
    uint8_t *outer = packet + IP, *inner = outer + UDP + VXLAN + ETHERNET;
    if (length < IP + UDP + VXLAN + ETHERNET + IP + UDP || packet[0] != 0x45 || packet[9] != IPPROTO_UDP
        || big_endian(outer + 2) != PORT || big_endian(inner - 2) != 0x0800 || inner[0] != 0x45) {
        counted.unread++;
        return PASS;
    }
    uint8_t *segment = inner + IP;
    size_t field = inner[9] == IPPROTO_TCP ? 16 : 6;
    uint16_t outer_length = big_endian(outer + 4), inner_length = big_endian(inner + 2) - IP;
    if (outer + outer_length > packet + length || segment + inner_length > packet + length || inner_length < field + 2
        || (inner[9] != IPPROTO_TCP && inner[9] != IPPROTO_UDP)) {
        counted.unread++;
        return PASS;
    }
    bool outer_absent = !outer[6] && !outer[7];
    bool outer_right = outer_absent || fold(pseudo_header(packet, outer_length) + sum(outer, outer_length)) == 0xffff;
    uint64_t pseudo = pseudo_header(inner, inner_length);
    if (outer_right && fold(pseudo + sum(segment, inner_length)) == 0xffff) {
        counted.verified++;
        return PASS;
    }
    uint16_t found, right;
    memcpy(&found, segment + field, 2);
    if (!repairing || found != fold(pseudo)) {
        counted.wrong++;
        return PASS;
    }
    memset(segment + field, 0, 2);
    right = ~fold(pseudo + sum(segment, inner_length));
    memcpy(segment + field, &right, 2);
    if (!outer_absent) {
        memset(outer + 6, 0, 2);
        right = ~fold(pseudo_header(packet, outer_length) + sum(outer, outer_length));
        memcpy(outer + 6, &right, 2);
    }
    counted.repaired++;
    return CHANGED;
}

/* --- verdicts -------------------------------------------------------------------------------------------------------- */

static void flush(void)
{
    struct msghdr all = { .msg_iov = vectors, .msg_iovlen = pieces };
    if (messages) {
        counted.sends++;
        if (sendmsg(nfnetlink, &all, 0) < 0)
            counted.failed += messages;
    }
    messages = pieces = gathered = 0;
    open_batch = NULL;
}

static void add(void *base, size_t length)
{
    vectors[pieces++] = (struct iovec){ base, length };
    gathered += length;
}

static void accept_packet(uint32_t id, int kind, uint8_t *payload, size_t length)
{
    static uint8_t zeros[4];
    if (kind == NFQNL_MSG_VERDICT_BATCH && open_batch) {
        open_batch->verdict.id = id;
        return;
    }
    size_t size = length ? sizeof(struct verdict) + length : BARE;
    if (messages == MESSAGES || (messages && gathered + size > send_limit))
        flush();
    struct verdict *one = &verdicts[messages++];
    *one = (struct verdict){
        .netlink = { .nlmsg_len = size, .nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | kind, .nlmsg_flags = NLM_F_REQUEST },
        .family = { .nfgen_family = AF_UNSPEC, .res_id = htons(queue) },
        .header = { NLA_HDRLEN + sizeof one->verdict, NFQA_VERDICT_HDR },
        .verdict = { htonl(NF_ACCEPT), id },
        .payload = { NLA_HDRLEN + length, NFQA_PAYLOAD },
    };
    add(one, length ? sizeof *one : BARE);
    if (length) {
        add(payload, length);
        if (NLA_ALIGN(length) != length)
            add(zeros, NLA_ALIGN(length) - length);
    }
    open_batch = kind == NFQNL_MSG_VERDICT_BATCH ? one : NULL;
}

static void take(uint8_t *message, size_t length)
{
    struct nlmsghdr *head = (void *)message;
    if (length < NLMSG_HDRLEN || head->nlmsg_type != (NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET))
        return;
    uint8_t *payload = NULL;
    size_t captured = 0;
    uint32_t id = 0, info = 0;
    for (size_t at = NLMSG_LENGTH(sizeof(struct nfgenmsg)); at + NLA_HDRLEN <= length;) {
        struct nlattr *attribute = (void *)(message + at);
        uint8_t *value = message + at + NLA_HDRLEN;
        if (attribute->nla_len < NLA_HDRLEN || at + attribute->nla_len > length)
            break;
        switch (attribute->nla_type & NLA_TYPE_MASK) {
        case NFQA_PACKET_HDR:
            memcpy(&id, value, 4);
            break;
        case NFQA_SKB_INFO:
            memcpy(&info, value, 4);
            info = ntohl(info);
            break;
        case NFQA_PAYLOAD:
            payload = value;
            captured = attribute->nla_len - NLA_HDRLEN;
        }
        at += NLA_ALIGN(attribute->nla_len);
    }
    counted.received++;
    /* What the kernel has merged, or will finish itself, has no checksum to verify. */
    if (!(info & (NFQA_SKB_GSO | NFQA_SKB_CSUMNOTREADY)) && judge(payload, captured) == CHANGED)
        accept_packet(id, NFQNL_MSG_VERDICT, payload, captured);
    else
        accept_packet(id, NFQNL_MSG_VERDICT_BATCH, NULL, 0);
}

/* --- the socket ------------------------------------------------------------------------------------------------------ */

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* One CONFIG says it all: bind, copy whole packets, hold HELD of them, let pass what does not fit, merged packets or not. */
static void bind_queue(bool gso)
{
    const uint32_t flags = NFQA_CFG_F_FAIL_OPEN | NFQA_CFG_F_GSO;
    struct {
        struct nlmsghdr netlink;
        struct nfgenmsg family;
        struct nlattr command_header;
        struct nfqnl_msg_config_cmd command;
        struct nlattr copy_header;
        struct nfqnl_msg_config_params copy;
        uint8_t padding[3];
        struct nlattr held_header;
        uint32_t held;
        struct nlattr mask_header;
        uint32_t mask;
        struct nlattr flags_header;
        uint32_t flags;
    } __attribute__((packed)) message = {
        .netlink = { sizeof message, NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_CONFIG, NLM_F_REQUEST | NLM_F_ACK },
        .family = { AF_UNSPEC, NFNETLINK_V0, htons(queue) },
        .command_header = { NLA_HDRLEN + sizeof message.command, NFQA_CFG_CMD },
        .command = { .command = NFQNL_CFG_CMD_BIND },
        .copy_header = { NLA_HDRLEN + sizeof message.copy, NFQA_CFG_PARAMS },
        .copy = { htonl(COPY_RANGE), NFQNL_COPY_PACKET },
        .held_header = { NLA_HDRLEN + 4, NFQA_CFG_QUEUE_MAXLEN },
        .held = htonl(HELD),
        .mask_header = { NLA_HDRLEN + 4, NFQA_CFG_MASK },
        .mask = htonl(flags),
        .flags_header = { NLA_HDRLEN + 4, NFQA_CFG_FLAGS },
        .flags = htonl(gso ? flags : flags & ~NFQA_CFG_F_GSO),
    };
    struct { struct nlmsghdr netlink; struct nlmsgerr error; uint8_t rest[256]; } answer;
    int one = 1, in = 32 << 20, out = 1 << 20;
    socklen_t size = sizeof out;
    nfnetlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    if (nfnetlink < 0)
        die("loop: nfnetlink");
    setsockopt(nfnetlink, SOL_SOCKET, SO_RCVBUFFORCE, &in, sizeof in);
    setsockopt(nfnetlink, SOL_SOCKET, SO_SNDBUFFORCE, &out, sizeof out);
    setsockopt(nfnetlink, SOL_NETLINK, NETLINK_NO_ENOBUFS, &one, sizeof one);
    getsockopt(nfnetlink, SOL_SOCKET, SO_SNDBUF, &out, &size);
    send_limit = out / 4;
    if (send(nfnetlink, &message, sizeof message, 0) < 0 || recv(nfnetlink, &answer, sizeof answer, 0) < 0)
        die("loop: the queue's configuration");
    errno = -answer.error.error;
    if (answer.netlink.nlmsg_type != NLMSG_ERROR || errno)
        die("loop: the kernel refuses the queue");
}

static void stop(int signal)
{
    (void)signal;
    stopping = true;
}

int main(int count, char **words)
{
    static const struct option known[] = {
        { "queue", required_argument, NULL, 'q' },
        { "gso", no_argument, NULL, 'g' },
        { "repair", no_argument, NULL, 'r' },
        { 0 },
    };
    static struct mmsghdr arrivals[BATCH];
    static struct iovec places[BATCH];
    bool gso = false;
    for (int option; (option = getopt_long(count, words, "", known, NULL)) != -1;)
        switch (option) {
        case 'q': queue = atoi(optarg); break;
        case 'g': gso = true; break;
        case 'r': repairing = true; break;
        default: fprintf(stderr, "usage: loop [--queue N] [--gso] [--repair]\n"); return 2;
        }
    sigaction(SIGTERM, &(struct sigaction){ .sa_handler = stop }, NULL); /* no SA_RESTART: recvmmsg must come back */
    sigaction(SIGINT, &(struct sigaction){ .sa_handler = stop }, NULL);
    for (int i = 0; i < BATCH; i++) {
        places[i] = (struct iovec){ slots[i], SLOT };
        arrivals[i].msg_hdr = (struct msghdr){ .msg_iov = &places[i], .msg_iovlen = 1 };
    }
    bind_queue(gso);
    while (!stopping) {
        int got = recvmmsg(nfnetlink, arrivals, BATCH, MSG_WAITFORONE, NULL);
        for (int i = 0; i < got; i++)
            take(slots[i], arrivals[i].msg_len);
        flush();
    }
    printf("{\"received\": %lu, \"verified\": %lu, \"repaired\": %lu, \"wrong\": %lu, \"unread\": %lu, \"sends\": %lu,"
           " \"failed\": %lu}\n",
           counted.received, counted.verified, counted.repaired, counted.wrong, counted.unread, counted.sends,
           counted.failed);
    return 0;
}
