// SPDX-License-Identifier: GPL-2.0-only
/*
 * calls SEED COUNT DIRECTORY [UID]: pseudo-random fanotify_init(2) and fanotify_mark(2).
 *
 * Makes COUNT calls and prints a line for each: what was called, and its result or errno.
 * Objects are those of tests/live/call_objects.py in DIRECTORY. All choices depend on SEED
 * alone, never on a result, and no line holds a number that another run would not
 * have: two runs on objects in the same state print the same. With UID the calls are
 * made by that user without capabilities.
 *
 * No permission event is asked for on anything that others use too: they would wait
 * for us.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "choices.h"

/* new groups begin with each episode, so that no difference has consequences for ever */
#define EPISODE 40
#define GROUPS 6
/* of <linux/fanotify.h>, which may be older than the kernel */
#define PERMISSION_EVENTS 0x170000ULL

enum dirfd { CWD, EXT4, EXT4_PATH, XFS, FILE_FD, FILE_PATH, LINK_PATH, DELETED, PIPE, GROUP,
	     CLOSED, MINUS_ONE, DIRFDS };
static const char *const dirfd_names[DIRFDS] = {
	"cwd", "e", "e/dir", "x", "file", "path-file", "path-link", "deleted", "pipe", "group",
	"closed", "-1"
};
static int dirfds[DIRFDS];

/* what lies behind them is shared with other programs */
static int foreign_dirfd(enum dirfd dirfd)
{
	return dirfd == PIPE || dirfd == GROUP;
}

static const char *const paths[] = {
	"e", "e/dir", "e/file", "e/fifo", "e/socket", "e/device", "e/link", "e/dirlink",
	"e/dangling", "e/loop", "e/missing", "e/file/below", "e/file/", "e/link/", "e/dirlink/",
	"e/missing/", "e/dir/.", "e/dir/..", "e/..", ".", "./e//dir", "e/secret",
	"e/secret/file", "e/private", "x", "x/file", "b", "b/file", "b/sub", "b/sub/file", "t",
	"t/file", "r", "r/file", "p", "p/ptmx", "o", "o/file", "o/upper", "bind", "bind/inner",
	"bindfile", "/proc/self/cwd/e/file", "/proc/thread-self/cwd/x",
};
/* relative to a directory of ours other than the working directory */
static const char *const inner[] = {
	"file", "dir", "link", "missing", "dirlink/inner", "inner", ".", "..", "dangling",
};
static const char *const foreign[] = {
	"/proc/version", "/proc/self", "/proc/self/ns/mnt", "/proc/self/fd", "/proc/self/exe/x",
};

static char *edge; /* one byte of this page, the next page is missing */
static size_t page;
static char toolong[8192], longest[4096], longname[300];
static char absolute[4096];
static const char *directory;
static int groups[GROUPS], copy = -1, inotify_fd = -1;

static const char *name_of(int number)
{
	const char *name = strerrorname_np(number);

	return name ? name : "unknown errno";
}

static void result(long value)
{
	printf(" -> %s\n", value < 0 ? name_of(errno) : "0");
}

static void let_go(int *descriptor)
{
	if (*descriptor >= 0)
		close(*descriptor);
	*descriptor = -1;
}

/* The number of the next new descriptor. */
static int next_number(void)
{
	int next = dup(dirfds[FILE_FD]);

	close(next);
	return next;
}

static void call_init(unsigned int slot, int plain)
{
	uint32_t flags = any_init_flags(plain), event_flags = any_event_flags();
	int full = percent(3), next;
	struct rlimit limit, narrow;
	long got;

	let_go(&groups[slot]);
	next = next_number();
	if (full) { /* EMFILE, unless there is another errno before */
		getrlimit(RLIMIT_NOFILE, &limit);
		narrow = limit;
		narrow.rlim_cur = next;
		setrlimit(RLIMIT_NOFILE, &narrow);
	}
	got = syscall(SYS_fanotify_init, dirty(flags), dirty(event_flags));
	printf("init g%u flags=0x%x event_flags=0x%x%s", slot, flags, event_flags,
	       full ? " full" : "");
	if (full)
		setrlimit(RLIMIT_NOFILE, &limit);
	if (got >= 0) {
		groups[slot] = got;
		printf(" cloexec=%d status=0x%x%s", fcntl(got, F_GETFD),
		       fcntl(got, F_GETFL) & (O_ACCMODE | O_NONBLOCK | O_APPEND),
		       got == next ? "" : " another number");
	}
	result(got);
}

