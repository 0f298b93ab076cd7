//! From exec to the first byte of an answer, compiled code cached: a tiny component, and one of Python with 18 MB. Beside it the
//! exec of `wcompose version`, which is what starting the binary costs. Run by `benches/run`.

#[path = "support/figure.rs"]
mod figure;
#[expect(dead_code, reason = "the benchmarks use a part of it")]
#[path = "support/peers.rs"]
mod peers;
#[expect(dead_code, reason = "the benchmarks use a part of what the scenarios use")]
#[path = "../tests/it/support/mod.rs"]
mod support;

use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use figure::Figure;
use rustix::process::Signal;
use support::project::free_port;
use support::{Guest, PATIENCE, Project, now};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    first_byte("exec to first byte, tiny component", &Guest::Relay.path(), "aim: 10 ms")?;
    match peers::python() {
        Ok(python) => first_byte("exec to first byte, Python component", &python, "aim: 60 ms"),
        Err(error) => Ok(writeln!(io::stdout(), "no Python component: {error}")?),
    }
}

fn first_byte(what: &str, component: &Path, note: &str) -> Outcome {
    let port = free_port();
    let project =
        Project::wasm("services: { web: { image: ./web.wasm, ports: [\"${PORT}:8080\"] } }").with("PORT", port);
    fs::copy(component, project.folder().join("web.wasm"))?;
    let mut figure = Figure::new(what, "wcompose version");
    for turn in 0..21 {
        let start = now();
        let running = project.start(&["up"]);
        ask(port)?;
        let first = start.elapsed();
        running.signal(Signal::INT);
        running.end();

        let start = now();
        // Waited for by the system: a polled end would be the poll's, not the program's.
        let version = project.command(&["version"]).output()?;
        assert!(version.status.success(), "`version` works");
        // The first turn warms the caches.
        if turn > 0 {
            figure.take(first, start.elapsed());
        }
    }
    figure.print(note);
    Ok(())
}

/// Asks until the first byte of an answer is there.
fn ask(port: u16) -> Outcome {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let start = now();
    while start.elapsed() < PATIENCE {
        let answered = TcpStream::connect(address).and_then(|mut stream| {
            stream.write_all(b"GET /say/hi HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
            stream.read_exact(&mut [0])
        });
        match answered {
            Ok(()) => return Ok(()),
            Err(_) => thread::sleep(Duration::from_micros(200)),
        }
    }
    Err("no answer".into())
}
