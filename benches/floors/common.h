/* What the floor programs share: listening, and the size of a message. No framework on purpose. */
#pragma once
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    IDENTITY = 19,  /* a caller's first message: its UUID */
    FRAME = 320,    /* 20 ms at 8 kHz */
    MESSAGE = 323,  /* a frame with its header */
    DESCRIPTORS = 20000,
};

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void allow_descriptors(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit)) die("getrlimit");
    if (limit.rlim_max > DESCRIPTORS) limit.rlim_max = DESCRIPTORS;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit)) die("setrlimit");
}

/* Accepted connections inherit TCP_NODELAY. */
static int listen_on(const char *port) {
    allow_descriptors();
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)atoi(port)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    if (fd < 0) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address)) die("bind");
    if (listen(fd, 4096)) die("listen");
    return fd;
}

/* How many of the `count` bytes that came are still of the identity, of which `left` bytes are missing. */
static inline size_t skip(uint8_t *left, size_t count) {
    size_t skipped = *left < count ? *left : count;
    *left -= (uint8_t)skipped;
    return skipped;
}