/* A descriptor for the first argument, and its name. */
static int any_group(char *name, size_t size)
{
	unsigned int way = below(100), slot = below(GROUPS);

	if (way < 90) {
		snprintf(name, size, "g%u", slot);
		return groups[slot];
	}
	if (way < 94) {
		snprintf(name, size, "dup");
		return copy;
	}
	if (way < 96) {
		snprintf(name, size, "inotify");
		return inotify_fd;
	}
	slot = PICK(((const int[]){ EXT4, FILE_FD, FILE_PATH, PIPE, CLOSED, MINUS_ONE }));
	snprintf(name, size, "%s", dirfd_names[slot]);
	return dirfds[slot];
}

/* A path, what to print for it, and whether others use what it names. */
static const char *any_path(enum dirfd dirfd, const char **name, int *shared)
{
	unsigned int way = below(100);
	const char *path;

	*shared = 0;
	if (way < 68) {
		path = (dirfd == EXT4 || dirfd == EXT4_PATH || dirfd == XFS) && percent(80) ?
			       PICK(inner) : PICK(paths);
		*name = path;
		if (percent(10) && path[0] != '/') {
			snprintf(absolute, sizeof(absolute), "%s/%s", directory, path);
			return absolute;
		}
		return path;
	}
	if (way < 78) {
		*shared = foreign_dirfd(dirfd);
		*name = "NULL";
		return NULL;
	}
	if (way < 83) {
		*shared = 1;
		return *name = PICK(foreign);
	}
	if (way < 86) {
		*shared = foreign_dirfd(dirfd);
		snprintf(absolute, sizeof(absolute), "/proc/%s/fd/%d",
			 percent(50) ? "self" : "thread-self", dirfds[dirfd]);
		*name = "/proc/self/fd/dirfd";
		return absolute;
	}
	switch (way) {
	case 86: case 87:
		return *name = "";
	case 88: case 89:
		*name = "bad pointer";
		return edge + page;
	case 90: case 91:
		*name = "e without end before a missing page";
		edge[page - 2] = 'e';
		edge[page - 1] = '/';
		return edge + page - 2;
	case 92: case 93:
		*name = "e before a missing page";
		edge[page - 2] = 'e';
		edge[page - 1] = 0;
		return edge + page - 2;
	case 94: case 95:
		*name = "too long";
		return toolong;
	case 96: case 97:
		*name = "as long as allowed";
		return longest;
	default:
		*name = "too long a name";
		return longname;
	}
}

struct mark {
	uint32_t flags;
	uint64_t mask;
	enum dirfd dirfd;
};

static void call_mark(const struct mark *usual)
{
	static const uint32_t actions[] = { 1, 1, 2, 2, 0x80 };
	const char *path, *path_name;
	char group_name[16];
	int group = any_group(group_name, sizeof(group_name)), shared;
	uint64_t first, flags, dirfd;
	struct mark mark;
	long got;

	if (usual) { /* what earlier calls of the episode have been about */
		mark = *usual;
		mark.flags |= PICK(actions) | (percent(15) ? 0x20 : percent(10) ? 0x440 : 0);
		if (percent(40))
			mark.mask = any_mask(mark.flags);
	} else {
		mark.flags = any_mark_flags();
		mark.mask = any_mask(mark.flags);
		mark.dirfd = percent(25) ? CWD : below(DIRFDS);
	}
	dirfds[GROUP] = group;
	path = any_path(mark.dirfd, &path_name, &shared);
	if (usual && percent(80)) {
		path_name = path = "e/file";
		shared = 0;
	}
	if (shared)
		mark.mask &= ~PERMISSION_EVENTS;
	first = dirty(group);
	flags = dirty(mark.flags);
	dirfd = dirty(dirfds[mark.dirfd]);
	got = syscall(SYS_fanotify_mark, first, flags, mark.mask, dirfd, path);
	printf("mark %s flags=0x%x mask=0x%llx dirfd=%s path=%s", group_name, mark.flags,
	       (unsigned long long)mark.mask, dirfd_names[mark.dirfd], path_name);
	result(got);
}

