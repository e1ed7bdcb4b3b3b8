/* Lets the clock of the programs that are started with it jump (LD_PRELOAD), and no other: by how many seconds it is wrong stands
 * in the file that CLOCK_IS_WRONG_BY names, as an int64, and may change at any time. The monotonic clock stays as it is.
 *
 * What is waited for until a time of the wrong clock is waited for until the right one: the kernel's clock did not jump.
 * libfaketime 0.9.10 would do, but that Python's time.sleep then fails with EINVAL. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SINCE_1970 1000000000 /* No monotonic clock runs for thirty years. */

static volatile const int64_t *wrong_by;

__attribute__((constructor)) static void find_file(void)
{
    const char *path = getenv("CLOCK_IS_WRONG_BY");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *found = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (file >= 0)
        close(file);
    if (found != MAP_FAILED)
        wrong_by = found;
}

static int64_t offset(void) { return wrong_by ? *wrong_by : 0; }

int clock_gettime(clockid_t id, struct timespec *at)
{
    int failed = syscall(SYS_clock_gettime, id, at);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        at->tv_sec += offset();
    return failed;
}

time_t time(time_t *at)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

static struct timespec righted(const struct timespec *until)
{
    struct timespec right = *until;
    if (until->tv_sec > SINCE_1970)
        right.tv_sec -= offset();
    return right;
}

int pthread_cond_timedwait(pthread_cond_t *restrict c, pthread_mutex_t *restrict m, const struct timespec *restrict until)
{
    static int (*next)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (!next) /* Of two that glibc has on x86-64 the one that is not from 2002. */
        next = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!next)
        next = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    struct timespec right = righted(until);
    return next(c, m, &right);
}

int sem_timedwait(sem_t *restrict s, const struct timespec *restrict until)
{
    static int (*next)(sem_t *, const struct timespec *);
    if (!next)
        next = dlsym(RTLD_NEXT, "sem_timedwait");
    struct timespec right = righted(until);
    return next(s, &right);
}
