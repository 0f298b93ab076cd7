//! Guests, compiled from `tests/it/guests` and `samples` once a run; no compiled file is in the repository.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use super::places;

/// A compiled guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    /// `peer` as a WASI preview 1 module.
    PeerModule,
    /// `peer` as a preview 2 component.
    Peer,
    /// `peer` as a static Linux binary.
    PeerLinux,
    /// `relay`, a `wasi:http` component.
    Relay,
    /// `keeper`, an HTTP component that uses what there is beside WASI.
    Keeper,
    /// `peer`'s counterpart for WASI 0.3.
    AsyncPeer,
    /// `relay`'s counterpart for WASI 0.3.
    AsyncRelay,
    /// `edge`, on WasmEdge's socket crate.
    Edge,
    /// `edge-http`, on WasmEdge's ports of hyper, tokio and mysql_async.
    EdgeHttp,
    /// `burglar`, a preview 1 module.
    Burglar,
    /// `rascal`, a preview 2 component.
    Rascal,
}

impl Guest {
    /// Where it lies; compiled when this is asked for the first time.
    pub fn path(self) -> PathBuf {
        static BUILT: OnceLock<()> = OnceLock::new();
        BUILT.get_or_init(|| {
            if !places::prebuilt() {
                compile("wasm32-wasip1", &["peer", "edge", "edge-http", "burglar"]);
                compile("wasm32-wasip2", &["peer", "rascal", "relay", "async-peer", "async-relay", "keeper"]);
                compile(linux(), &["peer"]);
            }
        });
        let (target, file) = match self {
            Self::PeerModule => ("wasm32-wasip1", "peer.wasm"),
            Self::Peer => ("wasm32-wasip2", "peer.wasm"),
            Self::PeerLinux => (linux(), "peer"),
            Self::Relay => ("wasm32-wasip2", "relay.wasm"),
            Self::Keeper => ("wasm32-wasip2", "keeper.wasm"),
            Self::AsyncPeer => ("wasm32-wasip2", "async_peer.wasm"),
            Self::AsyncRelay => ("wasm32-wasip2", "async_relay.wasm"),
            Self::Edge => ("wasm32-wasip1", "edge.wasm"),
            Self::EdgeHttp => ("wasm32-wasip1", "edge-http.wasm"),
            Self::Rascal => ("wasm32-wasip2", "rascal.wasm"),
            Self::Burglar => ("wasm32-wasip1", "burglar.wasm"),
        };
        target_folder().join(target).join("release").join(file)
    }
}

/// Compiles the services of a sample, once a run.
pub fn sample(name: &str) {
    static BUILT: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut built = BUILT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !places::prebuilt() && !built.iter().any(|done| done == name) {
        run(Command::new(places::repository().join("samples/build")).arg(name));
        built.push(name.to_owned());
    }
}

fn target_folder() -> PathBuf {
    places::repository().join("target/guests/it")
}

fn linux() -> &'static str {
    if cfg!(target_arch = "aarch64") { "aarch64-unknown-linux-musl" } else { "x86_64-unknown-linux-musl" }
}

fn compile(target: &str, packages: &[&str]) {
    let libraries = Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output();
    let libraries = libraries.expect("rustc runs").stdout;
    if !PathBuf::from(String::from_utf8_lossy(&libraries).trim()).is_dir() {
        run(Command::new("rustup").args(["target", "add", target]));
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--release", "--target", target]);
    cargo.arg("--manifest-path").arg(places::repository().join("tests/it/guests/Cargo.toml"));
    cargo.arg("--target-dir").arg(target_folder());
    cargo.args(packages.iter().flat_map(|package| ["-p", package]));
    run(&mut cargo);
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
