/* The floor for echoes with io_uring: one ring, multishot accept and receive into provided buffers, direct
 * descriptors, and a tick of 2 ms: what came in during a tick is answered with one submit.
 *
 *     uring_echo PORT
 */
#include "common.h"
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum {
    TICK = 2000000,
    ENTRIES = 8192,
    COMPLETIONS = 32768,
    BUFFERS = 8192, /* a power of two */
    BUFFER = 1024,
    GROUP = 0,
};
enum { ACCEPT, RECEIVE, SEND, CLOSE };

static int ring;
static unsigned *sq_head, *sq_tail, *sq_mask, *cq_head, *cq_tail, *cq_mask;
static struct io_uring_sqe *sqes;
static struct io_uring_cqe *cqes;
static unsigned queued; /* submissions that the kernel has not seen */
static struct io_uring_buf_ring *offered;
static char (*buffers)[BUFFER];
static uint8_t identity_left[DESCRIPTORS];

/* Submits what is queued and waits for `timeout`. Asked for more completions than there can be, the kernel takes
 * everything that comes meanwhile; otherwise it would leave all but twenty for the next time. */
static void enter(struct timespec timeout) {
    struct __kernel_timespec time = {timeout.tv_sec, timeout.tv_nsec};
    struct io_uring_getevents_arg arg = {.ts = (uint64_t)(uintptr_t)&time};
    unsigned flags = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG;
    while (syscall(SYS_io_uring_enter, ring, queued, COMPLETIONS, flags, &arg, sizeof arg) < 0) {
        if (errno == ETIME) break;
        if (errno != EINTR && errno != EAGAIN && errno != EBUSY) die("io_uring_enter");
    }
    queued = 0;
}

/* `detail` is what the completion must know: the buffer of a send. */
static struct io_uring_sqe *submission(int operation, int slot, unsigned detail) {
    if (queued == ENTRIES) enter((struct timespec){0});
    unsigned tail = *sq_tail;
    struct io_uring_sqe *sqe = &sqes[tail & *sq_mask];
    memset(sqe, 0, sizeof *sqe);
    sqe->user_data = (uint64_t)detail << 32 | (uint64_t)operation << 24 | (uint64_t)slot;
    __atomic_store_n(sq_tail, tail + 1, __ATOMIC_RELEASE);
    queued++;
    return sqe;
}

static void arm_accept(int listener) {
    struct io_uring_sqe *sqe = submission(ACCEPT, 0, 0);
    sqe->opcode = IORING_OP_ACCEPT;
    sqe->fd = listener;
    sqe->ioprio = IORING_ACCEPT_MULTISHOT;
    sqe->file_index = IORING_FILE_INDEX_ALLOC;
}

static void arm_receive(int slot) {
    struct io_uring_sqe *sqe = submission(RECEIVE, slot, 0);
    sqe->opcode = IORING_OP_RECV;
    sqe->fd = slot;
    sqe->flags = IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
    sqe->ioprio = IORING_RECV_MULTISHOT;
    sqe->buf_group = GROUP;
}

/* Never waits, so that two sends on one socket can't overtake each other. */
static void send_back(int slot, unsigned buffer, size_t from, size_t count) {
    struct io_uring_sqe *sqe = submission(SEND, slot, buffer);
    sqe->opcode = IORING_OP_SEND;
    sqe->fd = slot;
    sqe->flags = IOSQE_FIXED_FILE;
    sqe->addr = (uint64_t)(uintptr_t)(buffers[buffer] + from);
    sqe->len = (uint32_t)count;
    sqe->msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL | MSG_WAITALL;
}

static void close_slot(int slot) {
    struct io_uring_sqe *sqe = submission(CLOSE, slot, 0);
    sqe->opcode = IORING_OP_CLOSE;
    sqe->file_index = (uint32_t)slot + 1;
}

static void offer(unsigned buffer) {
    uint16_t tail = offered->tail;
    struct io_uring_buf *entry = &offered->bufs[tail & (BUFFERS - 1)];
    entry->addr = (uint64_t)(uintptr_t)buffers[buffer];
    entry->len = BUFFER;
    entry->bid = (uint16_t)buffer;
    __atomic_store_n(&offered->tail, (uint16_t)(tail + 1), __ATOMIC_RELEASE);
}

