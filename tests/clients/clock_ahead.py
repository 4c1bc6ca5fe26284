"""A process whose time of day is ahead of the machine's, as after a stop of hours: a library that is loaded before the C library adds to it.

The time that passes is as it is, and so are the times of files. The library is compiled by `cc`, which a build of Icecore needs too.
"""
import subprocess
from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static int (*real)(clockid_t, struct timespec *);
static long ahead_s;

__attribute__((constructor)) static void load(void) {
    const char *text = getenv("CLOCK_AHEAD_S");
    ahead_s = text ? atol(text) : 0;
    real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
}

int clock_gettime(clockid_t id, struct timespec *now) {
    if (!real) load();
    int failed = real(id, now);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += ahead_s;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec precise;
    int failed = clock_gettime(CLOCK_REALTIME, &precise);
    if (!failed) {
        now->tv_sec = precise.tv_sec;
        now->tv_usec = precise.tv_nsec / 1000;
    }
    return failed;
}

time_t time(time_t *now) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now) *now = precise.tv_sec;
    return precise.tv_sec;
}
"""


def clock_ahead(folder: Path, hours: int) -> dict:
    """The environment of a process that is so far ahead. The library is made in `folder`."""
    library = Path(folder) / "clock_ahead.so"
    if not library.exists():
        source = library.with_suffix(".c")
        source.write_text(SOURCE)
        subprocess.run(["cc", "-O1", "-fPIC", "-shared", "-o", str(library), str(source), "-ldl"], check=True)
    return {"LD_PRELOAD": str(library.resolve()), "CLOCK_AHEAD_S": str(hours * 3600)}
