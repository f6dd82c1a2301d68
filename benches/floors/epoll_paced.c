/* The floor for echoes that keep a grid of their own: as epoll_echo, but what came is answered 10 ms later, on a tick of
 * 2 ms. A socket that is written to long after it was read from has left the processor's cache; what that costs is in
 * this floor, and in no echo that answers at once.
 *
 *     epoll_paced PORT
 */
#include "common.h"
#include <sys/epoll.h>
#include <sys/prctl.h>

enum {
    TICK = 2000000,
    LATER = 5, /* ticks */
    HELD = 4 * MESSAGE,
};

struct answer {
    int fd;
    size_t length;
    char bytes[HELD];
};

static uint8_t identity_left[DESCRIPTORS];
/* What is to be sent at each of the next ticks. */
static struct {
    struct answer *answers;
    size_t count, room;
} due[LATER + 1];
static unsigned long tick;

static void accept_all(int epoll, int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        identity_left[fd] = IDENTITY;
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
    }
}

static struct answer *new_answer(void) {
    unsigned long place = (tick + LATER) % (LATER + 1);
    if (due[place].count == due[place].room) {
        due[place].room = due[place].room ? 2 * due[place].room : 64;
        due[place].answers = realloc(due[place].answers, due[place].room * sizeof(struct answer));
        if (!due[place].answers) die("realloc");
    }
    return &due[place].answers[due[place].count++];
}

static void take(int fd) {
    static char bytes[HELD];
    ssize_t count = read(fd, bytes, sizeof bytes);
    if (count < 0 && errno == EAGAIN) return;
    if (count <= 0) {
        /* An answer that is still due finds it closed: no call begins here within 10 ms of another's end. */
        close(fd);
        return;
    }
    size_t skipped = skip(&identity_left[fd], (size_t)count);
    size_t rest = (size_t)count - skipped;
    if (rest == 0) return;
    struct answer *answer = new_answer();
    answer->fd = fd;
    answer->length = rest;
    memcpy(answer->bytes, bytes + skipped, rest);
}

static void answer_due(void) {
    unsigned long place = tick % (LATER + 1);
    for (size_t i = 0; i < due[place].count; i++) {
        struct answer *answer = &due[place].answers[i];
        send(answer->fd, answer->bytes, answer->length, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    due[place].count = 0;
}

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: epoll_paced PORT\n"), 2;
    int listener = listen_on(argv[1]);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event events[1024], own = {.events = EPOLLIN, .data.fd = listener};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &own)) die("epoll");
    prctl(PR_SET_TIMERSLACK, 1);
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (;;) {
        next.tv_nsec += TICK;
        if (next.tv_nsec >= 1000000000) next.tv_nsec -= 1000000000, next.tv_sec++;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
        tick++;
        int count = epoll_wait(epoll, events, 1024, 0);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) accept_all(epoll, listener);
            else take(fd);
        }
        answer_due();
    }
}
