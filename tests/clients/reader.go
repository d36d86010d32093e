// SPDX-License-Identifier: GPL-2.0-only

// reader PATH COUNT STATUS: reads FAN_FS_ERROR of the file system of PATH.
//
// Prints "ready" when it is marked, then the lines of events.h until they stand for COUNT
// errors; ends with STATUS. The descriptor is made non-blocking and handed to os.NewFile
// before it is marked, so the runtime has it in its epoll from the start.
package main

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

const (
	fanotifyInit = 300
	fanotifyMark = 301
	// FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_FID
	initFlags = 0x203
	// FAN_MARK_ADD | FAN_MARK_FILESYSTEM
	markFlags = 0x101
	fsError   = 0x8000
)

var atFdCwd = -100

func checked(what string, result uintptr, number syscall.Errno) uintptr {
	if number != 0 {
		fmt.Fprintln(os.Stderr, what, number)
		os.Exit(1)
	}
	return result
}

// show prints one event and returns the errors that it stands for.
func show(event []byte) int {
	order := binary.LittleEndian
	mask := order.Uint64(event[8:])
	fd, pid := int32(order.Uint32(event[16:])), int32(order.Uint32(event[20:]))
	if mask != fsError {
		fmt.Printf("other mask=%x pid=%d fd=%d\n", mask, pid, fd)
		return 0
	}
	place, number, count := "", int32(0), 0
	for at := int(order.Uint16(event[6:])); at < len(event); {
		record := event[at:]
		switch record[0] {
		case 1:
			handle, length := "none", order.Uint32(record[12:])
			if length > 0 {
				handle = fmt.Sprintf("%d:%s", order.Uint32(record[16:]),
					hex.EncodeToString(record[20:20+length]))
			}
			place = fmt.Sprintf("fsid=%08x:%08x handle=%s", order.Uint32(record[4:]),
				order.Uint32(record[8:]), handle)
		case 5:
			number = int32(order.Uint32(record[4:]))
			count = int(order.Uint32(record[8:]))
		}
		at += int(order.Uint16(record[2:]))
	}
	fmt.Printf("fs_error %s error=%d count=%d pid=%d fd=%d pidfd=none\n",
		place, number, count, pid, fd)
	return count
}

func main() {
	wanted, _ := strconv.Atoi(os.Args[2])
	status, _ := strconv.Atoi(os.Args[3])
	got, _, number := syscall.RawSyscall(fanotifyInit, initFlags, 0, 0)
	fd := checked("fanotify_init", got, number)
	group := os.NewFile(fd, "fanotify")
	path, _ := syscall.BytePtrFromString(os.Args[1])
	got, _, number = syscall.RawSyscall6(fanotifyMark, fd, markFlags, fsError,
		uintptr(atFdCwd), uintptr(unsafe.Pointer(path)), 0)
	checked("fanotify_mark", got, number)
	fmt.Println("ready")
	buffer := make([]byte, 4096)
	for errors := 0; errors < wanted; {
		length, failed := group.Read(buffer)
		if failed != nil {
			fmt.Fprintln(os.Stderr, failed)
			os.Exit(1)
		}
		for at := 0; at < length; {
			end := at + int(binary.LittleEndian.Uint32(buffer[at:]))
			errors += show(buffer[at:end])
			at = end
		}
	}
	os.Exit(status)
}
