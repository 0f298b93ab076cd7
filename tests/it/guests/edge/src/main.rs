//! A guest of WasmEdge's socket extension, built on its published crate.
//!
//!   edge echo PORT             a TCP server that sends back what it gets, one connection after the other
//!   edge std-echo PORT         the same, accepting through the standard library: both `sock_accept`s are imported
//!   edge udp-echo PORT         a UDP server that sends back what it gets
//!   edge send HOST PORT TEXT   what a TCP server answers
//!   edge udp-send HOST PORT TEXT
//!   edge look-up NAME          addresses, one a line
//!   edge refused HOST PORT     how a connection fails, without blocking: by polling, then by `SO_ERROR`
//!   edge redis HOST PORT       sets a value and reads it back
//!   edge postgres HOST PORT USER PASSWORD QUERY

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::time::Duration;
use std::{env, process, thread};

use wasmedge_wasi_socket::poll::{self, Subscription};
use wasmedge_wasi_socket::socket::{AddressFamily, Socket, SocketType};
use wasmedge_wasi_socket::{TcpListener, TcpStream, UdpSocket, nslookup};

mod postgres;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match act(&words) {
        Ok(text) => println!("{text}"),
        Err(error) => {
            eprintln!("edge: {error}");
            process::exit(1);
        }
    }
}

fn act(words: &[&str]) -> io::Result<String> {
    match words {
        ["echo", port] => {
            let listener = TcpListener::bind(format!("0.0.0.0:{port}"), false)?;
            loop {
                let (stream, _) = listener.accept(false)?;
                echo(stream)?;
            }
        }
        ["std-echo", port] => {
            let listener = TcpListener::bind(format!("0.0.0.0:{port}"), false)?;
            // SAFETY: the descriptor is given up by its owner.
            let listener = unsafe { std::net::TcpListener::from_raw_fd(listener.as_raw_fd().into_raw_fd()) };
            loop {
                echo(listener.accept()?.0)?;
            }
        }
        ["udp-echo", port] => {
            let socket = UdpSocket::bind(format!("0.0.0.0:{port}"))?;
            let mut buffer = [0; 2048];
            loop {
                let (length, from) = socket.recv_from(&mut buffer)?;
                socket.send_to(&buffer[..length], from)?;
            }
        }
        ["send", host, port, text] => {
            let mut stream = dial(host, port)?;
            stream.write_all(text.as_bytes())?;
            stream.shutdown(Shutdown::Write)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        }
        ["udp-send", host, port, text] => {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.as_ref().set_recv_timeout(Some(Duration::from_millis(500)))?;
            let to = resolve(host, port)?;
            let mut buffer = [0; 2048];
            let mut tries = 0;
            let (length, from) = loop {
                socket.send_to(text.as_bytes(), to)?;
                match socket.recv_from(&mut buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock && tries < 40 => tries += 1,
                    received => break received?,
                }
            };
            if from != to {
                return Err(io::Error::other(format!("{from} answered for {to}")));
            }
            Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
        }
        ["look-up", name] => {
            let mut found: Vec<String> = nslookup(name, "http")?.iter().map(|to| to.ip().to_string()).collect();
            found.sort();
            found.dedup();
            Ok(found.join("\n"))
        }
        ["refused", host, port] => refused(resolve(host, port)?),
        ["redis", host, port] => {
            let mut stream = dial(host, port)?;
            let set = redis(&mut stream, &["SET", "greeting", "hello"])?;
            let got = redis(&mut stream, &["GET", "greeting"])?;
            Ok(format!("{set}{got}"))
        }
        ["postgres", host, port, user, password, query] => postgres::query(dial(host, port)?, user, password, query),
        other => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("not a deed: {other:?}"))),
    }
}

fn resolve(host: &str, port: &str) -> io::Result<SocketAddr> {
    let port = port.parse().map_err(io::Error::other)?;
    let found = nslookup(host, "http")?;
    let first = found.first().ok_or(io::ErrorKind::NotFound)?;
    Ok(SocketAddr::new(first.ip(), port))
}

/// Connects, trying again while the other is not there yet.
fn dial(host: &str, port: &str) -> io::Result<TcpStream> {
    let mut tries = 0;
    loop {
        match resolve(host, port).and_then(TcpStream::connect) {
            Err(_) if tries < 100 => tries += 1,
            connected => return connected,
        }
        thread::sleep(Duration::from_millis(200));
    }
}

fn echo(mut stream: impl Read + Write) -> io::Result<()> {
    let mut buffer = [0; 64 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}

fn refused(to: SocketAddr) -> io::Result<String> {
    let socket = Socket::new(AddressFamily::Inet4, SocketType::Stream)?;
    socket.set_nonblocking(true)?;
    let begun = match socket.connect(&to) {
        Ok(()) => "connected at once".to_owned(),
        Err(error) => error.to_string(),
    };
    let events = poll::poll(&[Subscription::io(7, &socket, false, true, None)])?;
    let failed = socket.take_error().expect_err("nothing listens there");
    Ok(format!("{begun}\n{} event\n{:?}", events.len(), failed.kind()))
}

/// One command of the Redis protocol (RESP2), and the line or string it is answered with.
fn redis(stream: &mut TcpStream, words: &[&str]) -> io::Result<String> {
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 512];
    loop {
        let length = stream.read(&mut buffer)?;
        answer.extend(&buffer[..length]);
        let lines = answer.windows(2).filter(|pair| pair == b"\r\n").count();
        if length == 0 || lines >= if answer.starts_with(b"$") { 2 } else { 1 } {
            return Ok(String::from_utf8_lossy(&answer).replace("\r\n", " "));
        }
    }
}
