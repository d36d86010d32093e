// SPDX-License-Identifier: GPL-2.0-only
//! reader PATH COUNT STATUS: reads FAN_FS_ERROR of the file system of PATH, with raw system calls.
//!
//! Prints "ready" when it is marked, then the lines of events.h until they stand for COUNT
//! errors; ends with STATUS.

use std::arch::asm;
use std::ffi::CString;
use std::io::Error;

const READ: isize = 0;
const FANOTIFY_INIT: isize = 300;
const FANOTIFY_MARK: isize = 301;
const FAN_REPORT_FID: isize = 0x200;
const FAN_MARK_ADD_FILESYSTEM: isize = 0x101;
const FAN_FS_ERROR: u64 = 0x8000;
const AT_FDCWD: isize = -100;

fn syscall(number: isize, arguments: [isize; 5]) -> isize {
    let mut result = number;
    unsafe {
        asm!("syscall", inout("rax") result, in("rdi") arguments[0], in("rsi") arguments[1],
             in("rdx") arguments[2], in("r10") arguments[3], in("r8") arguments[4],
             out("rcx") _, out("r11") _);
    }
    result
}

fn checked(what: &str, result: isize) -> isize {
    if result < 0 {
        eprintln!("{what}: {}", Error::from_raw_os_error(-result as i32));
        std::process::exit(1);
    }
    result
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(wide)
}

/// Prints one event; the errors that it stands for.
fn show(event: &[u8]) -> u64 {
    let mask = number::<8>(event, 8);
    let (fd, pid) = (number::<4>(event, 16) as i32, number::<4>(event, 20) as i32);
    if mask != FAN_FS_ERROR {
        println!("other mask={mask:x} pid={pid} fd={fd}");
        return 0;
    }
    let mut at = number::<2>(event, 6) as usize;
    let (mut place, mut error, mut count) = (String::new(), 0, 0);
    while at < event.len() {
        match event[at] {
            1 => {
                let (low, high) = (number::<4>(event, at + 4), number::<4>(event, at + 8));
                let length = number::<4>(event, at + 12) as usize;
                let kind = number::<4>(event, at + 16);
                let handle: String =
                    event[at + 20..at + 20 + length].iter().map(|b| format!("{b:02x}")).collect();
                let handle =
                    if length == 0 { "none".to_string() } else { format!("{kind}:{handle}") };
                place = format!("fsid={low:08x}:{high:08x} handle={handle}");
            }
            5 => {
                error = number::<4>(event, at + 4) as i32;
                count = number::<4>(event, at + 8);
            }
            _ => {}
        }
        at += number::<2>(event, at + 2) as usize;
    }
    println!("fs_error {place} error={error} count={count} pid={pid} fd={fd} pidfd=none");
    count
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let path = CString::new(words[1].as_bytes()).unwrap();
    let wanted: u64 = words[2].parse().unwrap();
    let group = checked("fanotify_init", syscall(FANOTIFY_INIT, [FAN_REPORT_FID, 0, 0, 0, 0]));
    let mark = [
        group,
        FAN_MARK_ADD_FILESYSTEM,
        FAN_FS_ERROR as isize,
        AT_FDCWD,
        path.as_ptr() as isize,
    ];
    checked("fanotify_mark", syscall(FANOTIFY_MARK, mark));
    println!("ready");
    let mut buffer = [0u8; 4096];
    let mut errors = 0;
    while errors < wanted {
        let arguments = [group, buffer.as_mut_ptr() as isize, buffer.len() as isize, 0, 0];
        let length = checked("read", syscall(READ, arguments)) as usize;
        let mut at = 0;
        while at < length {
            let end = at + number::<4>(&buffer, at) as usize;
            errors += show(&buffer[at..end]);
            at = end;
        }
    }
    std::process::exit(words[3].parse().unwrap());
}
