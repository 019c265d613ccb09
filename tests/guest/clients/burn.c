// SPDX-License-Identifier: GPL-2.0

/* Uses the CPU time that its argument says, in ms, then waits to be killed. */

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static long long cpu_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

int main(int argc, char **argv)
{
	long long end = cpu_ms() + (argc > 1 ? atoll(argv[1]) : 0);

	while (cpu_ms() < end)
		;
	for (;;)
		pause();
}
