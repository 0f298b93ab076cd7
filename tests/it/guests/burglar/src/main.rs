//! Tries to get at what it was not given, by WASI preview 1 calls as they are: the standard library would tidy up the paths
//! first. Each argument is one attempt, its words parted by spaces; each gets one line of what came of it, `got …` or the number of
//! the error.
//!
//!   read FOLDER PATH             open, following links, and read
//!   write FOLDER PATH TEXT       open or create, and write
//!   list FOLDER PATH             open as a folder
//!   symlink FOLDER TARGET NAME
//!   link FOLDER PATH FOLDER NAME
//!   rename FOLDER PATH FOLDER NAME
//!   descriptors                  every descriptor that answers
//!   open FOLDER PATH COUNT       open so many times, and say how often it worked
//!
//! FOLDER is a descriptor: 3 is the root, then come the mounts.

use std::process::ExitCode;

#[cfg(not(target_os = "wasi"))]
compile_error!("a guest for WASI preview 1");

#[repr(C)]
struct Buffer {
    at: *mut u8,
    length: usize,
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn path_open(
        folder: i32,
        follow: i32,
        path: *const u8,
        length: usize,
        flags: i32,
        rights: u64,
        inherited: u64,
        more: i32,
        opened: *mut i32,
    ) -> i32;
    fn path_symlink(target: *const u8, target_length: usize, folder: i32, name: *const u8, length: usize) -> i32;
    fn path_link(
        folder: i32,
        follow: i32,
        path: *const u8,
        length: usize,
        to: i32,
        name: *const u8,
        name_length: usize,
    ) -> i32;
    fn path_rename(folder: i32, path: *const u8, length: usize, to: i32, name: *const u8, name_length: usize) -> i32;
    fn fd_read(descriptor: i32, buffers: *const Buffer, count: usize, read: *mut usize) -> i32;
    fn fd_write(descriptor: i32, buffers: *const Buffer, count: usize, written: *mut usize) -> i32;
    fn fd_close(descriptor: i32) -> i32;
    fn fd_fdstat_get(descriptor: i32, stat: *mut [u64; 3]) -> i32;
}

const READ: u64 = 1 << 1;
const WRITE: u64 = 1 << 6;
const LIST: u64 = 1 << 14;
const CREATE: i32 = 1;
const FOLDER: i32 = 2;
const FOLLOW: i32 = 1;

fn main() -> ExitCode {
    for attempt in std::env::args().skip(1) {
        let words: Vec<&str> = attempt.split(' ').collect();
        let outcome = match attempted(&words) {
            Ok(got) => format!("got {got}"),
            Err(error) => format!("error {error}"),
        };
        println!("{attempt}: {outcome}");
    }
    ExitCode::SUCCESS
}

fn attempted(words: &[&str]) -> Result<String, i32> {
    match words {
        ["read", folder, path] => {
            let opened = open(number(folder), path, 0, READ)?;
            let mut bytes = [0; 256];
            let (buffer, mut length) = (Buffer { at: bytes.as_mut_ptr(), length: bytes.len() }, 0);
            // SAFETY: the buffer and the length outlive the call.
            let read = unsafe { fd_read(opened, &buffer, 1, &mut length) };
            close(opened);
            checked(read).map(|()| String::from_utf8_lossy(&bytes[..length]).trim_end().to_owned())
        }
        ["write", folder, path, text] => {
            let opened = open(number(folder), path, CREATE, WRITE)?;
            let (buffer, mut length) = (Buffer { at: text.as_ptr().cast_mut(), length: text.len() }, 0);
            // SAFETY: the buffer and the length outlive the call; the host only reads the buffer.
            let written = unsafe { fd_write(opened, &buffer, 1, &mut length) };
            close(opened);
            checked(written).map(|()| "in".to_owned())
        }
        ["list", folder, path] => {
            close(open(number(folder), path, FOLDER, LIST)?);
            Ok("in".to_owned())
        }
        ["symlink", folder, target, name] => {
            // SAFETY: the texts outlive the call.
            let linked =
                unsafe { path_symlink(target.as_ptr(), target.len(), number(folder), name.as_ptr(), name.len()) };
            checked(linked).map(|()| "a link".to_owned())
        }
        [deed @ ("link" | "rename"), folder, path, to, name] => {
            let (from, to) = (number(folder), number(to));
            // SAFETY: the texts outlive the calls.
            let done = unsafe {
                match *deed {
                    "link" => path_link(from, 0, path.as_ptr(), path.len(), to, name.as_ptr(), name.len()),
                    _ => path_rename(from, path.as_ptr(), path.len(), to, name.as_ptr(), name.len()),
                }
            };
            checked(done).map(|()| "through".to_owned())
        }
        ["descriptors"] => {
            let mut stat = [0; 3];
            // SAFETY: the structure has 24 bytes and outlives the calls.
            let answers = |descriptor: &i32| unsafe { fd_fdstat_get(*descriptor, &mut stat) } == 0;
            let open: Vec<String> = (0..1000).filter(answers).map(|number| number.to_string()).collect();
            Ok(open.join(","))
        }
        ["open", folder, path, count] => {
            let opened = (0..number(count)).filter(|_| open(number(folder), path, 0, READ).is_ok()).count();
            Ok(opened.to_string())
        }
        _ => Err(-1),
    }
}

fn open(folder: i32, path: &str, flags: i32, rights: u64) -> Result<i32, i32> {
    let mut opened = -1;
    // SAFETY: the text and the number outlive the call.
    let error = unsafe { path_open(folder, FOLLOW, path.as_ptr(), path.len(), flags, rights, rights, 0, &mut opened) };
    checked(error).map(|()| opened)
}

fn close(descriptor: i32) {
    // SAFETY: a call without pointers.
    unsafe { fd_close(descriptor) };
}

fn checked(error: i32) -> Result<(), i32> {
    if error == 0 { Ok(()) } else { Err(error) }
}

fn number(text: &str) -> i32 {
    text.parse().unwrap_or(-1)
}
