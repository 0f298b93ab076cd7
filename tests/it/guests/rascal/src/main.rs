//! A bad neighbour: takes without end what it can get.
//!
//!   rascal loop              computes
//!   rascal bomb              takes memory and touches all of it, again and again
//!   rascal log LENGTH        writes lines of so many bytes
//!   rascal flood HOST PORT   opens connections and keeps them, until none more are had; then again
//!   rascal hold HOST PORT    the same once, says how many, and keeps them

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;
use std::{env, hint, thread};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["loop"] => loop {
            hint::spin_loop();
        },
        ["bomb"] => loop {
            bomb();
        },
        ["log", length] => log(length.parse().unwrap_or(100)),
        ["flood", host, port] => loop {
            drop(connections(host, port));
        },
        ["hold", host, port] => {
            let held = connections(host, port);
            println!("held {}", held.len());
            loop {
                thread::sleep(Duration::from_secs(60));
            }
        }
        _ => panic!("no such deed: {words:?}"),
    }
}

/// Megabyte by megabyte, until no more is given; an allocation that fails is no panic here.
fn bomb() {
    let mut all: Vec<Vec<u8>> = Vec::new();
    if all.try_reserve(64 * 1024).is_err() {
        return;
    }
    loop {
        let mut more = Vec::new();
        if more.try_reserve_exact(1 << 20).is_err() {
            println!("took {} MB", all.len());
            return;
        }
        more.resize(1 << 20, 1);
        all.push(hint::black_box(more));
    }
}

fn log(length: usize) {
    let mut line = "x".repeat(length);
    line.push('\n');
    let mut out = std::io::stdout();
    loop {
        out.write_all(line.as_bytes()).expect("standard output takes lines");
    }
}

fn connections(host: &str, port: &str) -> Vec<TcpStream> {
    let port = port.parse().expect("a port");
    let mut open = Vec::new();
    while let Ok(stream) = TcpStream::connect((host, port)) {
        open.push(stream);
    }
    open
}
