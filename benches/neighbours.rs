//! How much a bad neighbour costs the others: the time of a request to a `wasi:http` component and to a program that serves by
//! sockets, quiet and attacked in turns. An attacker loops, takes all memory it can get, writes lines without end, opens
//! connections without end, or gets hundreds of requests that never end. Run by `benches/run`.

#[path = "support/figure.rs"]
mod figure;
#[expect(dead_code, reason = "the benchmarks use a part of it")]
#[path = "support/load.rs"]
mod load;
#[expect(dead_code, reason = "the benchmarks use a part of what the scenarios use")]
#[path = "../tests/it/support/mod.rs"]
mod support;

use std::error::Error;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::Duration;

use figure::{Figure, median};
use load::Connection;
use support::project::free_port;
use support::{Guest, Project};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The victims, a victim of the flood, and those who attack.
const COMPOSE: &str = r#"
services:
  component: { image: ./relay.wasm, ports: ["${COMPONENT}:8080"] }
  program:   { image: ./peer.wasm, command: [serve, "80"], ports: ["${PROGRAM}:80"] }
  flooded:   { image: ./peer.wasm, command: [echo, "7"] }
  loop:      { image: ./rascal.wasm, command: [loop] }
  bomb:      { image: ./rascal.wasm, command: [bomb], mem_limit: 1g }
  log:       { image: ./rascal.wasm, command: [log, "1000"] }
  flood:     { image: ./rascal.wasm, command: [flood, flooded, "7"] }
  spinner:   { image: ./relay.wasm, ports: ["${SPINNER}:8080"] }
"#;

/// Attacks by a service that is started for them.
const ATTACKS: [&str; 4] = ["loop", "bomb", "log", "flood"];
/// Quiet and attacked, so many times.
const ROUNDS: usize = 7;
/// Requests of a round.
const REQUESTS: usize = 300;

fn main() -> Outcome {
    let (component, program, spinner) = (free_port(), free_port(), free_port());
    let project = Project::wasm(COMPOSE).guest(Guest::Peer).guest(Guest::Relay).guest(Guest::Rascal);
    let project = project.with("COMPONENT", component).with("PROGRAM", program).with("SPINNER", spinner);
    project.up();
    project.run(&[["stop", "-t", "0"].as_slice(), &ATTACKS].concat()).well();
    load::answering(component, "/say/hi")?;
    let supervisor = u32::try_from(*project.supervisors().first().ok_or("no supervisor runs")?)?;
    let before = load::memory(supervisor)?;
    for attack in ATTACKS {
        let figures = attacked(component, program, || {
            project.run(&["start", attack]).well();
            || drop(project.run(&["stop", "-t", "0", attack]).well())
        })?;
        print(attack, &figures)?;
    }
    // Requests that never end, all at once; they are cut off when their service is.
    let figures = attacked(component, program, || {
        project.run(&["start", "spinner"]).well();
        let open: Vec<_> = (0..200).filter_map(|_| endless(spinner).ok()).collect();
        || {
            drop(open);
            project.run(&["stop", "-t", "0", "spinner"]).well();
        }
    })?;
    print("200 endless requests", &figures)?;
    let after = load::memory(supervisor)?;
    say(&format!("supervisor's memory: {} MB before, {} MB after all attacks\n", before >> 20, after >> 20))
}

/// A request whose answer never comes.
fn endless(port: u16) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.write_all(b"GET /spin HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
    Ok(stream)
}

/// Times of both victims, quiet and while `attack` is under way; it answers with what ends it.
fn attacked<E: FnOnce()>(component: u16, program: u16, attack: impl Fn() -> E) -> Outcome<[Figure; 2]> {
    let mut figures = [Figure::new("component, a request", "quiet"), Figure::new("program, a request", "quiet")];
    for _ in 0..ROUNDS {
        let quiet = [times(component)?, times_anew(program)?];
        let end = attack();
        thread::sleep(Duration::from_millis(300));
        let loud = [times(component)?, times_anew(program)?];
        end();
        for (figure, (loud, quiet)) in figures.iter_mut().zip(loud.into_iter().zip(quiet)) {
            figure.take(loud, quiet);
        }
    }
    Ok(figures)
}

/// The median over one connection.
fn times(port: u16) -> io::Result<Duration> {
    let mut connection = Connection::open(port, "/say/hi")?;
    let times: io::Result<Vec<f64>> = (0..REQUESTS).map(|_| connection.ask().map(|time| time.as_secs_f64())).collect();
    Ok(Duration::from_secs_f64(median(times?.into_iter())))
}

/// The median over connections of their own: the program answers one request a connection.
fn times_anew(port: u16) -> io::Result<Duration> {
    let once = || Connection::open(port, "/say/hi")?.ask().map(|time| time.as_secs_f64());
    let times: io::Result<Vec<f64>> = (0..REQUESTS).map(|_| once()).collect();
    Ok(Duration::from_secs_f64(median(times?.into_iter())))
}

fn print(attack: &str, figures: &[Figure]) -> Outcome {
    say(&format!("while a neighbour does this: {attack}\n"))?;
    for figure in figures {
        figure.print("aim: 2x");
    }
    Ok(())
}

fn say(text: &str) -> Outcome {
    Ok(io::stdout().write_all(text.as_bytes())?)
}
