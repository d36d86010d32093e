// SPDX-License-Identifier: GPL-2.0-only
/*
 * Prints the events of a raw fanotify stream, standard input, one line each:
 *
 *   fs_error fsid=%08x:%08x handle=TYPE:HEX|none error=%d count=%u pid=%d fd=%d pidfd=%d|none
 *   overflow pid=%d fd=%d pidfd=%d|none
 *   other mask=%llx pid=%d fd=%d
 *
 * each followed by " extra=TYPE:PAD:HEX" for every record that the event has no field
 * for. Ends with 1 and a line on standard error at the first thing that is not right.
 *
 * It knows the layouts from <linux/fanotify.h> alone and shares nothing with
 * fserr_bpf.codec, so that a mistake there shows.
 */
#include <linux/fanotify.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* struct file_handle has a flexible array; <fcntl.h> and <linux/fanotify.h> differ on it */
struct handle_head {
	__u32 handle_bytes;
	__s32 handle_type;
};

struct parsed {
	struct fanotify_event_info_fid fid;
	struct handle_head handle;
	const unsigned char *f_handle;
	struct fanotify_event_info_pidfd pidfd;
	struct fanotify_event_info_error error;
	int has_fid, has_pidfd, has_error;
};

static void fail(const char *why, size_t at)
{
	fprintf(stderr, "offset %zu: %s\n", at, why);
	exit(1);
}

static void print_hex(FILE *out, const unsigned char *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		fprintf(out, "%02x", bytes[i]);
}

/* The known record of this type into "to", once, or 0 if it has another type. */
static int take(const struct fanotify_event_info_header *header, int type, int *seen, void *to,
		size_t size, const unsigned char *record, size_t at)
{
	if (header->info_type != type)
		return 0;
	if ((*seen)++)
		fail("a record twice", at);
	if (header->len < size)
		fail("a record that is too short", at);
	memcpy(to, record, size);
	return 1;
}

static void take_handle(struct parsed *parsed, const unsigned char *record, size_t at)
{
	size_t head = sizeof(parsed->fid) + sizeof(parsed->handle);

	if (parsed->fid.hdr.len < head)
		fail("no room for a file handle", at);
	memcpy(&parsed->handle, record + sizeof(parsed->fid), sizeof(parsed->handle));
	if (parsed->handle.handle_bytes > parsed->fid.hdr.len - head)
		fail("a file handle that is too long", at);
	parsed->f_handle = record + head;
}

static void print_pidfd(const struct parsed *parsed)
{
	if (parsed->has_pidfd)
		printf(" pidfd=%d", parsed->pidfd.pidfd);
	else
		printf(" pidfd=none");
}

static void print_fs_error(const struct fanotify_event_metadata *event,
			   const struct parsed *parsed, size_t at)
{
	if (!parsed->has_fid || !parsed->has_error)
		fail("an error without its records", at);
	printf("fs_error fsid=%08x:%08x handle=", (__u32)parsed->fid.fsid.val[0],
	       (__u32)parsed->fid.fsid.val[1]);
	/* FILEID_INVALID: an error of the superblock */
	if (!parsed->handle.handle_bytes && parsed->handle.handle_type == 0xff) {
		printf("none");
	} else {
		printf("%d:", parsed->handle.handle_type);
		print_hex(stdout, parsed->f_handle, parsed->handle.handle_bytes);
	}
	printf(" error=%d count=%u pid=%d fd=%d", parsed->error.error, parsed->error.error_count,
	       event->pid, event->fd);
	print_pidfd(parsed);
}

/* The records of one event; what has no field goes to "extra" as text. */
static void walk(const unsigned char *event, size_t start, size_t end, __u64 mask, size_t at,
		 struct parsed *parsed, FILE *extra)
{
	int error = mask == FAN_FS_ERROR, overflow = mask == FAN_Q_OVERFLOW;
	struct fanotify_event_info_header header;

	for (; start < end; start += header.len) {
		const unsigned char *record = event + start;

		if (end - start < sizeof(header))
			fail("no room for a record's header", at + start);
		memcpy(&header, record, sizeof(header));
		if (header.len < sizeof(header) || header.len > end - start || header.len % 4)
			fail("a record of a wrong length", at + start);
		if (error && take(&header, FAN_EVENT_INFO_TYPE_FID, &parsed->has_fid, &parsed->fid,
				  sizeof(parsed->fid), record, at + start)) {
			take_handle(parsed, record, at + start);
			continue;
		}
		if (error && take(&header, FAN_EVENT_INFO_TYPE_ERROR, &parsed->has_error,
				  &parsed->error, sizeof(parsed->error), record, at + start))
			continue;
		if ((error || overflow) &&
		    take(&header, FAN_EVENT_INFO_TYPE_PIDFD, &parsed->has_pidfd, &parsed->pidfd,
			 sizeof(parsed->pidfd), record, at + start))
			continue;
		fprintf(extra, " extra=%u:%u:", header.info_type, header.pad);
		print_hex(extra, record + sizeof(header), header.len - sizeof(header));
	}
}

static size_t print_event(const unsigned char *stream, size_t at, size_t length)
{
	struct fanotify_event_metadata event;
	struct parsed parsed = { 0 };
	char *text = NULL;
	size_t text_length;
	FILE *extra = open_memstream(&text, &text_length);

	if (!extra)
		fail("no memory", at);
	if (length - at < sizeof(event))
		fail("the stream ends within an event", at);
	memcpy(&event, stream + at, sizeof(event));
	if (event.vers != FANOTIFY_METADATA_VERSION)
		fail("another version of the metadata", at);
	if (event.metadata_len < sizeof(event) || event.metadata_len > event.event_len)
		fail("a wrong metadata_len", at);
	if (event.event_len > length - at)
		fail("the stream ends within an event", at);
	walk(stream + at, event.metadata_len, event.event_len, event.mask, at, &parsed, extra);
	if (event.mask == FAN_FS_ERROR) {
		print_fs_error(&event, &parsed, at);
	} else if (event.mask == FAN_Q_OVERFLOW) {
		printf("overflow pid=%d fd=%d", event.pid, event.fd);
		print_pidfd(&parsed);
	} else {
		printf("other mask=%llx pid=%d fd=%d", (unsigned long long)event.mask, event.pid,
		       event.fd);
	}
	fclose(extra);
	puts(text);
	free(text);
	return event.event_len;
}

int main(void)
{
	size_t length = 0, room = 1 << 16, got, at = 0;
	unsigned char *stream = malloc(room);

	while (stream && (got = fread(stream + length, 1, room - length, stdin)) > 0) {
		length += got;
		if (length == room)
			stream = realloc(stream, room *= 2);
	}
	if (!stream || ferror(stdin))
		fail("standard input cannot be read", length);
	while (at < length)
		at += print_event(stream, at, length);
	free(stream);
	return 0;
}
