/* The floor for playing: a wheel of 20 slots, one a millisecond; each call gets the clip's next frame when its slot
 * comes round. New calls go to the slots in turn.
 *
 *     playout_wheel PORT CLIP        CLIP: headerless 16-bit samples at 8 kHz
 */
#include "common.h"
#include <sys/epoll.h>
#include <sys/stat.h>

enum { SLOTS = 20, TICK = 1000000 };

struct call {
    int fd;
    uint32_t frame;
};

static struct slot {
    struct call *calls;
    int count, room;
} wheel[SLOTS];
static char (*clip)[MESSAGE];
static uint32_t clip_frames;
/* Slot of each descriptor, so that a call that ends is found. */
static uint8_t slot_of[DESCRIPTORS];

static void read_clip(const char *path) {
    struct stat stat;
    FILE *file = fopen(path, "rb");
    if (!file || fstat(fileno(file), &stat)) die(path);
    clip_frames = (uint32_t)(stat.st_size / FRAME);
    clip = malloc((size_t)clip_frames * MESSAGE);
    for (uint32_t i = 0; i < clip_frames; i++) {
        memcpy(clip[i], "\x10\x01\x40", 3);
        if (fread(clip[i] + 3, FRAME, 1, file) != 1) die(path);
    }
    fclose(file);
    if (clip_frames == 0) exit(2);
}

static void accept_one(int epoll, int listener) {
    static int next;
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
    struct slot *slot = &wheel[next];
    slot_of[fd] = (uint8_t)next;
    next = (next + 1) % SLOTS;
    if (slot->count == slot->room) {
        slot->room = slot->room ? slot->room * 2 : 16;
        slot->calls = realloc(slot->calls, (size_t)slot->room * sizeof *slot->calls);
    }
    slot->calls[slot->count++] = (struct call){.fd = fd};
}

static void end(int fd) {
    struct slot *slot = &wheel[slot_of[fd]];
    for (int i = 0; i < slot->count; i++)
        if (slot->calls[i].fd == fd) slot->calls[i] = slot->calls[--slot->count];
    close(fd);
}

static void play(struct slot *slot) {
    for (int i = 0; i < slot->count; i++) {
        struct call *call = &slot->calls[i];
        if (send(call->fd, clip[call->frame], MESSAGE, MSG_NOSIGNAL) != MESSAGE) continue;
        if (++call->frame == clip_frames) call->frame = 0;
    }
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000L + time.tv_nsec;
}

int main(int argc, char **argv) {
    static char scratch[64 * 1024];
    if (argc != 3) return fprintf(stderr, "usage: playout_wheel PORT CLIP\n"), 2;
    read_clip(argv[2]);
    int listener = listen_on(argv[1]);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event events[1024], own = {.events = EPOLLIN, .data.fd = listener};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &own)) die("epoll");
    int64_t due = now() + TICK;
    for (uint32_t tick = 0;;) {
        int64_t wait = due - now();
        struct timespec timeout = {.tv_nsec = wait > 0 ? wait : 0};
        int count = epoll_pwait2(epoll, events, 1024, &timeout, NULL);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                accept_one(epoll, listener);
                continue;
            }
            ssize_t got = read(fd, scratch, sizeof scratch);
            if (got == 0 || (got < 0 && errno != EAGAIN)) end(fd);
        }
        for (; due <= now(); due += TICK) play(&wheel[tick++ % SLOTS]);
    }
}
