//! An HTTP client for measuring: connections that stay open, and as little of its own time as there can be.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// How long something may take that must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection that stays open.
pub struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Connection {
    /// To a port of this host, for one path.
    pub fn open(port: u16, path: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost:{port}\r\n\r\n").into_bytes();
        Ok(Self { stream, request, answer: Vec::new() })
    }

    /// One request: how long until its whole answer was there. An answer that is not 200 is an error.
    pub fn ask(&mut self) -> io::Result<Duration> {
        let start = now();
        self.stream.write_all(&self.request)?;
        self.answer.clear();
        let mut chunk = [0; 16 * 1024];
        while !is_whole(&self.answer) {
            match self.stream.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => self.answer.extend_from_slice(&chunk[..length]),
            }
        }
        let taken = start.elapsed();
        if self.answer.starts_with(b"HTTP/1.1 200") {
            Ok(taken)
        } else {
            Err(io::Error::other(String::from_utf8_lossy(&self.answer).into_owned()))
        }
    }
}

/// Whether head and body are there: by `content-length`, or to the last chunk.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let body = &answer[end + 4..];
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    match length {
        Some(length) => body.len() >= length,
        None => body.ends_with(b"0\r\n\r\n"),
    }
}

/// Answers a second over so many connections at once, for so long.
pub fn rate(port: u16, path: &str, connections: usize, time: Duration) -> io::Result<f64> {
    let start = now();
    let counts: Vec<io::Result<usize>> = thread::scope(|scope| {
        let runs: Vec<_> = (0..connections)
            .map(|_| {
                scope.spawn(move || {
                    let mut connection = Connection::open(port, path)?;
                    let mut count = 0;
                    while start.elapsed() < time {
                        connection.ask()?;
                        count += 1;
                    }
                    Ok(count)
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap_or_else(|_| Err(io::Error::other("a client failed")))).collect()
    });
    let total: usize = counts.into_iter().sum::<io::Result<usize>>()?;
    Ok(total as f64 / start.elapsed().as_secs_f64())
}

/// Waits until a port answers.
pub fn answering(port: u16, path: &str) -> io::Result<()> {
    let start = now();
    loop {
        match Connection::open(port, path).and_then(|mut connection| connection.ask()) {
            Ok(_) => return Ok(()),
            Err(error) if start.elapsed() > PATIENCE => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Asks, each time over a connection of its own, until the first byte of an answer is there.
pub fn first_byte(port: u16, path: &str) -> io::Result<()> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let start = now();
    loop {
        let answered = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).and_then(|mut stream| {
            stream.write_all(request.as_bytes())?;
            stream.read_exact(&mut [0])
        });
        match answered {
            Ok(()) => return Ok(()),
            Err(error) if start.elapsed() > PATIENCE => return Err(error),
            Err(_) => thread::sleep(Duration::from_micros(200)),
        }
    }
}

/// CPU time that a process has taken, in its own and the kernel's code.
pub fn computed(process: u32) -> io::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    // In hundredths of a second.
    Ok(Duration::from_millis((ticks(11) + ticks(12)) * 10))
}

/// Memory that a process has in use, in bytes.
pub fn memory(process: u32) -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[expect(clippy::disallowed_methods, reason = "benchmarks measure real time")]
fn now() -> Instant {
    Instant::now()
}
