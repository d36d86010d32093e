// SPDX-License-Identifier: GPL-2.0-only
/*
 * unusual WAY DIRECTORY TRIGGER: a fanotify client whose calls are made in an unusual way.
 *
 * Each WAY makes a group, marks the file system of DIRECTORY for FAN_FS_ERROR, writes to TRIGGER,
 * which causes an error of it, and prints the event that it reads:
 *
 *   plain      as everybody
 *   calls      both calls, without an error or a read
 *   compat     both calls through int 0x80; reads the event by poll(2), as there may be none
 *   mixed      the group as everybody, the mark through int 0x80: prints its result
 *   x32        as compat, with the numbers of the x32 ABI
 *   uring      reads with io_uring
 *   filtered   below a seccomp filter of its own that allows everything
 *   refused    below one that lets fanotify_mark(2) fail with EACCES
 *   listener   tries to have a listener for its own filter first
 *   traced     while its parent stops it at every system call
 *   vforked    in a child of vfork(2)
 *   threads    after threads that made groups and marks have ended within a call: because the
 *              process became another program, because it ended, because they were cancelled
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "events.h"

#define INIT_FLAGS 0x200 /* FAN_REPORT_FID */
#define MARK_FLAGS 0x101 /* FAN_MARK_ADD | FAN_MARK_FILESYSTEM */
#define MASK 0x8000	 /* FAN_FS_ERROR */
#define X32 0x40000000

enum { I386_INIT = 338, I386_MARK = 339, THREADS = 4, ROUNDS = 5, PAUSE_US = 3000 };

static const char *directory, *trigger;
static _Alignas(8) char buffer[4096];

static void result(const char *what, long value)
{
	if (value < 0)
		printf("%s: %s\n", what, strerrorname_np(-value));
	else
		printf("%s: done\n", what);
	fflush(stdout);
}

static long negative(long value)
{
	return value < 0 ? -errno : value;
}

static long make_group(void)
{
	return negative(syscall(SYS_fanotify_init, INIT_FLAGS, O_RDONLY));
}

static long mark(long group)
{
	return negative(
		syscall(SYS_fanotify_mark, group, MARK_FLAGS, (uint64_t)MASK, AT_FDCWD, directory));
}

static void cause(void)
{
	int file = open(trigger, O_WRONLY | O_CLOEXEC);

	if (file < 0 || write(file, "x", 1) != 1)
		err(2, "%s", trigger);
	close(file);
}

static void read_event(long group)
{
	ssize_t length = read(group, buffer, sizeof(buffer));

	if (length < 0)
		result("read", -errno);
	else
		print_events(buffer, length);
}

static int plain(void)
{
	long group = make_group();

	result("init", group);
	result("mark", mark(group));
	cause();
	read_event(group);
	return 0;
}

static int calls(void)
{
	long group = make_group();

	result("init", group);
	result("mark", mark(group));
	return 0;
}

/* The arguments are numbers of 32 bits. */
static long int80(long number, long a, long b, long c, long d, long e, long f)
{
	long value;

	asm volatile("push %%rbp\n\tmov %7, %%rbp\n\tint $0x80\n\tpop %%rbp"
		     : "=a"(value)
		     : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e), "r"(f)
		     : "memory", "r8", "r9", "r10", "r11");
	return (int)value;
}

/* The path where a pointer of 32 bits leads to. */
static long low_path(void)
{
	char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

	if (low == MAP_FAILED)
		err(2, "mmap");
	strcpy(low, directory);
	return (long)low;
}

static long compat_mark(long group)
{
	return int80(I386_MARK, group, MARK_FLAGS, MASK, 0, AT_FDCWD, low_path());
}

static void read_if_any(long group)
{
	struct pollfd wanted = { .fd = group, .events = POLLIN };

	if (poll(&wanted, 1, 0) > 0)
		read_event(group);
	else
		puts("nothing to read");
}

static int compat(void)
{
	long group = int80(I386_INIT, INIT_FLAGS, O_RDONLY, 0, 0, 0, 0);

	result("init", group);
	result("mark", compat_mark(group));
	cause();
	read_if_any(group);
	return 0;
}

static int mixed(void)
{
	long group = make_group();

	result("init", group);
	result("mark", compat_mark(group));
	return 0;
}

static int x32(void)
{
	long group = negative(syscall(X32 | SYS_fanotify_init, INIT_FLAGS, O_RDONLY));

	result("init", group);
	if (group < 0)
		return 0;
	result("mark", negative(syscall(X32 | SYS_fanotify_mark, group, MARK_FLAGS,
					(uint64_t)MASK, AT_FDCWD, directory)));
	cause();
	read_if_any(group);
	return 0;
}

