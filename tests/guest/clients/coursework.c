// SPDX-License-Identifier: GPL-2.0

/*
 * What a student hands in: registers itself, uses the CPU until its own line shows some, and prints
 * the file. Its argument says how it registers: by fprintf(), by a raw write() of a string with its
 * NUL, or by a shell.
 */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STATUS "/proc/mp1/status"

static int by_fprintf(void)
{
	FILE *f = fopen(STATUS, "w");

	if (!f)
		return -1;
	fprintf(f, "%d", getpid());
	return fclose(f);
}

static int by_write(void)
{
	char digits[16];
	int length = sprintf(digits, "%d", getpid()) + 1;
	int fd = open(STATUS, O_WRONLY);
	int done;

	if (fd < 0)
		return -1;
	done = write(fd, digits, length) == length ? 0 : -1;
	close(fd);
	return done;
}

static int by_shell(void)
{
	char command[64];

	sprintf(command, "echo %d > " STATUS, getpid());
	return system(command);
}

static volatile unsigned long long product;

static void factorial(int n)
{
	product = 1;
	for (int i = 2; i <= n; i++)
		product *= i;
}

/* Returns the milliseconds that the process's own line shows, or -1 if there is no such line. */
static long own_time(void)
{
	char line[64];
	long found = -1, ms;
	int pid;
	FILE *f = fopen(STATUS, "r");

	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%d: %ld", &pid, &ms) == 2 && pid == getpid())
			found = ms;
	fclose(f);
	return found;
}

static void print_status(void)
{
	char line[64];
	FILE *f = fopen(STATUS, "r");

	while (f && fgets(line, sizeof(line), f))
		printf("%s", line);
	if (f)
		fclose(f);
}

int main(int argc, char **argv)
{
	int failed = -1;
	long ms;

	/* The end, should the own line never show any time. */
	alarm(30);
	if (argc == 2 && !strcmp(argv[1], "fprintf"))
		failed = by_fprintf();
	else if (argc == 2 && !strcmp(argv[1], "write"))
		failed = by_write();
	else if (argc == 2 && !strcmp(argv[1], "shell"))
		failed = by_shell();
	if (failed) {
		fprintf(stderr, "not registered\n");
		return EXIT_FAILURE;
	}

	while ((ms = own_time()) == 0)
		for (int i = 0; i < 1000; i++)
			factorial(20);
	if (ms < 0) {
		fprintf(stderr, "the process has no line\n");
		return EXIT_FAILURE;
	}
	printf("pid %d\n", getpid());
	print_status();
	return 0;
}
