/* Faults at the n-th change of a file, for tests on Linux: loaded before the C library (LD_PRELOAD), it counts the calls that
 * make, write, flush or rename files under a folder, and lets the n-th one fail or end the program.
 *
 *   U2SEG_FAULT_UNDER=/absolute/folder
 *   U2SEG_FAULT=full:N   from call N on the disk is full: nothing is made, written or flushed
 *               once:N   call N alone fails
 *               kill:N, term:N, int:N   SIGKILL, SIGTERM or SIGINT before call N
 *               count:FILE   nothing happens; the number of calls goes into FILE at the end
 *
 * cc -shared -fPIC -o faults.so faults.c -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { SPACE, NAME };

static atomic_long calls;

static int under(const char *path) {
    const char *folder = getenv("U2SEG_FAULT_UNDER");
    return folder && *folder && !strncmp(path, folder, strlen(folder));
}

static int under_at(int at, const char *path) {
    char full[4096];
    if (path[0] == '/') return under(path);
    if (at == AT_FDCWD) {
        if (!getcwd(full, sizeof full)) return 0;
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t length = readlink(link, full, sizeof full - 1);
        if (length < 0) return 0;
        full[length] = 0;
    }
    strncat(full, "/", sizeof full - strlen(full) - 1);
    strncat(full, path, sizeof full - strlen(full) - 1);
    return under(full);
}

static int under_file(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return under(path);
}

/* Whether this call is to fail. A full disk still takes other names. */
static int fails(enum kind kind) {
    const char *fault = getenv("U2SEG_FAULT");
    long call = atomic_fetch_add(&calls, 1) + 1;
    const char *number = fault ? strchr(fault, ':') : NULL;
    if (!number || !strncmp(fault, "count", 5)) return 0;
    long at = atol(number + 1);
    if (!strncmp(fault, "full", 4)) return kind == SPACE && call >= at;
    if (call != at) return 0;
    if (!strncmp(fault, "once", 4)) return 1;
    int stop = !strncmp(fault, "kill", 4) ? SIGKILL : !strncmp(fault, "term", 4) ? SIGTERM : SIGINT;
    kill(getpid(), stop);
    return 0;
}

static int refuse(void) {
    errno = ENOSPC;
    return -1;
}

__attribute__((destructor)) static void tell(void) {
    const char *fault = getenv("U2SEG_FAULT");
    if (!fault || strncmp(fault, "count:", 6)) return;
    FILE *file = fopen(fault + 6, "w");
    if (!file) return;
    fprintf(file, "%ld\n", atomic_load(&calls));
    fclose(file);
}

#define REAL(result, name, ...) ((result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

ssize_t write(int file, const void *bytes, size_t count) {
    if (file > 2 && under_file(file) && fails(SPACE)) return refuse();
    return REAL(ssize_t, write, int, const void *, size_t)(file, bytes, count);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    if (file > 2 && under_file(file) && fails(SPACE)) return refuse();
    return REAL(ssize_t, writev, int, const struct iovec *, int)(file, parts, count);
}

int fsync(int file) {
    if (under_file(file) && fails(SPACE)) return refuse();
    return REAL(int, fsync, int)(file);
}

int fdatasync(int file) {
    if (under_file(file) && fails(SPACE)) return refuse();
    return REAL(int, fdatasync, int)(file);
}

int rename(const char *from, const char *to) {
    if (under_at(AT_FDCWD, to) && fails(NAME)) return refuse();
    return REAL(int, rename, const char *, const char *)(from, to);
}

int mkdir(const char *path, mode_t mode) {
    if (under_at(AT_FDCWD, path) && fails(SPACE)) return refuse();
    return REAL(int, mkdir, const char *, mode_t)(path, mode);
}

#define OPEN(name)                                                                     \
    int name(const char *path, int flags, ...) {                                       \
        mode_t mode = 0;                                                               \
        if (flags & (O_CREAT | O_TMPFILE)) {                                           \
            va_list rest;                                                              \
            va_start(rest, flags);                                                     \
            mode = va_arg(rest, mode_t);                                               \
            va_end(rest);                                                              \
        }                                                                              \
        if ((flags & O_CREAT) && under_at(AT_FDCWD, path) && fails(SPACE)) return refuse(); \
        return REAL(int, name, const char *, int, ...)(path, flags, mode);             \
    }

OPEN(open)
OPEN(open64)