static int opened(const char *path, int flags)
{
	int descriptor = open(path, flags | O_CLOEXEC);

	if (descriptor < 0)
		err(2, "%s", path);
	return descriptor;
}

static void prepare(void)
{
	int ends[2];

	if (chdir(directory))
		err(2, "%s", directory);
	page = sysconf(_SC_PAGESIZE);
	edge = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (edge == MAP_FAILED || munmap(edge + page, page) || pipe2(ends, O_CLOEXEC))
		err(2, "preparations");
	memset(toolong, '/', sizeof(toolong) - 1);
	for (size_t i = 0; i < sizeof(longest) - 2; i += 2)
		memcpy(longest + i, "./", 2);
	longest[sizeof(longest) - 2] = 'e';
	memset(longname, 'n', sizeof(longname) - 1);
	dirfds[CWD] = AT_FDCWD;
	dirfds[EXT4] = opened("e", O_RDONLY);
	dirfds[EXT4_PATH] = opened("e/dir", O_PATH);
	dirfds[XFS] = opened("x", O_RDONLY);
	dirfds[FILE_FD] = opened("e/file", O_RDONLY);
	dirfds[FILE_PATH] = opened("e/file", O_PATH);
	dirfds[LINK_PATH] = opened("e/link", O_PATH | O_NOFOLLOW);
	close(open("e/deleted", O_CREAT | O_WRONLY, 0600));
	dirfds[DELETED] = opened("e/deleted", O_RDONLY);
	unlink("e/deleted");
	dirfds[PIPE] = ends[0];
	dirfds[CLOSED] = 1000;
	dirfds[MINUS_ONE] = -1;
	inotify_fd = syscall(SYS_inotify_init1, O_CLOEXEC);
	for (int i = 0; i < GROUPS; i++)
		groups[i] = -1;
}

static void give_up_root(uid_t uid)
{
	if (setgroups(0, NULL) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid))
		err(2, "uid %u", uid);
}

int main(int argc, char **argv)
{
	struct mark usual[2] = { 0 };

	if (argc < 4)
		errx(2, "usage: calls SEED COUNT DIRECTORY [UID]");
	state = strtoull(argv[1], NULL, 0);
	directory = argv[3];
	prepare();
	if (argc > 4)
		give_up_root(atoi(argv[4]));
	for (long call = 0, count = atol(argv[2]); call < count; call++) {
		unsigned int way = below(100);

		if (call % EPISODE == 0) {
			const uint32_t types[] = { 0, 0x100, 0x100, 0x10 };

			for (int i = 0; i < GROUPS; i++)
				let_go(&groups[i]);
			let_go(&copy);
			for (int i = 0; i < 2; i++) {
				usual[i].flags = PICK(types);
				usual[i].mask = plain_mask(usual[i].flags);
				usual[i].dirfd = CWD;
			}
		}
		printf("%ld ", call);
		if (call % EPISODE < GROUPS) {
			call_init(call % EPISODE, 1);
		} else if (way < 15) {
			call_init(below(GROUPS), 0);
		} else if (way < 18) {
			unsigned int slot = below(GROUPS);

			printf("close g%u\n", slot);
			let_go(&groups[slot]);
		} else if (way < 21) {
			unsigned int slot = below(GROUPS);

			let_go(&copy);
			copy = dup(groups[slot]);
			printf("dup g%u\n", slot);
		} else {
			call_mark(way < 65 ? &usual[below(2)] : NULL);
		}
	}
	return 0;
}
