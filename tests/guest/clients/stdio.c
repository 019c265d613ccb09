// SPDX-License-Identifier: GPL-2.0

/*
 * stdio MODE PID: registers PID through fopen() in that mode, and prints what the file then holds
 * if the mode lets it read. Fails at the first call that does.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void must(int done, const char *what)
{
	if (!done) {
		perror(what);
		exit(EXIT_FAILURE);
	}
}

int main(int argc, char **argv)
{
	char line[64];
	FILE *f;

	must(argc == 3, "usage: stdio MODE PID");
	f = fopen("/proc/mp1/status", argv[1]);
	must(f != NULL, "fopen");
	must(fprintf(f, "%d\n", atoi(argv[2])) > 0, "fprintf");
	if (strchr(argv[1], '+')) {
		must(fseek(f, 0, SEEK_SET) == 0, "fseek");
		while (fgets(line, sizeof(line), f))
			fputs(line, stdout);
		must(!ferror(f), "fgets");
	}
	must(fclose(f) == 0, "fclose");
	return 0;
}
