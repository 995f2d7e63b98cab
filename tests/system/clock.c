/* Sets the clock for one process: LD_PRELOAD this, and write seconds to /run/clock. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <time.h>

int clock_gettime(clockid_t id, struct timespec *now)
{
	static int (*real)(clockid_t, struct timespec *);
	long seconds = 0;

	if (!real)
		real = dlsym(RTLD_NEXT, "clock_gettime");
	int result = real(id, now);
	if (result == 0 && id == CLOCK_REALTIME) {
		FILE *file = fopen("/run/clock", "re");
		if (file) {
			if (fscanf(file, "%ld", &seconds) == 1)
				now->tv_sec += seconds;
			fclose(file);
		}
	}
	return result;
}
