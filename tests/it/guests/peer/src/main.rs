//! The other end of every scenario: one program for both kinds of service, compiled to a static Linux binary, to a WASI
//! preview 1 module and to a preview 2 component, so that a test can put the same deeds on either side.
//!
//!   peer serve PORT        an HTTP server that does what its path says: `/send/db/7000/hello`
//!   peer echo PORT         a TCP server that sends back what it gets
//!   peer udp PORT          a UDP server that sends back what it gets, with the sender's address before it
//!   peer serve6 PORT       `serve` on IPv6; udp6 likewise
//!   peer check PORT        exit code 0 when `serve` answers on this machine
//!   peer VERB ARGUMENT…    one deed; its result goes to standard output

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

/// A test writes another version over this one in the compiled file.
static VERSION: &str = "version 000";

fn main() {
    #[cfg(unix)]
    signal_hook::flag::register_conditional_shutdown(
        signal_hook::consts::SIGTERM,
        0,
        std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true)),
    )
    .expect("SIGTERM can be handled");

    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["serve", port] => listen(port, serve),
        ["echo", port] => listen(port, echo),
        ["udp", port] => answer_datagrams("0.0.0.0", port),
        ["udp6", port] => answer_datagrams("::", port),
        ["serve6", port] => listen_at("::", port, serve),
        ["check", port] => act(&["get", "127.0.0.1", port, "say", "alive"]),
        deed => act(deed),
    };
    match outcome {
        Ok(text) => println!("{text}"),
        Err(error) => {
            eprintln!("peer: {error}");
            process::exit(1);
        }
    }
}

/// One deed, the same from the command line and over HTTP.
fn act(words: &[&str]) -> io::Result<String> {
    match words {
        ["say", text] => Ok((*text).to_owned()),
        ["version"] => Ok(std::hint::black_box(VERSION).to_owned()),
        ["again", host, port, count, path @ ..] => again(host, port, number(count)?, &path.join("/")),
        ["args"] => Ok(env::args().collect::<Vec<_>>().join("\n")),
        ["env"] => {
            let mut lines: Vec<String> = env::vars().map(|(name, value)| format!("{name}={value}")).collect();
            lines.sort();
            Ok(lines.join("\n"))
        }
        ["env", name] => Ok(env::var(name).unwrap_or_else(|_| "unset".to_owned())),
        ["lookup", name] => {
            let mut addresses: Vec<String> =
                (*name, 0).to_socket_addrs()?.map(|address| address.ip().to_string()).collect();
            addresses.sort();
            addresses.dedup();
            Ok(addresses.join("\n"))
        }
        ["send", host, port, text] => send(host, port, text.as_bytes()),
        ["ask", host, port, text] => ask(host, port, text),
        ["dns", server, name, kind] => dns(server, name, kind),
        ["dns-over-tcp", server, name, kind] => dns_over_tcp(server, name, kind),
        ["get", host, port, path @ ..] => get(host, port, &path.join("/")),
        ["knock", host, port, count] => knock(host, number(port)? as u16, number(count)?),
        ["rounds", host, port, count] => rounds(host, port, number(count)? as usize),
        ["read", path] => fs::read_to_string(path),
        ["write", path, text] => fs::write(path, text).map(|()| "written".to_owned()),
        ["list", path] => {
            let mut names = fs::read_dir(path)?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<io::Result<Vec<_>>>()?;
            names.sort();
            Ok(names.join("\n"))
        }
        ["log", text] => {
            println!("{text}");
            eprintln!("{text} on stderr");
            Ok("logged".to_owned())
        }
        ["count", lines] => {
            for line in 1..=number(lines)? {
                println!("line {line}");
            }
            Ok("counted".to_owned())
        }
        ["terminals"] => Ok(terminals()),
        ["echo-lines"] => {
            println!("{}", terminals());
            for line in io::stdin().lines() {
                println!("heard {}", line?);
            }
            Ok("heard all".to_owned())
        }
        ["sleep", seconds] => {
            thread::sleep(Duration::from_secs(number(seconds)?));
            Ok("awake".to_owned())
        }
        ["exit", code] => {
            println!("leaving");
            process::exit(number(code)? as i32)
        }
        ["trap"] => fall_over(words.len()),
        ["spin"] => loop {
            std::hint::spin_loop();
        },
        _ => Err(io::Error::other(format!("no such deed: {words:?}"))),
    }
}

/// Which of the standard streams are a terminal.
fn terminals() -> String {
    let (input, output, errors) = (io::stdin().is_terminal(), io::stdout().is_terminal(), io::stderr().is_terminal());
    format!("stdin {input}, stdout {output}, stderr {errors}")
}

