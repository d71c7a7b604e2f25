/* Preloaded between a program and the system's file calls: for calls below one folder it counts, kills the process,
 * refuses, shortens or records them. Everything else passes untouched. Armed by a process on itself; see shim.py.
 *
 * An fsync of an armed process never reaches the disk: a killed process does not need it, and what a power cut would
 * leave is worked out from the record (disk.py). */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* The numbers are shim.py's as well. */
enum { OPEN, LOOK, READ, WRITE, SYNC, RENAME, MKDIR, UNLINK, RMDIR, TRUNCATE, CLOSE, MARK };
enum { PASS, KILL, KILL_HALFWAY, REFUSE, SHORTEN };

#define MAX_FD 4096
#define REAL(name, ...) ((__typeof__(&name))real(#name))(__VA_ARGS__)

static char root[PATH_MAX];
static size_t root_length;
static int armed, trace_fd = -1;
static unsigned counted; /* bit per operation: which calls are points */
static int action, error_number;
static int64_t at, times, points;
static unsigned char operation_of[1 << 16]; /* of each point */
static unsigned char ours[MAX_FD];
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

void faults_arm(const char *folder, int record_to, unsigned mask, int what, int error, int64_t first, int64_t count) {
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
    memset(ours, 0, sizeof ours);
    trace_fd = record_to, counted = mask, action = what, error_number = error, at = first, times = count;
    points = 0;
    armed = 1;
}

void faults_disarm(void) { armed = 0; }

int64_t faults_points(void) { return points; }

int faults_operation(int64_t point) { return operation_of[point]; }

static int is_ours(int fd) { return armed && fd >= 0 && fd < MAX_FD && ours[fd]; }

