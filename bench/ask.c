/* One question and its answer over UDP, again and again, with as little of a program as there can be around them.
 *
 *     ask serve PORT                            answers with the same bytes, until it is ended
 *     ask ADDRESS PORT SECONDS MICROSECONDS     asks so many microseconds after each answer; then prints one JSON object:
 *                                               "ns", what each question waited for its answer, and "unanswered"
 *
 * cc -O3 -o ask ask.c
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 64, PATIENCE = 1 /* seconds */ };

static int64_t now(void)
{
    struct timespec clock;
    clock_gettime(CLOCK_MONOTONIC, &clock);
    return clock.tv_sec * 1000000000LL + clock.tv_nsec;
}

static int serve(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(port)}, other;
    char data[SIZE];
    if (bind(fd, (struct sockaddr *)&own, sizeof own))
        return perror("ask: bind"), 1;
    puts("ready");
    fflush(stdout);
    for (;;) {
        socklen_t length = sizeof other;
        ssize_t size = recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)&other, &length);
        if (size > 0)
            sendto(fd, data, size, 0, (struct sockaddr *)&other, length);
    }
}

static int ask(const char *address, uint16_t port, double seconds, unsigned pause)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in other = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct timeval patience = {PATIENCE, 0};
    uint64_t question[SIZE / 8] = {0}, answer[SIZE / 8];
    unsigned long unanswered = 0;
    const char *comma = "";
    if (inet_pton(AF_INET, address, &other.sin_addr) != 1 || connect(fd, (struct sockaddr *)&other, sizeof other))
        return perror("ask: connect"), 1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    printf("{\"ns\": [");
    for (int64_t end = now() + (int64_t)(seconds * 1e9); now() < end; usleep(pause)) {
        int64_t began = now();
        ssize_t size;
        question[0]++;
        send(fd, question, sizeof question, 0);
        do
            size = recv(fd, answer, sizeof answer, 0);
        while (size > 0 && answer[0] != question[0]); /* one that came late */
        if (size <= 0) {
            unanswered++;
            continue;
        }
        printf("%s%lld", comma, (long long)(now() - began));
        comma = ", ";
    }
    printf("], \"unanswered\": %lu}\n", unanswered);
    return 0;
}

int main(int count, char **words)
{
    if (count == 3 && strcmp(words[1], "serve") == 0)
        return serve((uint16_t)atoi(words[2]));
    if (count == 5)
        return ask(words[1], (uint16_t)atoi(words[2]), atof(words[3]), (unsigned)atoi(words[4]));
    fputs("ask serve PORT | ask ADDRESS PORT SECONDS MICROSECONDS\n", stderr);
    return 2;
}
