/* glibc 2.17 has no memfd_create, and Debian's static libffi asks for one: the kernel's own, which an old one refuses. */
#include <sys/syscall.h>
#include <unistd.h>

__attribute__((visibility("hidden"))) int memfd_create(const char *name, unsigned flags)
{
    return (int)syscall(SYS_memfd_create, name, flags);
}
