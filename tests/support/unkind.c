/* A kernel's netlink as one would not wish it, for LD_PRELOAD: every few calls on a netlink socket fail with ENOBUFS,
 * EINTR or EAGAIN, several times on end, and between the packets come messages that are short or garbled.
 *
 * What really comes from the kernel is never lost and never changed: a call that fails has not been made.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define EVERY 7     /* calls between two that begin to fail */
#define ON_END 4    /* calls that fail on end */

static const int errors[] = {ENOBUFS, EINTR, EAGAIN};
static __thread unsigned reads, sends;

static char netlink[4096]; /* by descriptor: a confined thread may not ask the kernel for it */

int socket(int domain, int type, int protocol)
{
    static int (*real)(int, int, int);
    int made;
    if (!real)
        real = dlsym(RTLD_NEXT, "socket");
    made = real(domain, type, protocol);
    if (made >= 0 && (unsigned)made < sizeof netlink)
        netlink[made] = domain == AF_NETLINK;
    return made;
}

static int is_netlink(int fd)
{
    return fd >= 0 && (unsigned)fd < sizeof netlink && netlink[fd];
}

static int fails(unsigned *calls)
{
    unsigned number = (*calls)++;
    if (number % (EVERY + ON_END) < EVERY)
        return 0;
    errno = errors[number / (EVERY + ON_END) % 3];
    return 1;
}

int recvmmsg(int fd, struct mmsghdr *messages, unsigned int most, int flags, struct timespec *timeout)
{
    static int (*real)(int, struct mmsghdr *, unsigned int, int, struct timespec *);
    int count;
    if (!real)
        real = dlsym(RTLD_NEXT, "recvmmsg");
    if (is_netlink(fd) && fails(&reads))
        return -1;
    count = real(fd, messages, most, flags, timeout);
    if (count > 0 && (unsigned)count < most && is_netlink(fd)) {
        struct mmsghdr *extra = &messages[count];
        unsigned length = rand() % 64;
        for (unsigned i = 0; i < length; i++)
            ((unsigned char *)extra->msg_hdr.msg_iov->iov_base)[i] = rand();
        extra->msg_len = length;
        extra->msg_hdr.msg_flags = rand() % 2 ? MSG_TRUNC : 0;
        count++;
    }
    return count;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    static ssize_t (*real)(int, const struct msghdr *, int);
    if (!real)
        real = dlsym(RTLD_NEXT, "sendmsg");
    if (is_netlink(fd) && fails(&sends))
        return -1;
    return real(fd, message, flags);
}
