//! Requests of a trivial `wasi:http` component: a fresh instance for each beside `wasmtime serve` of the same version and with the
//! same component, and, with `reuse`, the CPU time of a request beside that of a native hyper handler. Run by `benches/run`.

#[expect(dead_code, reason = "the benchmarks use a part of it")]
#[path = "support/figure.rs"]
mod figure;
#[expect(dead_code, reason = "the benchmarks use a part of it")]
#[path = "support/load.rs"]
mod load;
#[expect(dead_code, reason = "the benchmarks use a part of it")]
#[path = "support/peers.rs"]
mod peers;
#[expect(dead_code, reason = "the benchmarks use a part of what the scenarios use")]
#[path = "../tests/it/support/mod.rs"]
mod support;

use std::convert::Infallible;
use std::error::Error;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use figure::median;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use support::project::free_port;
use support::{Guest, Project};
use tokio::task::JoinSet;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const PATH: &str = "/say/hi";
/// Connections at once.
const CONNECTIONS: usize = 16;
/// How long each is asked in a round.
const TIME: Duration = Duration::from_secs(3);
const ROUNDS: usize = 7;

/// A server of a round.
struct Server {
    name: &'static str,
    port: u16,
    process: u32,
    rates: Vec<f64>,
    /// CPU time of a request, in seconds.
    costs: Vec<f64>,
}

fn main() -> Outcome {
    // This program is the native server as well, in a process of its own: only so its CPU time is its own.
    let mut arguments = std::env::args().skip_while(|argument| argument != "--native").skip(1);
    if let Some(port) = arguments.next() {
        return native(port.parse()?);
    }
    let (fresh, reuse, theirs, hyper) = (free_port(), free_port(), free_port(), free_port());
    let one = |more: &str| format!("services: {{ web: {{ image: ./relay.wasm, ports: [\"${{PORT}}:8080\"]{more} }} }}");
    let ours = Project::wasm(&one("")).guest(Guest::Relay).with("PORT", fresh);
    let kept = Project::wasm(&one(", x-wasm: { http: { reuse: true } }")).guest(Guest::Relay).with("PORT", reuse);
    ours.up();
    kept.up();
    let supervisor = |project: &Project| -> Outcome<u32> {
        Ok(u32::try_from(*project.supervisors().first().ok_or("no supervisor runs")?)?)
    };
    let wasmtime = peers::wasmtime()?;
    let mut peer = Command::new(wasmtime);
    peer.args(["serve", "-Scli", "--max-instance-reuse-count", "1", "--addr", &format!("127.0.0.1:{theirs}")]);
    let peer = Ended(peer.arg(Guest::Relay.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    let native = Ended(Command::new(std::env::current_exe()?).args(["--native", &hyper.to_string()]).spawn()?);
    let server = |name, port, process| Server { name, port, process, rates: Vec::new(), costs: Vec::new() };
    let mut servers = [
        server("wcompose, fresh instances", fresh, supervisor(&ours)?),
        server("wasmtime serve", theirs, peer.0.id()),
        server("wcompose, reuse", reuse, supervisor(&kept)?),
        server("native hyper", hyper, native.0.id()),
    ];
    for server in &servers {
        load::answering(server.port, PATH)?;
    }
    for round in 0..=ROUNDS {
        // Each has every place in a round once.
        servers.rotate_left(1);
        for server in &mut servers {
            let before = load::computed(server.process)?;
            let rate = load::rate(server.port, PATH, CONNECTIONS, TIME)?;
            let taken = (load::computed(server.process)? - before).as_secs_f64();
            // The first round warms the caches.
            if round > 0 {
                server.rates.push(rate);
                server.costs.push(taken / (rate * TIME.as_secs_f64()));
            }
        }
    }
    let find = |name: &str| servers.iter().find(|server| server.name == name).ok_or("every server was measured");
    let (ours, theirs) = (find("wcompose, fresh instances")?, find("wasmtime serve")?);
    let (kept, hyper) = (find("wcompose, reuse")?, find("native hyper")?);
    for server in [ours, theirs, kept, hyper] {
        say(&format!(
            "{:<28} {:>8.0} requests a second, {:>6.1} µs of CPU each\n",
            server.name,
            median(server.rates.iter().copied()),
            median(server.costs.iter().copied()) * 1e6
        ))?;
    }
    let faster = ratio(&ours.rates, &theirs.rates);
    let dearer = ratio(&kept.costs, &hyper.costs);
    say(&format!("fresh instances: {faster:.2}x the requests a second of wasmtime serve; aim: 1.3x\n"))?;
    say(&format!("reuse: {dearer:.2}x the CPU time of a native handler; aim: 2.5x at most\n"))
}

/// The median of the ratios of each round.
fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    median(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs))
}

/// A process that is not left behind.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The same answer from a handler of native code.
fn native(port: u16) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let service = service_fn(|_| async {
                Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(b"hi"))))
            });
            connections
                .spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    })
}

fn say(text: &str) -> Outcome {
    Ok(io::stdout().write_all(text.as_bytes())?)
}
