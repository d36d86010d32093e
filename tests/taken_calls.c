/* A client whose two fanotify calls a supervisor answers: does what its arguments say, one
 * word after the other, and prints the results. No libc wrapper is used for the two calls.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define X32 0x40000000L

static volatile sig_atomic_t ticks;

static void tick(int signal)
{
	(void)signal;
	ticks++;
}

static long result(long value)
{
	return value < 0 ? -errno : value;
}

static long fanotify_init_raw(unsigned long flags, unsigned long event_flags)
{
	return result(syscall(SYS_fanotify_init, flags, event_flags, 33UL, 44UL, 55UL, 66UL));
}

static long fanotify_mark_raw(long group, unsigned long flags, unsigned long mask, long dirfd,
			      const void *path)
{
	return result(syscall(SYS_fanotify_mark, group, flags, mask, dirfd, path));
}

static void say(const char *word, long value)
{
	printf("%s %ld\n", word, value);
	fflush(stdout);
}

static int open_descriptors(void)
{
	DIR *directory = opendir("/proc/self/fd");
	int count = 0;

	while (readdir(directory))
		count++;
	closedir(directory);
	return count - 3; /* ".", ".." and the directory itself */
}

/* `times` groups while a timer fires every `microseconds`; with restarted system calls. */
static void storm(long times, long microseconds)
{
	struct itimerval timer = {{0, microseconds}, {0, microseconds}};
	struct itimerval off = {{0, 0}, {0, 0}};
	struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART};
	int before = open_descriptors();
	long failed = 0;

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
	while (times--) {
		long fd = fanotify_init_raw(0, 0);

		if (fd <= 2 || fcntl(fd, F_GETFD) < 0)
			failed++;
		else
			close(fd);
	}
	setitimer(ITIMER_REAL, &off, NULL);
	say("failed", failed);
	say("left", open_descriptors() - before);
	say("interrupted", ticks > 0);
}

static void *thread(void *argument)
{
	long times = (long)argument, good = 0, me = syscall(SYS_gettid);

	while (times--) /* the thread is the first argument, and the answer */
		good += fanotify_mark_raw(me, 0, 0, 0, NULL) == me;
	return (void *)good;
}

static long threads(long count, long times)
{
	pthread_t all[64];
	long good = 0;

	for (long i = 0; i < count; i++)
		pthread_create(&all[i], NULL, thread, (void *)times);
	for (long i = 0; i < count; i++) {
		void *value;

		pthread_join(all[i], &value);
		good += (long)value;
	}
	return good;
}

static long forks(long count, long times)
{
	long good = 0;
	int status;

	for (long i = 0; i < count; i++)
		if (fork() == 0)
			_exit((long)thread((void *)times) != times);
	while (wait(&status) > 0)
		good += status == 0;
	return good;
}

/* A path at the end of a page, across two pages, before a hole, and so on. */
static void paths(long group)
{
	long page = sysconf(_SC_PAGESIZE);
	char *memory = mmap(NULL, 4 * page, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *hole = memory + 3 * page;

	munmap(hole, page);
	memset(memory, 'a', 3 * page);
#define TRY(address)                                                                            \
	say("path", fanotify_mark_raw(group, 1 /* add */, 0x20 /* FAN_OPEN */, AT_FDCWD,         \
				      (const void *)(address)))
	strcpy(hole - 5, "last");
	TRY(hole - 5);
	strcpy(memory + page - 2, "across");
	TRY(memory + page - 2);
	memset(memory, 'a', 3 * page);
	hole[-1] = 'a';
	TRY(hole - 5);		  /* runs into the hole */
	TRY(hole - 4096);	  /* 4096 without an end */
	memory[page + 4095] = 0;
	TRY(memory + page);	  /* 4095, with their end */
	memory[100] = 0;
	TRY(memory + 100);	  /* empty */
	TRY(hole);
	TRY(1);
	TRY(-1L);
	TRY(0xffffffffff600000UL); /* the vsyscall page */
	mprotect(memory, page, PROT_NONE);
	TRY(memory);
#undef TRY
}

static long getppid_ns(long times)
{
	struct timespec from, to;

	clock_gettime(CLOCK_MONOTONIC, &from);
	for (long i = 0; i < times; i++)
		syscall(SYS_getppid);
	clock_gettime(CLOCK_MONOTONIC, &to);
	return ((to.tv_sec - from.tv_sec) * 1000000000L + to.tv_nsec - from.tv_nsec) * 10 / times;
}

static long i386(long number)
{
	long value;

	__asm__ volatile("int $0x80" : "=a"(value) : "a"(number), "b"(0), "c"(0), "d"(0) : "memory", "r8", "r9", "r10", "r11");
	return value;
}

int main(int argc, char **argv)
{
	char **word = argv + 1;

	(void)argc;
#define NUMBER strtol(*word++, NULL, 0)
#define UNSIGNED strtoul(*word++, NULL, 0)
	while (*word) {
		const char *what = *word++;

		if (!strcmp(what, "init")) {
			unsigned long flags = UNSIGNED, event_flags = UNSIGNED;

			say(what, fanotify_init_raw(flags, event_flags));
		} else if (!strcmp(what, "mark")) {
			long group = NUMBER;
			unsigned long flags = UNSIGNED, mask = UNSIGNED;
			long dirfd = NUMBER;
			const char *path = *word++;

			say(what, fanotify_mark_raw(group, flags, mask, dirfd,
						    strcmp(path, "NULL") ? path : NULL));
		} else if (!strcmp(what, "x32")) {
			long first = result(syscall(X32 | SYS_fanotify_init, 0, 0));

			say(what, first);
			say(what, result(syscall(X32 | SYS_fanotify_mark, -1, 0, 0, 0, 0)));
		} else if (!strcmp(what, "i386")) {
			say(what, i386(300));
			say(what, i386(301));
		} else if (!strcmp(what, "cloexec")) {
			say(what, fcntl(NUMBER, F_GETFD));
		} else if (!strcmp(what, "inode")) {
			struct stat status;

			say(what, fstat(NUMBER, &status) ? -errno : (long)status.st_ino);
		} else if (!strcmp(what, "limit")) {
			struct rlimit limit;

			limit.rlim_cur = limit.rlim_max = UNSIGNED;
			say(what, setrlimit(RLIMIT_NOFILE, &limit));
		} else if (!strcmp(what, "open")) {
			const char *path = *word++;

			say(what, result(open(path, UNSIGNED)));
		} else if (!strcmp(what, "close")) {
			say(what, result(close(NUMBER)));
		} else if (!strcmp(what, "cd")) {
			say(what, result(chdir(*word++)));
		} else if (!strcmp(what, "umount")) {
			say(what, result(syscall(SYS_umount2, *word++, 0)));
		} else if (!strcmp(what, "storm")) {
			long times = NUMBER;

			storm(times, NUMBER);
		} else if (!strcmp(what, "threads")) {
			long count = NUMBER;

			say(what, threads(count, NUMBER));
		} else if (!strcmp(what, "forks")) {
			long count = NUMBER;

			say(what, forks(count, NUMBER));
		} else if (!strcmp(what, "paths")) {
			paths(NUMBER);
		} else if (!strcmp(what, "pid")) {
			say(what, getpid());
		} else if (!strcmp(what, "getppid")) {
			say(what, getppid_ns(NUMBER));
		} else if (!strcmp(what, "wait")) {
			char byte;

			say(what, read(0, &byte, 1));
		} else {
			fprintf(stderr, "unknown: %s\n", what);
			return 2;
		}
	}
	return 0;
}