static void received(int slot, int result, unsigned flags) {
    if (result > 0) {
        unsigned buffer = flags >> IORING_CQE_BUFFER_SHIFT;
        size_t skipped = skip(&identity_left[slot], (size_t)result);
        if (skipped < (size_t)result) send_back(slot, buffer, skipped, (size_t)result - skipped);
        else offer(buffer);
    }
    if (flags & IORING_CQE_F_MORE) return;
    /* Buffers may have run out; anything else is the end, and nothing is armed any more that would hold it. */
    if (result > 0 || result == -ENOBUFS) arm_receive(slot);
    else close_slot(slot);
}

static void complete(int listener) {
    unsigned head = *cq_head;
    while (head != __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE)) {
        struct io_uring_cqe cqe = cqes[head & *cq_mask];
        __atomic_store_n(cq_head, ++head, __ATOMIC_RELEASE);
        int slot = (int)(cqe.user_data & 0xffffff);
        switch (cqe.user_data >> 24 & 0xff) {
        case ACCEPT:
            if (cqe.res >= 0) {
                identity_left[cqe.res] = IDENTITY;
                arm_receive(cqe.res);
            }
            if (!(cqe.flags & IORING_CQE_F_MORE)) arm_accept(listener);
            break;
        case RECEIVE:
            received(slot, cqe.res, cqe.flags);
            break;
        case SEND:
            offer((unsigned)(cqe.user_data >> 32));
            break;
        }
    }
}

static void *map(size_t size, off_t offset) {
    int flags = MAP_SHARED | MAP_POPULATE;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, ring, offset);
    if (memory == MAP_FAILED) die("mmap");
    return memory;
}

static void set_up(void) {
    struct io_uring_params params = {
        .flags = IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_CQSIZE,
        .cq_entries = COMPLETIONS,
    };
    ring = (int)syscall(SYS_io_uring_setup, ENTRIES, &params);
    if (ring < 0) die("io_uring_setup");
    size_t size = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
    size_t array_end = params.sq_off.array + params.sq_entries * sizeof(unsigned);
    char *memory = map(size > array_end ? size : array_end, IORING_OFF_SQ_RING);
    /* Submissions are never out of order, so the kernel's indirection is set once. */
    for (unsigned i = 0; i < params.sq_entries; i++)
        ((unsigned *)(memory + params.sq_off.array))[i] = i;
    sqes = map(ENTRIES * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
    sq_head = (unsigned *)(memory + params.sq_off.head);
    sq_tail = (unsigned *)(memory + params.sq_off.tail);
    sq_mask = (unsigned *)(memory + params.sq_off.ring_mask);
    cq_head = (unsigned *)(memory + params.cq_off.head);
    cq_tail = (unsigned *)(memory + params.cq_off.tail);
    cq_mask = (unsigned *)(memory + params.cq_off.ring_mask);
    cqes = (struct io_uring_cqe *)(memory + params.cq_off.cqes);

    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    struct io_uring_rsrc_register files = {
        .nr = (uint32_t)limit.rlim_cur,
        .flags = IORING_RSRC_REGISTER_SPARSE,
    };
    if (syscall(SYS_io_uring_register, ring, IORING_REGISTER_FILES2, &files, sizeof files) < 0)
        die("register files");

    size = BUFFERS * sizeof(struct io_uring_buf);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    offered = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
    buffers = mmap(NULL, (size_t)BUFFERS * BUFFER, PROT_READ | PROT_WRITE, flags, -1, 0);
    struct io_uring_buf_reg group = {
        .ring_addr = (uint64_t)(uintptr_t)offered,
        .ring_entries = BUFFERS,
        .bgid = GROUP,
    };
    if (syscall(SYS_io_uring_register, ring, IORING_REGISTER_PBUF_RING, &group, 1) < 0)
        die("register buffers");
    for (unsigned buffer = 0; buffer < BUFFERS; buffer++) offer(buffer);
}

static struct timespec until(struct timespec due) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t rest = (due.tv_sec - now.tv_sec) * 1000000000 + due.tv_nsec - now.tv_nsec;
    return (struct timespec){.tv_nsec = rest > 0 ? rest : 0};
}

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: uring_echo PORT\n"), 2;
    int listener = listen_on(argv[1]);
    prctl(PR_SET_TIMERSLACK, 1);
    set_up();
    arm_accept(listener);
    struct timespec due;
    clock_gettime(CLOCK_MONOTONIC, &due);
    for (;;) {
        due.tv_nsec += TICK;
        if (due.tv_nsec >= 1000000000) due.tv_nsec -= 1000000000, due.tv_sec++;
        enter(until(due));
        complete(listener);
    }
}
