//! `sock_getsockopt` and `sock_setsockopt`: options of level `SOL_SOCKET`, kept and told back; the connections behind are
//! tuned by the host, the time-outs and `SO_ERROR` alone have an effect.

use std::time::Duration;

use super::errno::Errno;
use super::memory::{Memory, Pointer, offset};
use super::socket::{Kind, Socket};

/// The only level.
const SOL_SOCKET: u32 = 0;

const REUSEADDR: u32 = 0;
const TYPE: u32 = 1;
const ERROR: u32 = 2;
const LINGER: u32 = 9;
const RCVTIMEO: u32 = 11;
const SNDTIMEO: u32 = 12;
const ACCEPTCONN: u32 = 13;
const BINDTODEVICE: u32 = 14;

/// What a guest set.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    /// `SO_RCVTIMEO`.
    pub(super) receive_timeout: Option<Duration>,
    /// `SO_SNDTIMEO`.
    pub(super) send_timeout: Option<Duration>,
    linger: (i32, i32),
    /// Plain numbers by name: each is set at most once, and there are few names.
    numbers: Vec<(u32, i32)>,
}

impl Options {
    fn number(&self, name: u32) -> i32 {
        let set = self.numbers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        // Linux's own defaults of SNDBUF (5) and RCVBUF (6), and RCVLOWAT (10).
        set.unwrap_or(match name {
            5 => 87_040,
            6 => 131_072,
            10 => 1,
            _ => 0,
        })
    }

    fn set_number(&mut self, name: u32, value: i32) {
        self.numbers.retain(|(known, _)| *known != name);
        self.numbers.push((name, value));
    }
}

/// Writes an option's value to `flag` and its length to `size`, which holds the room there is.
pub(super) fn get(
    socket: &mut Socket,
    memory: &mut Memory<'_>,
    level: u32,
    name: u32,
    flag: Pointer,
    size: Pointer,
) -> Result<(), Errno> {
    if level != SOL_SOCKET {
        return Err(Errno::NOPROTOOPT);
    }
    let room = memory.u32(size)?;
    let time = |time: Option<Duration>| {
        let time = time.unwrap_or_default();
        [(time.as_secs() as i64).to_le_bytes(), i64::from(time.subsec_micros()).to_le_bytes()].concat()
    };
    let value = match name {
        TYPE => (match socket.kind {
            Kind::Datagram => 1_i32,
            Kind::Stream => 2,
        })
        .to_le_bytes()
        .to_vec(),
        ACCEPTCONN => i32::from(socket.is_listening()).to_le_bytes().to_vec(),
        LINGER => [socket.options.linger.0.to_le_bytes(), socket.options.linger.1.to_le_bytes()].concat(),
        RCVTIMEO => time(socket.options.receive_timeout),
        SNDTIMEO => time(socket.options.send_timeout),
        BINDTODEVICE => Vec::new(),
        // Told once: nothing may fail after it is taken.
        ERROR => vec![0; 4],
        REUSEADDR..ACCEPTCONN => socket.options.number(name).to_le_bytes().to_vec(),
        _ => return Err(Errno::NOPROTOOPT),
    };
    let length = u32::try_from(value.len()).expect("options are short");
    if room < length {
        return Err(Errno::INVAL);
    }
    memory.put(flag, &value)?;
    memory.put_u32(size, length)?;
    if name == ERROR {
        let error = socket.take_error().map_or(0, |errno| u32::from(errno.0));
        memory.put_u32(flag, error)?;
    }
    Ok(())
}

/// Sets an option from the `size` bytes at `flag`.
pub(super) fn set(
    socket: &mut Socket,
    memory: &Memory<'_>,
    level: u32,
    name: u32,
    flag: Pointer,
    size: u32,
) -> Result<(), Errno> {
    if level != SOL_SOCKET {
        return Err(Errno::NOPROTOOPT);
    }
    let wide = |length: u32| if size < length { Err(Errno::INVAL) } else { Ok(()) };
    let time = || -> Result<Option<Duration>, Errno> {
        wide(16)?;
        let (seconds, micros) = (memory.u64(flag)? as i64, memory.u64(offset(flag, 8)?)? as i64);
        let (Ok(seconds), Ok(micros)) = (u64::try_from(seconds), u32::try_from(micros)) else {
            return Err(Errno::INVAL);
        };
        if micros >= 1_000_000 {
            return Err(Errno::INVAL);
        }
        Ok(Some(Duration::new(seconds, micros * 1000)).filter(|time| !time.is_zero()))
    };
    match name {
        RCVTIMEO => socket.options.receive_timeout = time()?,
        SNDTIMEO => socket.options.send_timeout = time()?,
        LINGER => {
            wide(8)?;
            socket.options.linger = (memory.i32(flag)?, memory.i32(offset(flag, 4)?)?);
        }
        // Read only.
        TYPE | ERROR | ACCEPTCONN => return Err(Errno::NOPROTOOPT),
        // A guest has no devices to choose from.
        BINDTODEVICE => return Err(Errno::PERM),
        REUSEADDR..ACCEPTCONN => {
            wide(4)?;
            let value = memory.i32(flag)?;
            socket.options.set_number(name, value);
        }
        _ => return Err(Errno::NOPROTOOPT),
    }
    Ok(())
}
