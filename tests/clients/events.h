// SPDX-License-Identifier: GPL-2.0-only
/*
 * Prints events of fanotify in the lines of tests/reader.c, from the layouts of
 * <linux/fanotify.h>:
 *
 *   fs_error fsid=%08x:%08x handle=TYPE:HEX|none error=%d count=%u pid=%d fd=%d pidfd=%d|none
 *   overflow pid=%d fd=%d pidfd=%d|none
 *   other mask=%llx pid=%d fd=%d
 */
#include <err.h>
#include <linux/fanotify.h>
#include <stdio.h>
#include <string.h>

/* struct file_handle has a flexible array; <fcntl.h> and <linux/fanotify.h> differ on it */
struct handle_head {
	__u32 handle_bytes;
	__s32 handle_type;
};

static unsigned int events_shown, errors_shown;

static void print_hex(const unsigned char *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		printf("%02x", bytes[i]);
}

/* The info record of this type, NULL if the event has none. */
static const unsigned char *record_of(const struct fanotify_event_metadata *event, int type)
{
	const unsigned char *record = (const unsigned char *)event + event->metadata_len;
	const unsigned char *end = (const unsigned char *)event + event->event_len;
	struct fanotify_event_info_header header;

	for (; record < end; record += header.len) {
		memcpy(&header, record, sizeof(header));
		if (header.len < sizeof(header) || header.len > end - record)
			errx(3, "a record of a wrong length");
		if (header.info_type == type)
			return record;
	}
	return NULL;
}

static void print_fs_error(const struct fanotify_event_metadata *event)
{
	const unsigned char *fid_record = record_of(event, FAN_EVENT_INFO_TYPE_FID);
	const unsigned char *error_record = record_of(event, FAN_EVENT_INFO_TYPE_ERROR);
	struct fanotify_event_info_error error;
	struct fanotify_event_info_fid fid;
	struct handle_head handle;

	if (!fid_record || !error_record)
		errx(3, "an error without its records");
	memcpy(&fid, fid_record, sizeof(fid));
	memcpy(&handle, fid_record + sizeof(fid), sizeof(handle));
	memcpy(&error, error_record, sizeof(error));
	printf("fs_error fsid=%08x:%08x handle=", (__u32)fid.fsid.val[0], (__u32)fid.fsid.val[1]);
	if (!handle.handle_bytes && handle.handle_type == 0xff) { /* of the superblock */
		printf("none");
	} else {
		printf("%d:", handle.handle_type);
		print_hex(fid_record + sizeof(fid) + sizeof(handle), handle.handle_bytes);
	}
	printf(" error=%d count=%u", error.error, error.error_count);
	errors_shown += error.error_count;
}

static void print_event(const struct fanotify_event_metadata *event)
{
	const unsigned char *pidfd = record_of(event, FAN_EVENT_INFO_TYPE_PIDFD);
	int number;

	if (event->vers != FANOTIFY_METADATA_VERSION)
		errx(3, "another version of the metadata");
	if (event->mask == FAN_FS_ERROR)
		print_fs_error(event);
	else if (event->mask == FAN_Q_OVERFLOW)
		printf("overflow");
	else
		printf("other mask=%llx", (unsigned long long)event->mask);
	printf(" pid=%d fd=%d", event->pid, event->fd);
	if (event->mask == FAN_FS_ERROR || event->mask == FAN_Q_OVERFLOW) {
		printf(" pidfd=");
		if (pidfd) {
			memcpy(&number, pidfd + sizeof(struct fanotify_event_info_header),
			       sizeof(number));
			printf("%d", number);
		} else {
			printf("none");
		}
	}
	putchar('\n');
	events_shown++;
}

/* Prints all events of a read. */
static void print_events(const void *buffer, ssize_t length)
{
	const struct fanotify_event_metadata *event = buffer;

	for (; FAN_EVENT_OK(event, length); event = FAN_EVENT_NEXT(event, length))
		print_event(event);
	if (length)
		errx(3, "the read ends within an event");
	fflush(stdout);
}
