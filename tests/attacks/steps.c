/* Every step that changes a file under one folder, counted; at one of them the process dies, or the disk says no.
 *
 * Preloaded before the C library. `steps_arm(root, step, mode)` begins to count: what Python, ctypes and shutil do all
 * comes by here. Modes: 0 count only; 1 die before the step; 2 die after half of a write (before any other step);
 * otherwise an errno: ENOSPC fails what takes room from that step on, EROFS all from that step on, EIO the step alone.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static char root[PATH_MAX];
static atomic_long count;
static long chosen = -1;
static int mode;

void steps_arm(const char *where, long step, int what) {
  snprintf(root, sizeof root, "%s", where);
  count = 0;
  chosen = step;
  mode = what;
}

long steps_count(void) { return count; }

static int inside(const char *path) { return root[0] && strncmp(path, root, strlen(root)) == 0; }

static int inside_descriptor(int descriptor, const char *rest) {
  char link[64], path[PATH_MAX];
  if (rest && rest[0] == '/') return inside(rest);
  if (descriptor == AT_FDCWD) {
    if (!getcwd(path, sizeof path)) return 0;
    return inside(path);
  }
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t size = readlink(link, path, sizeof path - 1);
  if (size < 0) return 0;
  path[size] = 0;
  return inside(path);
}

/* 0: go on; -1: fail with errno; 1: die after half of it. */
static int step(int takes_room) {
  long now = atomic_fetch_add(&count, 1);
  if (chosen < 0 || mode == 0) return 0;
  if (mode <= 2) {
    if (now != chosen) return 0;
    if (mode == 2) return 1;
    kill(getpid(), SIGKILL);
  }
  int fails = mode == EIO ? now == chosen : now >= chosen && (mode != ENOSPC || takes_room);
  if (!fails) return 0;
  errno = mode;
  return -1;
}

#define REAL(name, result, ...) \
  static result (*real)(__VA_ARGS__); \
  if (!real) real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

#define PLAIN(takes_room)                       \
  do {                                          \
    int what = step(takes_room);                \
    if (what < 0) return -1;                    \
    if (what > 0) kill(getpid(), SIGKILL);      \
  } while (0)

ssize_t write(int descriptor, const void *data, size_t size) {
  REAL(write, ssize_t, int, const void *, size_t);
  if (inside_descriptor(descriptor, NULL)) {
    int what = step(1);
    if (what < 0) return -1;
    if (what > 0) {
      real(descriptor, data, size / 2);
      kill(getpid(), SIGKILL);
    }
  }
  return real(descriptor, data, size);
}

static ssize_t sent(int out, int in, off_t *offset, size_t size, ssize_t (*real)(int, int, off_t *, size_t)) {
  if (inside_descriptor(out, NULL)) {
    int what = step(1);
    if (what < 0) return -1;
    if (what > 0) {
      struct stat about;
      fstat(in, &about);
      real(out, in, offset, about.st_size / 2);
      kill(getpid(), SIGKILL);
    }
  }
  return real(out, in, offset, size);
}
ssize_t sendfile(int out, int in, off_t *offset, size_t size) {
  REAL(sendfile, ssize_t, int, int, off_t *, size_t);
  return sent(out, in, offset, size, real);
}
ssize_t sendfile64(int out, int in, off_t *offset, size_t size) {
  REAL(sendfile64, ssize_t, int, int, off_t *, size_t);
  return sent(out, in, offset, size, real);
}

#define OPENING (O_CREAT | O_TRUNC)
#define OPEN(name)                                                                 \
  int name(const char *path, int flags, ...) {                                     \
    va_list rest;                                                                  \
    va_start(rest, flags);                                                         \
    mode_t access = va_arg(rest, mode_t);                                          \
    va_end(rest);                                                                  \
    REAL(name, int, const char *, int, ...);                                       \
    if ((flags & OPENING) && inside_descriptor(AT_FDCWD, path)) PLAIN(1);          \
    return real(path, flags, access);                                              \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                               \
  int name(int folder, const char *path, int flags, ...) {                         \
    va_list rest;                                                                  \
    va_start(rest, flags);                                                         \
    mode_t access = va_arg(rest, mode_t);                                          \
    va_end(rest);                                                                  \
    REAL(name, int, int, const char *, int, ...);                                  \
    if ((flags & OPENING) && inside_descriptor(folder, path)) PLAIN(1);            \
    return real(folder, path, flags, access);                                      \
  }
OPENAT(openat)
OPENAT(openat64)

#define DESCRIPTOR(name, takes_room)                                               \
  int name(int descriptor) {                                                       \
    REAL(name, int, int);                                                          \
    if (inside_descriptor(descriptor, NULL)) PLAIN(takes_room);                    \
    return real(descriptor);                                                       \
  }
DESCRIPTOR(fsync, 0)
DESCRIPTOR(fdatasync, 0)

#define TRUNCATE(name)                                                             \
  int name(int descriptor, off_t size) {                                           \
    REAL(name, int, int, off_t);                                                   \
    if (inside_descriptor(descriptor, NULL)) PLAIN(0);                             \
    return real(descriptor, size);                                                 \
  }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define PATH(name)                                                                 \
  int name(const char *path) {                                                     \
    REAL(name, int, const char *);                                                 \
    if (inside_descriptor(AT_FDCWD, path)) PLAIN(0);                               \
    return real(path);                                                             \
  }
PATH(unlink)
PATH(rmdir)

int unlinkat(int folder, const char *path, int flags) {
  REAL(unlinkat, int, int, const char *, int);
  if (inside_descriptor(folder, path)) PLAIN(0);
  return real(folder, path, flags);
}

int mkdir(const char *path, mode_t access) {
  REAL(mkdir, int, const char *, mode_t);
  if (inside_descriptor(AT_FDCWD, path)) PLAIN(1);
  return real(path, access);
}

int chmod(const char *path, mode_t access) {
  REAL(chmod, int, const char *, mode_t);
  if (inside_descriptor(AT_FDCWD, path)) PLAIN(0);
  return real(path, access);
}

int link(const char *from, const char *to) {
  REAL(link, int, const char *, const char *);
  if (inside_descriptor(AT_FDCWD, to)) PLAIN(1);
  return real(from, to);
}

int rename(const char *from, const char *to) {
  REAL(rename, int, const char *, const char *);
  if (inside_descriptor(AT_FDCWD, to)) PLAIN(0);
  return real(from, to);
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
  REAL(renameat2, int, int, const char *, int, const char *, unsigned);
  if (inside_descriptor(to_folder, to)) PLAIN(0);
  return real(from_folder, from, to_folder, to, flags);
}