/* The path with its folder in front; 0 if it is not below the root. */
static int below(int folder, const char *path, char *full) {
    if (!armed || !path) return 0;
    if (path[0] == '/') {
        snprintf(full, PATH_MAX, "%s", path);
    } else {
        char link[64], base[PATH_MAX];
        if (folder == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t n = readlink(link, base, sizeof base - 1);
        if (n < 0) return 0;
        base[n] = 0;
        if (snprintf(full, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) return 0;
    }
    return !strncmp(full, root, root_length) && (full[root_length] == '/' || !full[root_length]);
}

static void put(const void *data, size_t n) {
    const char *from = data;
    while (n) {
        ssize_t done = syscall(SYS_write, trace_fd, from, n);
        if (done <= 0) abort();
        from += done, n -= (size_t)done;
    }
}

/* One record: operation, descriptor, number (offset, size or flags), then a text and data by their lengths. */
static void record(int operation, int fd, int64_t number, const char *text, const void *data, size_t n) {
    if (!armed || trace_fd < 0) return;
    int64_t head[5] = {operation, fd, number, (int64_t)strlen(text), (int64_t)n};
    int kept = errno;
    put(head, sizeof head);
    put(text, strlen(text));
    put(data, n);
    errno = kept;
}

void faults_mark(const char *text) {
    pthread_mutex_lock(&guard);
    record(MARK, 0, 0, text, "", 0);
    pthread_mutex_unlock(&guard);
}

static void die(void) {
    syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    for (;;) pause();
}

/* Count the call and say what becomes of it; a refused one has its errno set. */
static int decide(int operation) {
    if (!(counted >> operation & 1)) return PASS;
    int64_t number = points++;
    if (number >= (int64_t)sizeof operation_of) abort();
    operation_of[number] = (unsigned char)operation;
    if (number < at || number - at >= times) return PASS;
    if (action == KILL) die();
    if (action == REFUSE) errno = error_number;
    if ((action == SHORTEN || action == KILL_HALFWAY) && operation != WRITE) return PASS;
    return action;
}

static int64_t position(int fd) {
    struct stat status;
    if ((fcntl(fd, F_GETFL) & O_APPEND) && !fstat(fd, &status)) return status.st_size;
    return lseek(fd, 0, SEEK_CUR);
}

static ssize_t put_at(int fd, const void *data, size_t n, int64_t offset, int moves) {
    pthread_mutex_lock(&guard);
    int what = decide(WRITE);
    ssize_t done = -1;
    if (what != REFUSE) {
        int64_t where = moves ? position(fd) : offset;
        size_t part = what != PASS && n > 1 ? n / 2 : n;
        done = moves ? REAL(write, fd, data, part) : REAL(pwrite, fd, data, part, offset);
        if (what == KILL_HALFWAY) die();
        if (done > 0) record(WRITE, fd, where, "", data, (size_t)done);
    }
    pthread_mutex_unlock(&guard);
    return done;
}

ssize_t write(int fd, const void *data, size_t n) {
    return is_ours(fd) ? put_at(fd, data, n, 0, 1) : REAL(write, fd, data, n);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t offset) {
    return is_ours(fd) ? put_at(fd, data, n, offset, 0) : REAL(pwrite, fd, data, n, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off_t offset) { return pwrite(fd, data, n, offset); }

ssize_t writev(int fd, const struct iovec *parts, int n_parts) {
    if (!is_ours(fd)) return REAL(writev, fd, parts, n_parts);
    size_t n = 0, filled = 0;
    for (int i = 0; i < n_parts; i++) n += parts[i].iov_len;
    char *whole = malloc(n ? n : 1);
    if (!whole) abort();
    for (int i = 0; i < n_parts; filled += parts[i++].iov_len) memcpy(whole + filled, parts[i].iov_base, parts[i].iov_len);
    ssize_t done = put_at(fd, whole, n, 0, 1);
    int kept = errno;
    free(whole);
    errno = kept;
    return done;
}

/* Programs that copy inside the kernel are sent back to plain writes, which every such program knows. */
ssize_t sendfile(int to, int from, off_t *offset, size_t n) {
    if (is_ours(to)) return errno = EINVAL, -1;
    return ((ssize_t (*)(int, int, off_t *, size_t))real("sendfile"))(to, from, offset, n);
}

ssize_t copy_file_range(int from, off_t *a, int to, off_t *b, size_t n, unsigned flags) {
    if (is_ours(to)) return errno = EINVAL, -1;
    return REAL(copy_file_range, from, a, to, b, n, flags);
}

#define READER(name, signature, ...)                     \
    ssize_t name signature {                             \
        if (is_ours(fd)) {                               \
            pthread_mutex_lock(&guard);                  \
            int what = decide(READ);                     \
            pthread_mutex_unlock(&guard);                \
            if (what == REFUSE) return -1;               \
        }                                                \
        return REAL(name, __VA_ARGS__);                  \
    }
READER(read, (int fd, void *data, size_t n), fd, data, n)
READER(pread, (int fd, void *data, size_t n, off_t offset), fd, data, n, offset)
READER(pread64, (int fd, void *data, size_t n, off_t offset), fd, data, n, offset)

static int open_at(int folder, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    if (!below(folder, path, full)) return REAL(openat, folder, path, flags, mode);
    int writes = (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC);
    pthread_mutex_lock(&guard);
    int fd = -1;
    if (decide(writes ? OPEN : LOOK) != REFUSE) {
        fd = REAL(openat, folder, path, flags, mode);
        if (fd >= MAX_FD) abort();
        if (fd >= 0) {
            ours[fd] = 1;
            record(OPEN, fd, flags & (O_CREAT | O_TRUNC), full + root_length, "", 0);
        }
    }
    pthread_mutex_unlock(&guard);
    return fd;
}

#define OPENER(name, folder, signature)                  \
    int name signature {                                 \
        mode_t mode = 0;                                 \
        if (flags & (O_CREAT | __O_TMPFILE)) {           \
            va_list rest;                                \
            va_start(rest, flags);                       \
            mode = va_arg(rest, mode_t);                 \
            va_end(rest);                                \
        }                                                \
        return open_at(folder, path, flags, mode);       \
    }
OPENER(open, AT_FDCWD, (const char *path, int flags, ...))
OPENER(open64, AT_FDCWD, (const char *path, int flags, ...))
OPENER(openat, folder, (int folder, const char *path, int flags, ...))
OPENER(openat64, folder, (int folder, const char *path, int flags, ...))

int close(int fd) {
    if (!is_ours(fd)) return REAL(close, fd);
    pthread_mutex_lock(&guard);
    ours[fd] = 0;
    record(CLOSE, fd, 0, "", "", 0);
    int done = REAL(close, fd);
    pthread_mutex_unlock(&guard);
    return done;
}

static int sync_fd(int fd) {
    struct stat status;
    pthread_mutex_lock(&guard);
    int done = decide(SYNC) == REFUSE ? -1 : fstat(fd, &status);
    if (!done) record(SYNC, fd, 0, "", "", 0);
    pthread_mutex_unlock(&guard);
    return done;
}

int fsync(int fd) { return is_ours(fd) ? sync_fd(fd) : REAL(fsync, fd); }
int fdatasync(int fd) { return is_ours(fd) ? sync_fd(fd) : REAL(fdatasync, fd); }

static int truncate_fd(int fd, off_t size) {
    if (!is_ours(fd)) return REAL(ftruncate, fd, size);
    pthread_mutex_lock(&guard);
    int done = decide(TRUNCATE) == REFUSE ? -1 : REAL(ftruncate, fd, size);
    if (!done) record(TRUNCATE, fd, size, "", "", 0);
    pthread_mutex_unlock(&guard);
    return done;
}

int ftruncate(int fd, off_t size) { return truncate_fd(fd, size); }
int ftruncate64(int fd, off_t size) { return truncate_fd(fd, size); }

/* Calls that change names: (operation, folder's descriptor, path, the call). */
#define NAMED(operation, folder, path, call)                                       \
    do {                                                                           \
        char full[PATH_MAX];                                                       \
        if (!below(folder, path, full)) return call;                               \
        pthread_mutex_lock(&guard);                                                \
        int done = decide(operation) == REFUSE ? -1 : call;                        \
        if (!done) record(operation, 0, 0, full + root_length, "", 0);             \
        pthread_mutex_unlock(&guard);                                              \
        return done;                                                               \
    } while (0)

int mkdir(const char *path, mode_t mode) { NAMED(MKDIR, AT_FDCWD, path, REAL(mkdir, path, mode)); }
int mkdirat(int folder, const char *path, mode_t mode) { NAMED(MKDIR, folder, path, REAL(mkdirat, folder, path, mode)); }
int unlink(const char *path) { NAMED(UNLINK, AT_FDCWD, path, REAL(unlink, path)); }
int rmdir(const char *path) { NAMED(RMDIR, AT_FDCWD, path, REAL(rmdir, path)); }
int unlinkat(int folder, const char *path, int flags) {
    NAMED(flags & AT_REMOVEDIR ? RMDIR : UNLINK, folder, path, REAL(unlinkat, folder, path, flags));
}

static int rename_at(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    char old[PATH_MAX], new[PATH_MAX];
    int here = below(from_folder, from, old), there = below(to_folder, to, new);
    if (!here && !there) return REAL(renameat2, from_folder, from, to_folder, to, flags);
    if (!here || !there) abort(); /* a model of the disk would lose the file */
    pthread_mutex_lock(&guard);
    int done = decide(RENAME) == REFUSE ? -1 : REAL(renameat2, from_folder, from, to_folder, to, flags);
    if (!done) record(RENAME, 0, 0, old + root_length, new + root_length, strlen(new) - root_length);
    pthread_mutex_unlock(&guard);
    return done;
}

int rename(const char *from, const char *to) { return rename_at(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int a, const char *from, int b, const char *to) { return rename_at(a, from, b, to, 0); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) { return rename_at(a, from, b, to, flags); }

/* Calls that look: a refused one must not be taken for "nothing there". */
#define LOOKER(type, refused, name, folder, path, signature, ...) \
    type name signature {                                         \
        char full[PATH_MAX];                                      \
        if (below(folder, path, full)) {                          \
            pthread_mutex_lock(&guard);                           \
            int what = decide(LOOK);                              \
            pthread_mutex_unlock(&guard);                         \
            if (what == REFUSE) return refused;                   \
        }                                                         \
        return REAL(name, __VA_ARGS__);                           \
    }
LOOKER(DIR *, NULL, opendir, AT_FDCWD, path, (const char *path), path)
LOOKER(int, -1, stat, AT_FDCWD, path, (const char *path, struct stat *out), path, out)
LOOKER(int, -1, stat64, AT_FDCWD, path, (const char *path, struct stat64 *out), path, out)
LOOKER(int, -1, lstat, AT_FDCWD, path, (const char *path, struct stat *out), path, out)
LOOKER(int, -1, lstat64, AT_FDCWD, path, (const char *path, struct stat64 *out), path, out)
LOOKER(int, -1, fstatat, folder, path, (int folder, const char *path, struct stat *out, int flags), folder, path, out, flags)
LOOKER(int, -1, fstatat64, folder, path, (int folder, const char *path, struct stat64 *out, int flags), folder, path, out, flags)
LOOKER(int, -1, statx, folder, path, (int folder, const char *path, int flags, unsigned mask, struct statx *out), folder, path, flags, mask, out)
