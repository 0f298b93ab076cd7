//! Agents in containers of the real engine, through the `docker` command. Skipped, loudly, where no engine answers;
//! required where `WCOMPOSE_REQUIRE_ENGINE=1`.

#![expect(clippy::print_stderr, reason = "a skipped test and what it left behind are to be seen")]

use std::fs;
use std::future::poll_fn;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::*;
use crate::model::InstanceName;
use crate::net::directory::{Directory, Presence};
use crate::net::stack::{Fabric, Families, NetError, Stack, StackNetwork, StackSpec};

const LIMIT: Duration = Duration::from_secs(60);
/// A Linux image with a shell, `wget` and `nc`.
const LINUX: &str = "busybox";

/// Runs `docker`; its standard output, or what went wrong.
fn docker(arguments: &[&str], input: &[u8]) -> Result<String, String> {
    let mut docker = Command::new("docker");
    docker.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = docker.spawn().map_err(|error| error.to_string())?;
    // A command that reads nothing closes its input early.
    let _ = child.stdin.take().expect("it is piped").write_all(input);
    let output = child.wait_with_output().expect("it ran");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// What a test made in the engine, removed with it: containers first.
struct Bench {
    id: String,
    made: Vec<[String; 3]>,
    runtime: TempDir,
}

impl Drop for Bench {
    fn drop(&mut self) {
        for [object, action, name] in self.made.iter().rev() {
            let force: &[&str] = if object == "network" { &[] } else { &["--force"] };
            let arguments = [&[object.as_str(), action.as_str()], force, &[name.as_str()]].concat();
            if let Err(error) = docker(&arguments, b"") {
                eprintln!("left behind: {object} {name}: {error}");
            }
        }
    }
}

impl Bench {
    /// The agent's image and a network, named after the test. `None` where no engine answers.
    fn new(test: &str) -> Option<Self> {
        let required = std::env::var_os("WCOMPOSE_REQUIRE_ENGINE").is_some_and(|value| value == "1");
        if let Err(error) = docker(&["version"], b"").and_then(|_| docker(&["image", "inspect", LINUX], b"")) {
            assert!(!required, "the engine, with the image {LINUX}, is required: {error}");
            eprintln!("SKIPPED {test}: no engine with the image {LINUX}: {error}");
            return None;
        }
        let id = format!("net-{test}-{}", std::process::id());
        let runtime = tempfile::Builder::new().prefix("wc").tempdir().expect("a folder");
        let mut bench = Self { id, made: Vec::new(), runtime };
        let mut layer = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(BINARY.len() as u64);
        header.set_mode(0o755);
        layer.append_data(&mut header, "agent", BINARY).expect("an archive");
        let layer = layer.into_inner().expect("an archive");
        let image = format!("{}:agent", bench.id);
        docker(&["import", "--change", "ENTRYPOINT [\"/agent\"]", "-", &image], &layer).expect("an image");
        bench.made.push(["image", "rm", &image].map(str::to_owned));
        docker(&["network", "create", &bench.id], b"").expect("a network");
        bench.made.push(["network", "rm", &bench.id].map(str::to_owned));
        Some(bench)
    }

    fn run(&mut self, name: &str, options: &[&str], image: &str, command: &[&str]) -> String {
        let name = format!("{}-{name}", self.id);
        let base = ["run", "--detach", "--name", &name, "--network", &self.id];
        self.made.push(["container", "rm", &name].map(str::to_owned));
        docker(&[&base, options, &[image], command].concat(), b"").expect("a container");
        name
    }

    /// An agent of its own rendezvous, with the privileges it gets in earnest.
    async fn agent(&mut self, name: &str, options: &[&str], volumes: &[String]) -> (Rendezvous, Agent, String) {
        let rendezvous = Rendezvous::prepare(&self.runtime.path().join("r"), name).expect("a rendezvous");
        let mount = format!("{}:{MOUNT}:ro", rendezvous.folder().display());
        let token = format!("{TOKEN}={}", rendezvous.token());
        let targets = format!("{VOLUMES}={}", volumes.join(":"));
        let safety = "--cap-drop=ALL --cap-add=CHOWN --read-only --security-opt=no-new-privileges --network-alias=web";
        let safety: Vec<&str> = safety.split(' ').collect();
        let options = [&safety, &["-v", &mount, "-e", &token, "-e", &targets][..], options].concat();
        let image = format!("{}:agent", self.id);
        let container = self.run(name, &options, &image, &[]);
        let agent = rendezvous.accept(volumes, LIMIT).await.expect("an agent");
        (rendezvous, agent, container)
    }

    /// An agent that carries, over the streams of `docker exec`.
    async fn carrying(&mut self, name: &str) -> (tokio::process::Child, Agent, String) {
        let token = format!("{TOKEN}=t0");
        let safety = "--cap-drop=ALL --read-only --security-opt=no-new-privileges --network-alias=web";
        let tmpfs = format!("--mount=type=tmpfs,target={MOUNT},tmpfs-size=65536,tmpfs-mode=0700");
        let options: Vec<&str> = safety.split(' ').chain([tmpfs.as_str(), "-e", &token]).collect();
        let image = format!("{}:agent", self.id);
        let container = self.run(name, &options, &image, &[AWAIT]);
        let mut lender = tokio::process::Command::new("docker");
        lender.args(["exec", "-i", &container, "/agent", LEND]).kill_on_drop(true);
        let mut lender = lender.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("docker runs");
        let (input, output) = (lender.stdin.take().expect("piped"), lender.stdout.take().expect("piped"));
        let pieces = futures_util::stream::unfold(output, |mut output| async move {
            let mut piece = vec![0; 64 * 1024];
            match output.read(&mut piece).await {
                Ok(0) => None,
                Ok(length) => {
                    piece.truncate(length);
                    Some((Ok(piece.into()), output))
                }
                Err(error) => Some((Err(error), output)),
            }
        });
        let agent = Agent::carrying(Box::pin(pieces), Box::pin(input), "t0", LIMIT).await.expect("an agent");
        (lender, agent, container)
    }

    fn address(&self, container: &str) -> IpAddr {
        let format = format!("{{{{(index .NetworkSettings.Networks \"{}\").IPAddress}}}}", self.id);
        let address = docker(&["inspect", "--format", &format, container], b"").expect("a container");
        address.parse().expect("an address")
    }

    fn stack(&self, fabric: &Arc<Fabric>, agent: &Agent, address: IpAddr) -> Stack {
        fabric.join(StackSpec {
            instance: InstanceName::new("web".into(), 1),
            networks: vec![StackNetwork {
                name: self.id.clone(),
                in_process: false,
                internal: false,
                families: Families::V4,
                names: vec!["web".to_owned()],
                addresses: vec![address],
            }],
            agent: Some(agent.clone()),
            egress: Vec::new(),
            extra_hosts: Vec::new(),
            sockets: 64,
            refusals: mpsc::channel(8).0,
        })
    }
}

/// Polls until a fact holds.
async fn eventually<T>(what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = fact() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, found).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

async fn exit_code(container: &str) -> String {
    let ended = || docker(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", container], b"").ok();
    eventually("the container's end", || ended()?.strip_prefix("exited ").map(str::to_owned)).await
}

#[test]
fn the_program_is_small_and_static() {
    assert_eq!(BINARY.get(..4), Some(b"\x7fELF".as_slice()));
    assert!(BINARY.len() < 24 * 1024, "{} bytes", BINARY.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_and_guests_reach_each_other() {
    let Some(mut bench) = Bench::new("reach") else { return };
    let (_rendezvous, agent, container) = bench.agent("web", &[], &[]).await;
    reach_each_other(&mut bench, &agent, &container).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_and_guests_reach_each_other_over_streams() {
    let Some(mut bench) = Bench::new("reach-carried") else { return };
    let (_lender, agent, container) = bench.carrying("web").await;
    reach_each_other(&mut bench, &agent, &container).await;
}

async fn reach_each_other(bench: &mut Bench, agent: &Agent, container: &str) {
    let serve = "echo hello > /tmp/index.html && exec httpd -f -p 8000 -h /tmp";
    let linux = bench.run("linux", &["--network-alias=linux", "--init"], LINUX, &["sh", "-c", serve]);
    assert!(agent.resolver().contains("nameserver"), "{}", agent.resolver());
    let directory = Directory::new();
    let names = vec!["linux".to_owned()];
    let presence = Presence { network: bench.id.clone(), names, addresses: vec![bench.address(&linux)] };
    directory.enter(InstanceName::new("linux".into(), 1), vec![presence]);
    let fabric = Fabric::new(directory);
    let own = bench.address(container);
    let stack = bench.stack(&fabric, agent, own);

    // From a container, by name, on a low port.
    let mut listener = stack.listen(SocketAddr::from(([0; 4], 80))).await.expect("a listener");
    let fetch = {
        let linux = linux.clone();
        tokio::task::spawn_blocking(move || docker(&["exec", &linux, "wget", "-qO-", "http://web/"], b""))
    };
    let mut conn = timeout(LIMIT, poll_fn(|cx| listener.poll_accept(cx))).await.expect("in time").expect("a request");
    assert_eq!((conn.local, conn.peer.ip()), (SocketAddr::new(own, 80), bench.address(&linux)));
    let mut request = [0; 5];
    conn.io.read_exact(&mut request).await.expect("a request");
    assert_eq!(&request, b"GET /");
    conn.io.write_all(b"HTTP/1.0 200 OK\r\n\r\nfrom a guest").await.expect("a reader");
    conn.io.shutdown().await.expect("a reader");
    drop(conn);
    assert_eq!(fetch.await.expect("it ran"), Ok("from a guest".to_owned()));

    // The port is taken, in the container as well; the address of another instance is no one's to listen on.
    let taken = stack.listen(SocketAddr::from(([0; 4], 80))).await;
    assert!(matches!(taken, Err(NetError::Io(error)) if error.kind() == io::ErrorKind::AddrInUse));
    drop(listener);
    stack.listen(SocketAddr::new(own, 80)).await.expect("it is free again");

    // To a container, by name.
    let address = stack.lookup("linux").await.expect("an address")[0];
    let to = SocketAddr::new(address, 8000);
    let mut conn = loop {
        match stack.connect(to).await {
            Ok(conn) => break conn,
            // The server in the container is still starting.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    assert_eq!((conn.local.ip(), conn.peer), (own, to));
    conn.io.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").await.expect("a reader");
    let mut answer = String::new();
    timeout(LIMIT, conn.io.read_to_string(&mut answer)).await.expect("in time").expect("an answer");
    assert!(answer.ends_with("hello\n"), "{answer}");

    // The network's gateway is the host: no neighbour.
    let format = "{{(index .IPAM.Config 0).Gateway}}";
    let gateway = docker(&["network", "inspect", "--format", format, &bench.id], b"").expect("a network");
    let gateway = SocketAddr::new(gateway.parse().expect("an address"), 22);
    assert!(matches!(stack.connect(gateway).await, Err(NetError::Refused(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_come_as_directories_we_may_write() {
    let Some(mut bench) = Bench::new("volumes") else { return };
    let (fresh, used) = (format!("{}-fresh", bench.id), format!("{}-used", bench.id));
    for volume in [&fresh, &used] {
        docker(&["volume", "create", volume], b"").expect("a volume");
        bench.made.insert(0, ["volume", "rm", volume].map(str::to_owned));
    }
    let used_mount = format!("{used}:/data");
    let linux =
        bench.run("linux", &["-v", &used_mount], LINUX, &["sh", "-c", "chown 7:7 /data; echo old > /data/file"]);
    assert_eq!(exit_code(&linux).await, "0");

    let targets = ["/data".to_owned(), "/used".to_owned()];
    let mounts = [format!("{fresh}:/data"), format!("{used}:/used")];
    let (_rendezvous, agent, container) = bench.agent("web", &["-v", &mounts[0], "-v", &mounts[1]], &targets).await;
    let directories = agent.directories();
    let paths: Vec<_> = directories.iter().map(|(target, _)| target.clone()).collect();
    assert_eq!(paths, [PathBuf::from("/data"), PathBuf::from("/used")]);
    assert!(agent.directories().is_empty(), "each is taken once");
    let path = |number: usize| {
        use std::os::fd::AsRawFd;
        PathBuf::from(format!("/proc/self/fd/{}", directories[number].1.as_raw_fd()))
    };
    // The empty one is ours now; the other is still whose it was.
    assert_eq!(fs::metadata(path(0)).expect("a folder").uid(), rustix::process::geteuid().as_raw());
    assert_eq!(fs::metadata(path(1)).expect("a folder").uid(), 7);
    assert_eq!(fs::read_to_string(path(1).join("file")).expect("a file"), "old\n");
    fs::write(path(0).join("file"), "new").expect("a file");
    let reader = bench.run("reader", &["-v", &mounts[0]], LINUX, &["cat", "/data/file"]);
    assert_eq!(exit_code(&reader).await, "0");
    assert_eq!(docker(&["logs", &reader], b""), Ok("new".to_owned()));
    // Nothing may hold a volume when it is removed.
    drop((directories, agent));
    exit_code(&container).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_container_lives_and_ends_as_the_service() {
    let Some(mut bench) = Bench::new("life") else { return };
    let (_rendezvous, agent, container) = bench.agent("web", &["--stop-timeout=60"], &[]).await;
    lives_and_ends(agent, container).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_container_lives_and_ends_as_the_service_over_streams() {
    let Some(mut bench) = Bench::new("life-carried") else { return };
    let (_lender, agent, container) = bench.carrying("web").await;
    lives_and_ends(agent, container).await;
}

async fn lives_and_ends(agent: Agent, container: String) {
    let (stdout, stderr) = agent.output().expect("the container's output");
    assert!(agent.output().is_none(), "it is taken once");
    assert_eq!(stdout.try_write(b"a line\n").expect("room"), 7);
    drop((stdout, stderr));
    eventually("the line in the log", || (docker(&["logs", &container], b"").ok()? == "a line").then_some(())).await;

    let check = || docker(&["exec", &container, "/agent", "health"], b"");
    assert!(check().is_err(), "not healthy at first");
    agent.set_health(true);
    eventually("the container is healthy", || check().ok()).await;

    let mut events = agent.events().expect("events");
    let stop = {
        let container = container.clone();
        tokio::task::spawn_blocking(move || docker(&["stop", &container], b""))
    };
    assert_eq!(timeout(LIMIT, events.recv()).await.expect("in time"), Some(AgentEvent::Terminate));
    agent.exit(7).await;
    assert_eq!(timeout(LIMIT, events.recv()).await.expect("in time"), Some(AgentEvent::Gone));
    assert!(stop.await.expect("it ran").is_ok());
    assert_eq!(exit_code(&container).await, "7");
    let late = agent.listen(SocketAddr::from(([0; 4], 0))).await;
    assert_eq!(late.expect_err("it is gone").kind(), io::ErrorKind::BrokenPipe);
}

/// What is echoed comes back whole, whatever the other connections do, in amounts beyond every buffer.
#[tokio::test(flavor = "multi_thread")]
async fn streams_are_carried_whole_beside_one_that_nobody_reads() {
    const BYTES: usize = 8 << 20;
    let Some(mut bench) = Bench::new("bulk") else { return };
    let (_lender, agent, _container) = bench.carrying("web").await;
    let mut listener = agent.listen(SocketAddr::from(([0; 4], 7))).await.expect("a listener");
    let mut echo = JoinSet::new();
    echo.spawn(async move {
        let mut conns = JoinSet::new();
        loop {
            let conn = poll_fn(|cx| listener.poll_accept(cx)).await.expect("a connection");
            conns.spawn(async move {
                let (mut reader, mut writer) = tokio::io::split(conn.io);
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
                let _ = writer.shutdown().await;
            });
        }
    });
    let to = SocketAddr::from(([127, 0, 0, 1], 7));
    // Writes as long as anything is taken, and reads nothing.
    let mut stuck = agent.connect(to).await.expect("a connection");
    while timeout(Duration::from_millis(300), stuck.io.write_all(&[1; 65536])).await.is_ok() {}
    let mut all = JoinSet::new();
    for number in 0..4_u8 {
        let conn = agent.connect(to).await.expect("a connection");
        all.spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(conn.io);
            let write = async {
                for _ in 0..BYTES / 65536 {
                    writer.write_all(&[number; 65536]).await.expect("it is taken");
                }
                writer.shutdown().await.expect("it is taken");
            };
            let mut back = Vec::new();
            let (_, read) = tokio::join!(write, reader.read_to_end(&mut back));
            read.expect("all of it");
            back.len() == BYTES && back.iter().all(|byte| *byte == number)
        });
    }
    let whole = timeout(LIMIT, all.join_all()).await.expect("in time");
    assert!(whole.iter().all(|whole| *whole));
    // Many short ones, one after another and at once: numbers come back.
    let mut many = JoinSet::new();
    for _ in 0..50 {
        let agent = agent.clone();
        many.spawn(async move {
            for _ in 0..100 {
                let mut conn = agent.connect(to).await.expect("a connection");
                conn.io.write_all(b"x").await.expect("it is taken");
                let mut byte = [0; 1];
                conn.io.read_exact(&mut byte).await.expect("it comes back");
            }
        });
    }
    timeout(LIMIT, many.join_all()).await.expect("in time");
    let refused = agent.connect(SocketAddr::from(([127, 0, 0, 1], 9))).await;
    assert_eq!(refused.expect_err("nobody listens").kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test(flavor = "multi_thread")]
async fn either_end_learns_of_the_others_death() {
    let Some(mut bench) = Bench::new("death") else { return };
    let (rendezvous, agent, container) = bench.agent("web", &[], &[]).await;
    let mut events = agent.events().expect("events");
    docker(&["kill", &container], b"").expect("a container");
    assert_eq!(timeout(LIMIT, events.recv()).await.expect("in time"), Some(AgentEvent::Gone));
    drop(agent);

    // Started again, it finds the same rendezvous; when we go, so does it.
    docker(&["start", &container], b"").expect("a container");
    let agent = rendezvous.accept(&[], LIMIT).await.expect("an agent");
    let mut many = JoinSet::new();
    for number in 0..300 {
        let agent = agent.clone();
        let at: SocketAddr = if number % 2 == 0 { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
        many.spawn(async move { agent.datagrams(at).await.map(drop) });
    }
    assert!(many.join_all().await.iter().all(Result::is_ok), "more at once than are in flight");
    drop(agent);
    assert_eq!(exit_code(&container).await, "137");
    let folder = rendezvous.folder().to_owned();
    drop(rendezvous);
    assert!(!folder.exists());
}

#[tokio::test]
async fn strangers_are_turned_away() {
    let runtime = tempfile::tempdir().expect("a folder");
    let rendezvous = Rendezvous::prepare(runtime.path(), "x").expect("a rendezvous");
    let socket = rustix::net::SocketAddrUnix::new(rendezvous.folder().join("s")).expect("a short path");
    for frame in [b"H\x01\x05wrong".as_slice(), b"Qwrong", b"", b"nonsense"] {
        let made = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket");
        rustix::net::connect(&made, &socket).expect("a listener");
        rustix::net::send(&made, frame, rustix::net::SendFlags::NOSIGNAL).expect("room");
        let closed = tokio::task::spawn_blocking(move || rustix::io::read(&made, &mut [0; 16])).await.expect("it ran");
        assert_eq!(closed, Ok(0), "{frame:?}");
    }
    let accepted = rendezvous.accept(&[], Duration::from_millis(10)).await;
    assert_eq!(accepted.expect_err("nobody came").kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_path_too_long_is_an_error() {
    let runtime = tempfile::tempdir().expect("a folder");
    let error = Rendezvous::prepare(runtime.path(), &"x".repeat(120)).expect_err("too long");
    assert!(error.to_string().contains("is too long, 107 fit"), "{error}");
}

#[tokio::test]
async fn a_later_rendezvous_keeps_the_folder_of_an_earlier_one() {
    let runtime = tempfile::tempdir().expect("a folder");
    let earlier = Rendezvous::prepare(runtime.path(), "x").expect("a rendezvous");
    let later = Rendezvous::prepare(runtime.path(), "x").expect("a rendezvous");
    drop(earlier);
    assert!(later.folder().join("s").exists());
    drop(later);
    assert_eq!(fs::read_dir(runtime.path()).expect("a folder").count(), 0);
}
