/*
 * A client of a group's descriptor that does what its arguments say, one after the other:
 *
 *	channel_client FD COMMAND...
 *
 * and prints a line for each: what the system call returned, or minus the errno. A command
 * is a word and numbers: read:4096, poll:1000.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char buffer[1 << 22];
static volatile sig_atomic_t handled;

static void handler(int signal)
{
	(void)signal;
	handled++;
}

static long negative(long result)
{
	return result < 0 ? -errno : result;
}

static long epoll_add(int fd, unsigned int events)
{
	struct epoll_event event = { .events = events };
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) ? -errno : epoll;
}

static long epoll_wait_one(int epoll, int milliseconds)
{
	struct epoll_event event;
	int count = epoll_wait(epoll, &event, 1, milliseconds);

	return count == 1 ? (long)event.events : negative(count);
}

static long poll_one(int fd, int milliseconds)
{
	struct pollfd one = { .fd = fd, .events = POLLIN };
	int count = poll(&one, 1, milliseconds);

	return count == 1 ? one.revents : negative(count);
}

static long handle(int flags)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = flags };

	return negative(sigaction(SIGUSR1, &action, NULL));
}

static long reopen(int fd)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return negative(open(path, O_RDONLY | O_NONBLOCK));
}

/* The event lengths of one read, to be sure that the events are whole. */
static long walk(long length)
{
	unsigned int event_len;
	long offset = 0;

	while (offset + 24 <= length) {
		memcpy(&event_len, buffer + offset, sizeof(event_len));
		offset += event_len;
	}
	return length > 0 && offset != length ? -EBADMSG : length;
}

/* What becomes of a child: stopped, continued, exited, killed, with signal or status. */
static int watch(pid_t child)
{
	int status;

	while (waitpid(child, &status, WUNTRACED | WCONTINUED) == child) {
		if (WIFSTOPPED(status))
			printf("%d\n", 1000 + WSTOPSIG(status));
		else if (WIFCONTINUED(status))
			printf("%d\n", 2000);
		else if (WIFEXITED(status))
			printf("%d\n", 3000 + WEXITSTATUS(status));
		else
			printf("%d\n", 4000 + WTERMSIG(status));
	}
	return 0;
}

static long command(int *fd, int *epoll, const char *name, long value)
{
	struct stat status;
	int unread = 0;

	if (!strcmp(name, "read"))
		return walk(negative(read(*fd, buffer, value)));
	if (!strcmp(name, "part")) /* the event need not be whole */
		return negative(read(*fd, buffer, value));
	if (!strcmp(name, "poll"))
		return poll_one(*fd, value);
	if (!strcmp(name, "level"))
		return (*epoll = epoll_add(*fd, EPOLLIN)) > 0;
	if (!strcmp(name, "edge"))
		return (*epoll = epoll_add(*fd, EPOLLIN | EPOLLET)) > 0;
	if (!strcmp(name, "wait"))
		return epoll_wait_one(*epoll, value);
	if (!strcmp(name, "handler"))
		return handle(value ? SA_RESTART : 0);
	if (!strcmp(name, "handled"))
		return handled;
	if (!strcmp(name, "nonblock"))
		return negative(fcntl(*fd, F_SETFL, value ? O_NONBLOCK : 0));
	if (!strcmp(name, "write"))
		return negative(write(*fd, buffer, value));
	if (!strcmp(name, "fionread"))
		return ioctl(*fd, FIONREAD, &unread) ? -errno : unread;
	if (!strcmp(name, "stat"))
		return negative(fstat(*fd, &status));
	if (!strcmp(name, "reopen"))
		return reopen(*fd);
	if (!strcmp(name, "uid"))
		return negative(setuid(value));
	if (!strcmp(name, "dup")) {
		int copy = dup(*fd);

		close(*fd);
		*fd = copy;
		return copy > 0;
	}
	if (!strcmp(name, "close"))
		return negative(close(*fd));
	if (!strcmp(name, "go")) /* wait for a byte from who started us */
		return negative(read(0, buffer, 1));
	return -ENOSYS;
}

int main(int argc, char **argv)
{
	int fd = argc > 1 ? atoi(argv[1]) : -1, epoll = -1, i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (i = 2; i < argc; i++) {
		char *value = strchr(argv[i], ':');

		if (!strcmp(argv[i], "exec")) { /* the rest is done by a new program */
			argv[i] = argv[1];
			argv[i - 1] = argv[0];
			fcntl(fd, F_SETFD, 0);
			execv("/proc/self/exe", argv + i - 1);
			return 1;
		}
		if (!strcmp(argv[i], "fork")) { /* the rest is done by a child */
			pid_t child = fork();

			if (child) {
				close(fd);
				return watch(child);
			}
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			printf("%d\n", getpid());
			continue;
		}
		if (value)
			*value++ = 0;
		printf("%ld\n", command(&fd, &epoll, argv[i], value ? atol(value) : 0));
	}
	return 0;
}