/// Two frames with names of their own, for the backtrace.
#[inline(never)]
fn fall_over(depth: usize) -> ! {
    reach_the_bottom(depth + 1)
}

#[inline(never)]
fn reach_the_bottom(depth: usize) -> ! {
    let nothing: Option<usize> = depth.checked_sub(100);
    panic!("nothing left: {}", nothing.expect("something was left"));
}

fn number(text: &str) -> io::Result<u64> {
    text.parse().map_err(|_| io::Error::other(format!("not a number: {text}")))
}

fn send(host: &str, port: &str, bytes: &[u8]) -> io::Result<String> {
    let mut stream = TcpStream::connect((host, number(port)? as u16))?;
    stream.write_all(bytes)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn get(host: &str, port: &str, path: &str) -> io::Result<String> {
    let request = format!("GET /{path} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n\r\n");
    let mut stream = TcpStream::connect((host, number(port)? as u16))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("no answer"))?;
    if head.split(' ').nth(1) == Some("200") { Ok(body.to_owned()) } else { Err(io::Error::other(body.to_owned())) }
}

/// So many requests over one connection: the different answers, in the order they first came.
fn again(host: &str, port: &str, count: u64, path: &str) -> io::Result<String> {
    let mut reader = BufReader::new(TcpStream::connect((host, number(port)? as u16))?);
    let mut answers: Vec<String> = Vec::new();
    for turn in 0..count {
        let request = format!("GET /{path} HTTP/1.1\r\nhost: {host}:{port}\r\n\r\n");
        reader.get_mut().write_all(request.as_bytes())?;
        let answer = answer(&mut reader).map_err(|error| io::Error::other(format!("request {turn}: {error}")))?;
        if !answers.contains(&answer) {
            answers.push(answer);
        }
    }
    Ok(answers.join(","))
}

/// So many connections, one after the other, none of which may be refused.
fn knock(host: &str, port: u16, count: u64) -> io::Result<String> {
    for turn in 0..count {
        TcpStream::connect((host, port)).map_err(|error| io::Error::other(format!("connection {turn}: {error}")))?;
        thread::sleep(Duration::from_millis(1));
    }
    Ok(format!("{count} times"))
}

/// The body of one answer with status 200; the connection stays.
fn answer(reader: &mut impl BufRead) -> io::Result<String> {
    let (mut status, mut length, mut chunked) = (String::new(), 0, false);
    reader.read_line(&mut status)?;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? <= 2 {
            break;
        }
        let header = header.to_ascii_lowercase();
        chunked |= header.starts_with("transfer-encoding: chunked");
        length = header.strip_prefix("content-length:").map_or(length, |value| value.trim().parse().unwrap_or(0));
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    } else {
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
    }
    let body = String::from_utf8_lossy(&body).into_owned();
    if status.contains(" 200 ") { Ok(body) } else { Err(io::Error::other(format!("{}: {body}", status.trim()))) }
}

/// How often and how long an answer is waited for: a datagram may be lost.
const PATIENCE: (usize, Duration) = (3, Duration::from_secs(3));

fn answer_datagrams(address: &str, port: &str) -> io::Result<String> {
    let socket = UdpSocket::bind((address, number(port)? as u16))?;
    println!("listening on {port}");
    let mut buffer = [0; 64 * 1024];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        let text = format!("{} said {}", from.ip().to_canonical(), String::from_utf8_lossy(&buffer[..length]));
        socket.send_to(text.as_bytes(), from)?;
    }
}

