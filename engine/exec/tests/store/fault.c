/* Preloaded into a child of the tests: while the file named by RUNBACK_FAULT exists, calls on a journal's WAL fail as
 * that file says: "<write|sync> <errno>". */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int fails(int fd, const char *kind) {
    const char *control = getenv("RUNBACK_FAULT");
    char link[64], path[4096], wanted[16];
    int code = 0;
    FILE *file;
    ssize_t length;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (!control || length < 15 || memcmp(path + length - 15, "/journal.db-wal", 15) != 0) return 0;
    file = fopen(control, "re");
    if (!file) return 0;
    if (fscanf(file, "%15s %d", wanted, &code) != 2 || strcmp(wanted, kind) != 0) code = 0;
    fclose(file);
    if (code) errno = code;
    return code;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    ssize_t (*real)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pwrite64");
    return fails(fd, "write") ? -1 : real(fd, data, size, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite");
    return fails(fd, "write") ? -1 : real(fd, data, size, at);
}

int fsync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    return fails(fd, "sync") ? -1 : real(fd);
}

int fdatasync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    return fails(fd, "sync") ? -1 : real(fd);
}
