// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pseudo-random arguments of fanotify_init(2) and fanotify_mark(2): some that make sense, with
 * every flag and mask bit by itself and many together, and some that no kernel knows.
 *
 * Numbers instead of names: <linux/fanotify.h> may be older than the kernel.
 */
#include <fcntl.h>
#include <stdint.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define FS_ERROR 0x8000ULL

static uint64_t state; /* of the generator: splitmix64 */

static uint64_t any(void)
{
	uint64_t z = state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static unsigned int below(unsigned int limit)
{
	return any() % limit;
}

static int percent(unsigned int chance)
{
	return below(100) < chance;
}

#define PICK(array) ((array)[below(COUNT_OF(array))])

/* Every bit of "bits" with a chance of one in "rarity". */
static uint64_t some(uint64_t bits, unsigned int rarity)
{
	uint64_t chosen = 0;

	for (int bit = 0; bit < 64; bit++)
		if (bits >> bit & 1 && !below(rarity))
			chosen |= 1ULL << bit;
	return chosen;
}

/* The kernel takes int arguments: what is above must not matter. */
static uint64_t dirty(uint32_t value)
{
	return value | (percent(5) ? any() << 32 : 0);
}

static uint32_t any_init_flags(int plain)
{
	static const uint32_t good[] = {
		0x200, 0x200, 0x200, 0x200, 0x600, 0xe00, 0x1e00, 0x400, 0xc00, 0x0, 0x4000,
	};
	unsigned int way = below(plain ? 70 : 100);

	if (way < 40) /* CLOEXEC and NONBLOCK */
		return PICK(good) | some(0x3, 2);
	if (way < 70) /* and both UNLIMITED, PIDFD, TID, FD_ERROR */
		return PICK(good) | some(0x33, 2) | some(0x2180, 6);
	if (way < 80)
		return some(0xc, 2) | some(0x3ff3, 4);
	if (way < 92)
		return some(0x7fff, 4) | some(0x8000 | 0x10000, 10);
	return some(0x3f83, 4) | 1U << below(32) | some(0xffff8000, 16);
}

static uint32_t any_event_flags(void)
{
	static const uint32_t good[] = {
		O_RDONLY, O_WRONLY, O_RDWR, O_CLOEXEC, O_APPEND, O_NONBLOCK, O_NOATIME, O_SYNC,
		O_DSYNC, 0100000 /* O_LARGEFILE */,
	};

	if (percent(60))
		return 0;
	return percent(70) ? PICK(good) | PICK(good) : (uint32_t)1 << below(32);
}

/* For a mark of the type in "flags", and accepted by most groups. */
static uint64_t plain_mask(uint32_t flags)
{
	/* MODIFY, OPEN, CLOSE_WRITE, ACCESS, ONDIR, EVENT_ON_CHILD */
	static const uint64_t uses[] = { 0x2, 0x20, 0x8, 0x1, 0x40000000, 0x8000000 };
	/* ATTRIB, DELETE_SELF, CREATE, MOVED_FROM: not for mounts */
	static const uint64_t changes[] = { 0x4, 0x400, 0x100, 0x40 };
	uint64_t mask = percent(50) ? PICK(uses) | PICK(uses) : 0;

	if (flags & 0x100)
		mask |= percent(80) ? FS_ERROR : 0;
	if (!(flags & 0x10))
		mask |= percent(25) ? PICK(changes) : 0;
	return mask ? mask : flags & 0x100 ? FS_ERROR : 0x20;
}

static uint64_t any_mask(uint32_t flags)
{
	/* OPEN_PERM, RENAME, Q_OVERFLOW, MNT_ATTACH, PRE_ACCESS, FS_ERROR */
	static const uint64_t special[] = {
		0x10000, 0x10000000, 0x4000, 0x1000000, 0x100000, FS_ERROR,
	};
	unsigned int way = below(100);

	if (way < 65)
		return plain_mask(flags);
	if (way < 75)
		return plain_mask(flags) | PICK(special);
	if (way < 88)
		return some(0x5f07ffffULL, 6) | some(FS_ERROR, 2);
	if (way < 94)
		return some(FS_ERROR, 2) | 1ULL << below(64);
	return way < 97 ? some(~0ULL, 8) : 0;
}

static uint32_t any_mark_flags(void)
{
	static const uint32_t actions[] = { 1, 1, 1, 2, 0x80 };
	static const uint32_t types[] = { 0, 0x100, 0x100, 0x100, 0x10, 0x110 };
	/* DONT_FOLLOW, ONLYDIR, the two ways to ignore, EVICTABLE */
	static const uint32_t extras[] = { 0, 0, 0, 0, 4, 8, 0x20, 0x60, 0x400, 0x440, 0x200 };
	unsigned int way = below(100);

	if (way < 80)
		return PICK(actions) | PICK(types) | PICK(extras);
	if (way < 92)
		return PICK(actions) | some(0x7ff, 4);
	return some(0x7ff, 3) | 1U << below(32);
}