static int uring(void)
{
	struct io_uring_params params = { 0 };
	long group = make_group();
	int ring = syscall(SYS_io_uring_setup, 1, &params);
	struct io_uring_cqe *done;
	struct io_uring_sqe *asked;
	unsigned char *rings;

	if (ring < 0) {
		result("io_uring", -errno);
		return 0;
	}
	result("init", group);
	result("mark", mark(group));
	/* since 5.4 both rings are one */
	rings = mmap(NULL, params.cq_off.cqes + params.cq_entries * sizeof(*done),
		     PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
	asked = mmap(NULL, sizeof(*asked), PROT_READ | PROT_WRITE, MAP_SHARED, ring,
		     IORING_OFF_SQES);
	if (rings == MAP_FAILED || asked == MAP_FAILED)
		err(2, "io_uring");
	*asked = (struct io_uring_sqe){ .opcode = IORING_OP_READ, .fd = group,
					.addr = (uintptr_t)buffer, .len = sizeof(buffer),
					.off = -1 };
	*(unsigned int *)(rings + params.sq_off.array) = 0;
	__atomic_store_n((unsigned int *)(rings + params.sq_off.tail), 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring, 1, 0, 0, NULL, 0) != 1)
		err(2, "io_uring_enter");
	/* the read waits by now, or will find it */
	cause();
	if (syscall(SYS_io_uring_enter, ring, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
		err(2, "io_uring_enter");
	done = (struct io_uring_cqe *)(rings + params.cq_off.cqes);
	if (done->res < 0)
		result("read", done->res);
	else if (!done->res)
		puts("nothing to read");
	else
		print_events(buffer, done->res);
	return 0;
}

/* A filter with one answer for fanotify_mark(2), all else is allowed. */
static long filter(unsigned int flags, unsigned int answer)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fanotify_mark, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, answer),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = sizeof(code) / sizeof(*code), .filter = code };

	return negative(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program));
}

static int filtered(void)
{
	result("filter", filter(0, SECCOMP_RET_ALLOW));
	return plain();
}

static int refused(void)
{
	long group;

	result("filter", filter(0, SECCOMP_RET_ERRNO | EACCES));
	group = make_group();
	result("init", group);
	result("mark", mark(group));
	return 0;
}

static int listener(void)
{
	result("filter", filter(SECCOMP_FILTER_FLAG_NEW_LISTENER, SECCOMP_RET_ALLOW));
	return plain();
}

static int traced(void)
{
	int status, stops = 0;
	pid_t child;

	fflush(stdout);
	child = fork();
	if (!child) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		exit(plain());
	}
	waitpid(child, &status, 0);
	ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
	for (long sent = 0;; stops++) {
		if (ptrace(PTRACE_SYSCALL, child, 0, sent))
			err(2, "ptrace");
		waitpid(child, &status, 0);
		if (!WIFSTOPPED(status))
			break;
		sent = WSTOPSIG(status) == (SIGTRAP | 0x80) ? 0 : WSTOPSIG(status);
	}
	printf("stopped: %s\n", stops > 10 ? "often" : "seldom");
	return WEXITSTATUS(status);
}

static int vforked(void)
{
	static volatile long group, marked;
	static volatile ssize_t length;
	pid_t child = vfork();

	if (!child) { /* its memory is that of its parent, its descriptors are its own */
		group = make_group();
		marked = mark(group);
		cause();
		length = read(group, buffer, sizeof(buffer));
		_exit(0);
	}
	waitpid(child, NULL, 0);
	result("init", group);
	result("mark", marked);
	print_events(buffer, length);
	return 0;
}

static void *in_calls(void *none)
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	for (;;) {
		long group = make_group();

		mark(group);
		close(group);
	}
	return none;
}

static void start_threads(pthread_t *threads)
{
	for (int at = 0; at < THREADS; at++)
		if (pthread_create(&threads[at], NULL, in_calls, NULL))
			errx(2, "no thread");
	usleep(PAUSE_US);
}

static int with_threads(char **argv)
{
	pthread_t threads[THREADS];

	for (int round = 0; round < ROUNDS; round++) {
		pid_t child = fork();

		if (!child) {
			start_threads(threads);
			if (round % 2)
				_exit(0);
			execl(argv[0], argv[0], "nothing", directory, trigger, NULL);
			err(2, "%s", argv[0]);
		}
		waitpid(child, NULL, 0);
	}
	start_threads(threads);
	for (int at = 0; at < THREADS; at++)
		pthread_cancel(threads[at]);
	for (int at = 0; at < THREADS; at++)
		pthread_join(threads[at], NULL);
	return plain();
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*way)(void);
	} ways[] = {
		{ "plain", plain },	  { "compat", compat },	    { "mixed", mixed },
		{ "x32", x32 },		  { "uring", uring },	    { "filtered", filtered },
		{ "refused", refused },	  { "listener", listener }, { "traced", traced },
		{ "vforked", vforked },	  { "calls", calls },
	};

	if (argc != 4)
		errx(2, "usage: unusual WAY DIRECTORY TRIGGER");
	directory = argv[2];
	trigger = argv[3];
	if (!strcmp(argv[1], "nothing"))
		return 0;
	if (!strcmp(argv[1], "threads"))
		return with_threads(argv);
	for (size_t at = 0; at < sizeof(ways) / sizeof(*ways); at++)
		if (!strcmp(argv[1], ways[at].name))
			return ways[at].way();
	errx(2, "%s: no such way", argv[1]);
}
