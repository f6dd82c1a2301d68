/* The floor for echoes: epoll, one read and one write for each message, nothing else.
 *
 *     epoll_echo PORT
 */
#include "common.h"
#include <sys/epoll.h>

static uint8_t identity_left[DESCRIPTORS];

static void accept_one(int epoll, int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    identity_left[fd] = IDENTITY;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
}

static void echo(int fd) {
    static char bytes[64 * 1024];
    ssize_t count = read(fd, bytes, sizeof bytes);
    if (count < 0 && errno == EAGAIN) return;
    if (count > 0) {
        size_t skipped = skip(&identity_left[fd], (size_t)count);
        ssize_t rest = count - (ssize_t)skipped;
        if (rest == 0 || send(fd, bytes + skipped, (size_t)rest, MSG_NOSIGNAL) == rest) return;
    }
    close(fd);
}

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: epoll_echo PORT\n"), 2;
    int listener = listen_on(argv[1]);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event events[1024], own = {.events = EPOLLIN, .data.fd = listener};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &own)) die("epoll");
    for (;;) {
        int count = epoll_wait(epoll, events, 1024, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) accept_one(epoll, listener);
            else echo(fd);
        }
    }
}
