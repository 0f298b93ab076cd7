//! An engine that is apart: reached over TCP, and without a view of this machine's runtime folder. That agents are reached
//! through the engine is found out by wcompose itself.

use std::io::{self, BufRead, BufReader};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::support::engine::skip;
use crate::support::project::free_port;
use crate::support::{Engine, Guest, Project};

/// Passes on what comes over TCP to the engine's socket. Ends with the test's process.
fn forwarded(engine: &Engine) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let socket = engine.socket.clone();
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = UnixStream::connect(&socket) else { return };
            let (near_too, far_too) = (near.try_clone().expect("a descriptor"), far.try_clone().expect("a descriptor"));
            thread::spawn(move || pass(near, &far, |far| drop(far.shutdown(Shutdown::Write))));
            thread::spawn(move || pass(far_too, &near_too, |near: &TcpStream| drop(near.shutdown(Shutdown::Write))));
        }
    });
    port
}

/// Passes bytes on to the end of one direction.
fn pass<W>(mut from: impl io::Read, to: &W, end: impl FnOnce(&W))
where
    for<'a> &'a W: io::Write,
{
    let _ = io::copy(&mut from, &mut &*to);
    end(to);
}

/// A view of the file system with a runtime folder of its own: what is in there, no other process sees, the engine
/// included. Ends when dropped.
struct Apart {
    keeper: Child,
    user: bool,
}

impl Apart {
    /// With this folder hidden. `None`, said loudly, where this machine lets nobody do that.
    fn hiding(folder: &Path) -> Option<Self> {
        let user = !rustix::process::geteuid().is_root();
        let mut keeper = Command::new("unshare");
        if user {
            keeper.args(["--user", "--map-root-user"]);
        }
        keeper.args([
            "--mount",
            "--",
            "sh",
            "-c",
            "mount -t tmpfs -o mode=0700 apart \"$1\" && echo hidden && exec cat",
            "sh",
        ]);
        let mut keeper = keeper.arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        let mut said = String::new();
        let read = BufReader::new(keeper.stdout.take().expect("it is piped")).read_line(&mut said);
        if read.is_err() || said.trim() != "hidden" {
            let _ = keeper.wait();
            skip("no mount namespace can be made here");
            return None;
        }
        Some(Self { keeper, user })
    }

    /// What runs a command in that view, in this folder.
    fn prefix(&self, folder: &Path) -> Vec<String> {
        let mut prefix = vec!["nsenter".to_owned(), format!("--target={}", self.keeper.id()), "--mount".to_owned()];
        if self.user {
            prefix.extend(["--user", "--preserve-credentials"].map(str::to_owned));
        }
        // Entering a view leads to its root.
        prefix.extend([format!("--wdns={}", folder.display()), "--".to_owned()]);
        prefix
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

#[test]
fn an_engine_that_cannot_mount_our_socket_carries_what_goes_over_it() {
    let Some(engine) = Engine::answering() else { return };
    let (linux, wasm) = (free_port(), free_port());
    let compose = r#"
services:
  linux: { image: "${PEER}", command: [serve, "80"], ports: ["${LINUX}:80"], environment: { KIND: linux } }
  wasm:
    image: ./peer.wasm
    command: [serve, "80"]
    ports: ["${WASM}:80"]
    environment: { KIND: wasm }
"#;
    let project = Project::on(&engine, compose).guest(Guest::Peer).with("WCOMPOSE_AGENT", "auto");
    let Some(apart) = Apart::hiding(&project.root().join("run")) else { return };
    let address = format!("tcp://127.0.0.1:{}", forwarded(&engine));
    let folder = project.folder();
    let project =
        project.with("LINUX", linux).with("WASM", wasm).with("DOCKER_HOST", address).through(apart.prefix(&folder));
    project.up();
    assert_eq!(project.ask(linux, "/get/wasm/80/env/KIND"), "wasm");
    assert_eq!(project.ask(wasm, "/get/linux/80/env/KIND"), "linux");
    let container = format!("{}-wasm-1", project.name);
    let mounts = engine.get(&format!("/containers/{container}/json"))["Mounts"].clone();
    assert!(mounts.as_array().expect("a list").iter().all(|mount| mount["Type"] != "bind"), "{mounts}");
    project.ask(wasm, "/log/seen");
    crate::support::eventually("`docker logs` shows the guest's lines", || {
        let logs = engine.logs(&container);
        crate::support::holds(logs.contains("seen"), logs)
    });
    project.run(&["down"]).well();
    drop(project);
    drop(apart);
}
