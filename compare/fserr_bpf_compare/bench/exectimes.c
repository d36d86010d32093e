// SPDX-License-Identifier: GPL-2.0-only
/*
 * Times system calls of a fanotify client: "exectimes DIRECTORY TRIGGER", TRIGGER being the
 * file in sysfs that causes an error of the ext4 that DIRECTORY is on. Prints a line each:
 *
 *   init NS...    fanotify_init
 *   mark NS...    fanotify_mark of the file system
 *   other NS...   getppid, of rounds of a million calls the nanoseconds of one
 *   event NS...   from before the error until it has been read
 *   ordinary NS...  a mark for ordinary events, of rounds of calls the nanoseconds of one
 *
 * "exectimes DIRECTORY" prints the last of these only.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/fanotify.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef FAN_FS_ERROR
#define FAN_FS_ERROR 0x00008000
#endif

enum { CALLS = 300, ROUNDS = 9, ERRORS = 300, MILLION = 1000000, PAUSE = 5 /* ms */, MARKS = 5000 };

static long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void check(int result, const char *what)
{
	if (result >= 0)
		return;
	perror(what);
	exit(1);
}

static int make_group(void)
{
	int group = fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_FID | FAN_CLOEXEC, O_RDONLY);

	check(group, "fanotify_init");
	return group;
}

static void mark(int group, const char *directory)
{
	check(fanotify_mark(group, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_FS_ERROR, AT_FDCWD,
			    directory),
	      "fanotify_mark");
}

static void time_calls(const char *directory)
{
	long long init[CALLS], marks[CALLS];

	for (int i = 0; i < CALLS; i++) {
		long long begin = now();
		int group = make_group();

		init[i] = now() - begin;
		begin = now();
		mark(group, directory);
		marks[i] = now() - begin;
		close(group);
		poll(NULL, 0, PAUSE); /* the end of a group is not a part of the next call */
	}
	printf("init");
	for (int i = 0; i < CALLS; i++)
		printf(" %lld", init[i]);
	printf("\nmark");
	for (int i = 0; i < CALLS; i++)
		printf(" %lld", marks[i]);
	printf("\n");
}

static void time_others(void)
{
	printf("other");
	for (int round = 0; round < ROUNDS; round++) {
		long long begin = now();

		for (int i = 0; i < MILLION; i++)
			syscall(SYS_getppid);
		printf(" %.1f", (now() - begin) / 1e6);
	}
	printf("\n");
}

static void time_ordinary(const char *directory)
{
	int group = make_group();

	printf("ordinary");
	for (int round = 0; round < ROUNDS; round++) {
		long long begin = now();

		for (int i = 0; i < MARKS; i++)
			check(fanotify_mark(group, FAN_MARK_ADD, FAN_CREATE | FAN_ONDIR, AT_FDCWD,
					    directory),
			      "fanotify_mark");
		printf(" %.1f", (double)(now() - begin) / MARKS);
	}
	printf("\n");
	close(group);
}

static void time_events(const char *directory, const char *trigger)
{
	struct pollfd waiting = { .fd = make_group(), .events = POLLIN };
	int cause = open(trigger, O_WRONLY);
	char event[4096];

	check(cause, trigger);
	mark(waiting.fd, directory);
	printf("event");
	for (int i = 0; i < ERRORS; i++) {
		long long begin = now();

		check(pwrite(cause, "x", 1, 0), trigger);
		if (poll(&waiting, 1, 10000) != 1) {
			fprintf(stderr, "no event within 10 s\n");
			exit(1);
		}
		check(read(waiting.fd, event, sizeof(event)), "read");
		printf(" %lld", now() - begin);
	}
	printf("\n");
}

int main(int argc, char **argv)
{
	if (argc < 2 || argc > 3)
		return 2;
	time_ordinary(argv[1]);
	if (argc == 2)
		return 0;
	time_calls(argv[1]);
	time_others();
	time_events(argv[1], argv[2]);
	return 0;
}
