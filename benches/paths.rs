//! What wcompose is held to beside containers, each figure with a baseline, taken turn by turn in one run so that a busy machine
//! disturbs both alike. Run by `benches/run`.

#[path = "support/figure.rs"]
mod figure;
#[expect(dead_code, reason = "the benchmarks use a part of what the scenarios use")]
#[path = "../tests/it/support/mod.rs"]
mod support;

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use figure::Figure;
use serde_json::json;
use support::engine::{import, text};
use support::project::free_port;
use support::{Engine, Guest, Project, now};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wcompose::net::agent;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    if let Some(engine) = Engine::answering() {
        round_trips(&engine)?;
        ten_services(&engine)?;
    }
    Ok(())
}

/// One small message there and back from a Linux container: to another container, to a listener of this process through
/// an agent, to a guest, and to a guest whose agent is reached through the engine.
fn round_trips(engine: &Engine) -> Outcome {
    let (port, other) = (free_port(), free_port());
    let compose = r#"
services:
  client: { image: "${PEER}", command: [serve, "80"], ports: ["${PORT}:80"] }
  echo:   { image: "${PEER}", command: [echo, "7"] }
  guest:  { image: ./peer.wasm, command: [echo, "7"] }
"#;
    let project = Project::on(engine, compose).guest(Guest::Peer).with("PORT", port);
    let carried = Project::on(engine, compose).guest(Guest::Peer).with("PORT", other).with("WCOMPOSE_AGENT", "attach");
    project.up();
    carried.up();
    let listener = Listener::start(engine, &project)?;
    let ask = |project: &Project, port: u16, host: &str| -> Outcome<Duration> {
        Ok(Duration::from_nanos(project.ask(port, &format!("/rounds/{host}/7/2000")).parse()?))
    };
    let rounds = |host: &str| ask(&project, port, host);
    let mut through_agent = Figure::new("container → listener through the agent", "container → container");
    let mut to_guest = Figure::new("container → guest that echoes", "container → container");
    let mut to_carried = Figure::new("container → guest, its agent through the engine", "container → container");
    for _ in 0..10 {
        let base = rounds("echo")?;
        through_agent.take(rounds("listener")?, base);
        to_guest.take(rounds("guest")?, base);
        to_carried.take(ask(&carried, other, "guest")?, base);
    }
    listener.end(engine);
    through_agent.print("aim: 1.1x");
    to_guest.print("reported");
    to_carried.print("reported");
    Ok(())
}

/// An echo listener of this process on the project's network: an agent of its own makes the socket.
struct Listener {
    container: String,
    image: String,
    stop: tokio::sync::oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Listener {
    fn start(engine: &Engine, project: &Project) -> Outcome<Self> {
        let door = project.root().join("run/bench");
        let tag = std::process::id().to_string();
        let image = format!("wcompose-bench-agent:{tag}");
        import(&engine.socket, "wcompose-bench-agent", &tag, "agent", agent::BINARY);
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, listening) = mpsc::channel();
        let (told, token) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            let served = runtime.and_then(|runtime| {
                runtime.block_on(async {
                    let door = agent::Rendezvous::prepare(&door, "echo")?;
                    let _ = told.send((door.folder().to_owned(), door.token().to_owned()));
                    let agent = door.accept(&[], support::PATIENCE).await?;
                    let listener = agent.listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7))).await?;
                    let _ = ready.send(Ok(()));
                    tokio::select! {
                        ended = echo(listener) => ended,
                        _ = stopped => Ok(()),
                    }
                })
            });
            if let Err(error) = served {
                let _ = ready.send(Err(error));
            }
        });
        let (folder, token) = token.recv_timeout(support::PATIENCE)?;
        let network = format!("{}_default", project.name);
        let created = engine.post(
            "/containers/create",
            &json!({
                "Image": image,
                "Env": [format!("{}={token}", agent::TOKEN)],
                "HostConfig": {
                    "NetworkMode": network,
                    "CapDrop": ["ALL"],
                    "Sysctls": { "net.ipv4.ip_unprivileged_port_start": "0" },
                    "Mounts": [{ "Type": "bind", "Source": folder, "Target": agent::MOUNT, "ReadOnly": true }],
                },
                "NetworkingConfig": { "EndpointsConfig": { network: { "Aliases": ["listener"] } } },
            }),
        );
        let container = text(&created["Id"]);
        engine.post(&format!("/containers/{container}/start"), &json!({}));
        listening.recv_timeout(support::PATIENCE)??;
        Ok(Self { container, image, stop, thread })
    }

    fn end(self, engine: &Engine) {
        let _ = self.stop.send(());
        let _ = self.thread.join();
        engine.call("DELETE", &format!("/containers/{}?force=1", self.container));
        engine.call("DELETE", &format!("/images/{}?force=1", self.image));
    }
}

/// Sends back what comes, one connection after another.
async fn echo(mut listener: agent::Acceptor) -> io::Result<()> {
    loop {
        let mut stream = poll_fn(|cx| listener.poll_accept(cx)).await?.io;
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut chunk).await {
            stream.write_all(&chunk[..length]).await?;
        }
    }
}

/// `up -d` of ten Linux services, beside the same calls made by hand as fast as the engine takes them.
fn ten_services(engine: &Engine) -> Outcome {
    let services: String =
        (0..10).map(|n| format!("  s{n}: {{ image: \"${{PEER}}\", command: [sleep, \"600\"] }}\n")).collect();
    let project = Project::on(engine, &format!("services:\n{services}"));
    let mut up = Figure::new("up -d of ten Linux services", "the raw API");
    for turn in 0..6 {
        let start = now();
        project.up();
        let ours = start.elapsed();
        project.run(&["down", "-t", "0"]).well();
        let raw = by_hand(engine)?;
        // The first turn warms the caches.
        if turn > 0 {
            up.take(ours, raw);
        }
    }
    up.print("aim: 1.05x");
    Ok(())
}

fn by_hand(engine: &Engine) -> Outcome<Duration> {
    let network = format!("wcompose-bench-{}", std::process::id());
    let names: Vec<String> = (0..10).map(|n| format!("{network}-{n}")).collect();
    let all_at_once = |call: &(dyn Fn(&str) + Sync)| {
        thread::scope(|scope| names.iter().for_each(|name| drop(scope.spawn(move || call(name)))));
    };
    let start = now();
    engine.post("/networks/create", &json!({ "Name": network, "CheckDuplicate": true }));
    all_at_once(&|name| {
        let body = json!({ "Image": engine.peer(), "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": network } });
        engine.post(&format!("/containers/create?name={name}"), &body);
    });
    all_at_once(&|name| {
        engine.post(&format!("/containers/{name}/start"), &json!({}));
    });
    let taken = start.elapsed();
    all_at_once(&|name| {
        engine.call("DELETE", &format!("/containers/{name}?force=1"));
    });
    engine.call("DELETE", &format!("/networks/{network}"));
    Ok(taken)
}
