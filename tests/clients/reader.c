// SPDX-License-Identifier: GPL-2.0-only
/*
 * reader WORD...: a fanotify client that does what its words say, one after the other.
 *
 *   init:FLAGS             make a group, which the following words are about
 *   mark:FLAGS:MASK:PATH   fanotify_mark(2), from the working directory
 *   use:N                  be about the Nth group from now on, counted from 0
 *   dup                    go on with a copy of the descriptor, close the first one
 *   close                  close the group
 *   epoll, edge            register it for EPOLLIN, level or edge triggered
 *   await                  wait until epoll, or poll(2) without it, says that there is something
 *   ready                  print "ready 0" or "ready 1": what poll(2) says at once
 *   read:SIZE              one read(2) of so many bytes: events or errno, then "read LENGTH"
 *   errors:N               read until the events stand for N errors, waiting as needed
 *   events:N               the same with events of any kind
 *   cause:N:FILE           write to FILE N times, each write with open and close
 *   storm:N:FILE           the same from N children, one after the other
 *   create:PATH            make a file
 *   chdir:PATH, chroot:PATH
 *   say:TEXT               print it
 *   wait                   print "waiting", then wait for a line on standard input
 *   pid                    print "self PID TID"
 *   forked, threaded       do the rest in a child or thread and end with its status
 *   busy:SECONDS           poll and read for so long, or until a read fails other than by
 *                          EAGAIN; print the CPU time that the program has used, in ms
 *   exit:STATUS
 *
 * Numbers as in C; FLAGS and MASK as fanotify has them. A word that fails prints itself and the
 * name of the errno, and the next one follows. Lines are those of events.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "events.h"

#define ROOM 65536

static int groups[1024], made, group = -1, epoll = -1;
static _Alignas(8) char buffer[ROOM];

static int do_words(char **words);

/* The number behind the next colon of a word, and the rest of the word. */
static uint64_t number(char **rest)
{
	char *end;
	uint64_t value = strtoull(*rest, &end, 0);

	*rest = *end == ':' ? end + 1 : end;
	return value;
}

static void failed(const char *word)
{
	const char *name = strerrorname_np(errno);

	printf("%s: %s\n", word, name ? name : "unknown errno");
}

static void do_init(const char *word, char *rest)
{
	int got = syscall(SYS_fanotify_init, (unsigned int)number(&rest), O_RDONLY);

	if (got < 0)
		failed(word);
	else
		group = groups[made++] = got;
}

static void do_mark(const char *word, char *rest)
{
	unsigned int flags = number(&rest);
	uint64_t mask = number(&rest);

	if (syscall(SYS_fanotify_mark, group, flags, mask, AT_FDCWD, rest))
		failed(word);
}

static void do_dup(void)
{
	int copy = dup(group);

	close(group);
	group = copy;
}

static void do_epoll(uint32_t events)
{
	struct epoll_event event = { .events = events };

	epoll = epoll_create1(EPOLL_CLOEXEC);
	if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, group, &event))
		failed("epoll");
}

static void await(void)
{
	struct pollfd wanted = { .fd = group, .events = POLLIN };
	struct epoll_event event;

	if (epoll >= 0)
		while (epoll_wait(epoll, &event, 1, -1) < 0)
			;
	else
		while (poll(&wanted, 1, -1) < 0)
			;
}

/* 0 if the descriptor is of no use any more. */
static int do_read(size_t size)
{
	ssize_t length = read(group, buffer, size < ROOM ? size : ROOM);

	if (length < 0) {
		failed("read");
		return errno == EAGAIN;
	}
	print_events(buffer, length);
	printf("read %zd\n", length);
	return 1;
}

static void read_until(const unsigned int *counter, unsigned int wanted)
{
	wanted += *counter;
	while (*counter < wanted) {
		ssize_t length = read(group, buffer, ROOM);

		if (length < 0 && errno == EAGAIN)
			await();
		else if (length < 0)
			return failed("read");
		else
			print_events(buffer, length);
	}
}

static void do_cause(const char *word, char *rest)
{
	uint64_t times = number(&rest);

	while (times--) {
		int file = open(rest, O_WRONLY | O_CLOEXEC);

		if (file < 0 || write(file, "x", 1) != 1)
			failed(word);
		close(file);
	}
}

