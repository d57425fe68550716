/* Calls to the disk that take their time or fail. Loaded into a process (LD_PRELOAD) by bad_disk.rs, which says what
 * happens in the file TABA_BAD_DISK: "WRITE SYNC DELAY": the errno of writes and of cuts, that of syncs (0: they work),
 * and how many milliseconds each call takes, reads as well.
 * Only calls about files below the directory TABA_BAD_DISK_BELOW are touched. Each that is, adds a byte to the file
 * TABA_BAD_DISK_HITS. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct wrong { int write_error, sync_error, delay_ms; };

/* What is wrong now; 0 when nothing is. */
static int look(struct wrong *wrong) {
    const char *path = getenv("TABA_BAD_DISK");
    char text[64] = "";
    int file = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    long length = syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    return length > 0 && sscanf(text, "%d %d %d", &wrong->write_error, &wrong->sync_error, &wrong->delay_ms) == 3
        && (wrong->write_error || wrong->sync_error || wrong->delay_ms);
}

static int is_below(int fd) {
    const char *below = getenv("TABA_BAD_DISK_BELOW");
    char link[40], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path);
    return below && length >= (long)strlen(below) && memcmp(path, below, strlen(below)) == 0;
}

static void hit(void) {
    const char *path = getenv("TABA_BAD_DISK_HITS");
    int file = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (file < 0) return;
    syscall(SYS_write, file, ".", 1);
    syscall(SYS_close, file);
}

/* Waits as long as this call is to take, or until the disk is told to be well again; the error that it ends with. */
static int suffer(int fd, int is_sync, int is_read) {
    struct wrong wrong = {0, 0, 0};
    if (!look(&wrong) || !is_below(fd)) return 0;
    int error = is_read ? 0 : is_sync ? wrong.sync_error : wrong.write_error;
    if (error || wrong.delay_ms) hit();
    for (int passed = 0; passed < wrong.delay_ms; passed += 10) {
        usleep(10000);
        if (!look(&wrong)) return 0;
    }
    return error;
}

#define SUFFER(fd, is_sync, is_read)                 \
    do {                                             \
        int error = suffer(fd, is_sync, is_read);    \
        if (error) { errno = error; return -1; }     \
    } while (0)

/* Every second write that is to fail first writes half of what it was given, as one that runs out of room does. */
ssize_t write(int fd, const void *bytes, size_t length) {
    static int turn;
    struct wrong wrong = {0, 0, 0};
    if (length > 1 && look(&wrong) && wrong.write_error && is_below(fd) && turn++ % 2 == 0) {
        hit();
        return syscall(SYS_write, fd, bytes, length / 2);
    }
    SUFFER(fd, 0, 0);
    return syscall(SYS_write, fd, bytes, length);
}

ssize_t writev(int fd, const struct iovec *pieces, int count) {
    SUFFER(fd, 0, 0);
    return syscall(SYS_writev, fd, pieces, count);
}

ssize_t read(int fd, void *bytes, size_t length) {
    SUFFER(fd, 0, 1);
    return syscall(SYS_read, fd, bytes, length);
}

ssize_t pread64(int fd, void *bytes, size_t length, off64_t offset) {
    SUFFER(fd, 0, 1);
    return syscall(SYS_pread64, fd, bytes, length, offset);
}

int fsync(int fd) {
    SUFFER(fd, 1, 0);
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    SUFFER(fd, 1, 0);
    return (int)syscall(SYS_fdatasync, fd);
}

int ftruncate64(int fd, off64_t length) {
    SUFFER(fd, 0, 0);
    return (int)syscall(SYS_ftruncate, fd, length);
}