/// Sends a datagram and tells what comes back.
fn ask(host: &str, port: &str, text: &str) -> io::Result<String> {
    let answer = exchange((host, number(port)? as u16), text.as_bytes())?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A question to a name server, by datagram: its code, and the addresses it tells.
fn dns(server: &str, name: &str, kind: &str) -> io::Result<String> {
    read_answer(&exchange((server, 53), &question(name, kind)?)?)
}

fn exchange(to: (&str, u16), bytes: &[u8]) -> io::Result<Vec<u8>> {
    let to = to.to_socket_addrs()?.next().ok_or_else(|| io::Error::other("no address"))?;
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    let mut buffer = vec![0; 64 * 1024];
    for _ in 0..PATIENCE.0 {
        let start = Instant::now();
        socket.send(bytes)?;
        while start.elapsed() < PATIENCE.1 {
            match socket.recv(&mut buffer) {
                Ok(length) => return Ok(buffer[..length].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(5)),
                Err(error) => return Err(error),
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"))
}

/// The same by stream, each part of the answer read once, as old guests do.
fn dns_over_tcp(server: &str, name: &str, kind: &str) -> io::Result<String> {
    let question = question(name, kind)?;
    let mut stream = TcpStream::connect((server, 53))?;
    stream.write_all(&[&(question.len() as u16).to_be_bytes(), question.as_slice()].concat())?;
    let mut length = [0; 2];
    let mut answer = vec![0; 64 * 1024];
    if stream.read(&mut length)? != 2 {
        return Err(io::Error::other("half a length"));
    }
    let read = stream.read(&mut answer)?;
    if read != usize::from(u16::from_be_bytes(length)) {
        return Err(io::Error::other("half an answer"));
    }
    read_answer(&answer[..read])
}

/// RFC 1035, section 4: one question, with recursion wished.
fn question(name: &str, kind: &str) -> io::Result<Vec<u8>> {
    let kind = match kind {
        "A" => 1,
        "AAAA" => 28,
        other => number(other)? as u8,
    };
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, kind, 0, 1]);
    Ok(bytes)
}

fn read_answer(bytes: &[u8]) -> io::Result<String> {
    let fault = || io::Error::other(format!("no answer: {bytes:?}"));
    if bytes.get(..2) != Some(&[0x12, 0x34]) || bytes.len() < 12 {
        return Err(fault());
    }
    let mut words = vec![format!("code {}", bytes[3] & 15)];
    // Behind the question: its name, its type and its class.
    let mut at = behind_name(bytes, 12).ok_or_else(fault)? + 4;
    for _ in 0..u16::from_be_bytes([bytes[6], bytes[7]]) {
        // Behind the record's name: type, class, time to live, length.
        at = behind_name(bytes, at).ok_or_else(fault)?;
        let head = bytes.get(at..at + 10).ok_or_else(fault)?;
        let length = usize::from(u16::from_be_bytes([head[8], head[9]]));
        let data = bytes.get(at + 10..at + 10 + length).ok_or_else(fault)?;
        if let Ok(v4) = <[u8; 4]>::try_from(data) {
            words.push(IpAddr::from(v4).to_string());
        } else if let Ok(v6) = <[u8; 16]>::try_from(data) {
            words.push(IpAddr::from(v6).to_string());
        }
        at += 10 + length;
    }
    Ok(words.join(" "))
}

/// Where a name ends: with an empty label, or with a reference to another.
fn behind_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            192.. => return Some(at + 2),
            length => at += usize::from(length) + 1,
        }
    }
}

/// Median of so many round trips of a small message over one connection, in nanoseconds.
fn rounds(host: &str, port: &str, count: usize) -> io::Result<String> {
    let mut stream = TcpStream::connect((host, number(port)? as u16))?;
    stream.set_nodelay(true)?;
    let mut message = [7; 16];
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        times.push(start.elapsed().as_nanos());
    }
    times.sort_unstable();
    times.get(count / 2).map(u128::to_string).ok_or_else(|| io::Error::other("no rounds"))
}

type Service = fn(TcpStream) -> io::Result<()>;

fn listen(port: &str, service: Service) -> io::Result<String> {
    listen_at("0.0.0.0", port, service)
}

fn listen_at(address: &str, port: &str, service: Service) -> io::Result<String> {
    let listener = TcpListener::bind((address, number(port)? as u16))?;
    println!("listening on {port}");
    for stream in listener.incoming() {
        let stream = stream?;
        // A preview 2 component has one thread; there the connections take turns.
        if cfg!(unix) {
            thread::spawn(move || service(stream));
        } else if let Err(error) = service(stream) {
            eprintln!("peer: {error}");
        }
    }
    Ok(String::new())
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    // Not every kind of socket has it.
    let _ = stream.set_nodelay(true);
    let mut chunk = [0; 64 * 1024];
    loop {
        match stream.read(&mut chunk)? {
            0 => return stream.shutdown(Shutdown::Both),
            length => stream.write_all(&chunk[..length])?,
        }
    }
}

fn serve(stream: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(&stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let words: Vec<String> = first.split(' ').nth(1).unwrap_or("/").split('/').skip(1).map(decoded).collect();
    let outcome = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["caller"] => stream.peer_addr().map(|address| address.ip().to_string()),
        deed => act(deed),
    };
    let (status, body) = match outcome {
        Ok(body) => ("200 OK", body),
        Err(error) => ("500 Failed", error.to_string()),
    };
    let mut answer = String::new();
    let _ = write!(answer, "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    (&stream).write_all(answer.as_bytes())?;
    stream.shutdown(Shutdown::Write)
}

/// `%2F` → `/`, and the like.
fn decoded(word: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = word.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = (first == b'%').then(|| tail.get(..2)).flatten();
        match code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