static void do_storm(const char *word, char *rest)
{
	uint64_t times = number(&rest);
	char once[256];

	snprintf(once, sizeof(once), "1:%s", rest);
	while (times--) {
		pid_t child = fork();

		if (!child) {
			do_cause(word, once);
			_exit(0);
		}
		waitpid(child, NULL, 0);
	}
}

static void do_create(const char *word, const char *path)
{
	int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (file < 0)
		failed(word);
	close(file);
}

static void do_wait(void)
{
	char byte;

	puts("waiting");
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) == 1 && byte != '\n')
		;
}

static void *thread(void *words)
{
	return (void *)(intptr_t)do_words(words);
}

static int do_threaded(char **words)
{
	pthread_t other;
	void *status;

	if (pthread_create(&other, NULL, thread, words))
		errx(2, "no thread");
	pthread_join(other, &status);
	return (intptr_t)status;
}

static int do_forked(char **words)
{
	int status;
	pid_t child;

	fflush(stdout);
	child = fork();
	if (child < 0)
		err(2, "fork");
	if (!child) {
		status = do_words(words);
		fflush(stdout);
		_exit(status);
	}
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void do_busy(unsigned int seconds)
{
	struct pollfd wanted = { .fd = group, .events = POLLIN };
	struct timespec now, end, before, used;

	/* exec(2) does not set it back: before that it was the time of fserr-bpf */
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += seconds;
	do {
		if (poll(&wanted, 1, 100) > 0 && !do_read(ROOM))
			break;
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec < end.tv_sec ||
		 (now.tv_sec == end.tv_sec && now.tv_nsec < end.tv_nsec));
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	printf("cpu %ld\n", (used.tv_sec - before.tv_sec) * 1000 +
				    (used.tv_nsec - before.tv_nsec) / 1000000);
}

static void do_use(char *rest)
{
	group = groups[number(&rest)];
}

static void do_ready(void)
{
	struct pollfd now = { .fd = group, .events = POLLIN };

	printf("ready %d\n", poll(&now, 1, 0));
}

/* What ends the words is left to the caller. */
static void do_word(const char *whole, const char *word, char *rest)
{
	if (!strcmp(word, "init"))
		do_init(whole, rest);
	else if (!strcmp(word, "mark"))
		do_mark(whole, rest);
	else if (!strcmp(word, "use"))
		do_use(rest);
	else if (!strcmp(word, "dup"))
		do_dup();
	else if (!strcmp(word, "close"))
		close(group);
	else if (!strcmp(word, "epoll"))
		do_epoll(EPOLLIN);
	else if (!strcmp(word, "edge"))
		do_epoll(EPOLLIN | EPOLLET);
	else if (!strcmp(word, "await"))
		await();
	else if (!strcmp(word, "ready"))
		do_ready();
	else if (!strcmp(word, "read"))
		do_read(number(&rest));
	else if (!strcmp(word, "errors"))
		read_until(&errors_shown, number(&rest));
	else if (!strcmp(word, "events"))
		read_until(&events_shown, number(&rest));
	else if (!strcmp(word, "cause"))
		do_cause(whole, rest);
	else if (!strcmp(word, "storm"))
		do_storm(whole, rest);
	else if (!strcmp(word, "create"))
		do_create(whole, rest);
	else if (!strcmp(word, "chdir") && chdir(rest))
		failed(whole);
	else if (!strcmp(word, "chroot") && chroot(rest))
		failed(whole);
	else if (!strcmp(word, "say"))
		puts(rest);
	else if (!strcmp(word, "wait"))
		do_wait();
	else if (!strcmp(word, "pid"))
		printf("self %d %d\n", getpid(), (int)syscall(SYS_gettid));
	else if (!strcmp(word, "busy"))
		do_busy(number(&rest));
	else if (strcmp(word, "chdir") && strcmp(word, "chroot"))
		errx(2, "%s: no such word", word);
	fflush(stdout);
}

/* The words up to the end; the exit status. */
static int do_words(char **words)
{
	for (; *words; words++) {
		char *rest = strchrnul(*words, ':'), word[16] = "";

		snprintf(word, sizeof(word), "%.*s", (int)(rest - *words), *words);
		rest += *rest == ':';
		if (!strcmp(word, "exit"))
			return number(&rest);
		if (!strcmp(word, "forked"))
			return do_forked(words + 1);
		if (!strcmp(word, "threaded"))
			return do_threaded(words + 1);
		do_word(*words, word, rest);
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc < 2)
		errx(2, "usage: reader WORD...");
	return do_words(argv + 1);
}
