//! A project of one scenario: its own folder, name, state and cache, and the binary run in it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::engine::text;
use super::{Engine, Guest, Outcome, PATIENCE, Running, eventually, guests, holds, http, leaks, now, places};

/// A compose project in a temporary folder. When it goes it is taken down, and nothing of it may be left.
#[derive(Debug)]
pub struct Project {
    /// Its name, unlike any other's.
    pub name: String,
    engine: Option<Engine>,
    root: TempDir,
    environment: BTreeMap<String, String>,
    /// What runs the binary, where it is not run as it is.
    prefix: Vec<String>,
}

/// A service as `ps -a --format json` tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Container id, or the guest's own.
    pub id: String,
    /// `running`, `exited`, …
    pub state: String,
    /// `healthy`, …; empty without a check.
    pub health: String,
    /// Exit code.
    pub code: i64,
    /// Status for people.
    pub status: String,
    /// When it was created.
    pub created: String,
}

impl Project {
    /// A project of Wasm services alone, on a machine that has no engine.
    pub fn wasm(compose: &str) -> Self {
        Self::new(None, compose)
    }

    /// A project on a real engine.
    pub fn on(engine: &Engine, compose: &str) -> Self {
        Self::new(Some(engine.clone()), compose)
    }

    /// A sample, copied.
    pub fn sample(engine: Option<&Engine>, name: &str) -> Self {
        guests::sample(name);
        let project = Self::new(engine.cloned(), "");
        copy(&places::repository().join("samples").join(name), &project.folder());
        project
    }

    fn new(engine: Option<Engine>, compose: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("it{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // A short path: names of sockets hold 108 bytes.
        let root = tempfile::Builder::new().prefix("wc-").tempdir().expect("a temporary folder");
        for folder in ["project", "run", "state", "data", "home"] {
            fs::create_dir(root.path().join(folder)).expect("a temporary folder");
        }
        let mut environment: BTreeMap<String, String> = ["PATH", "LANG", "WCOMPOSE_AGENT"]
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
            .collect();
        for (variable, folder) in [
            ("WCOMPOSE_RUNTIME_DIR", "run"),
            ("WCOMPOSE_STATE_DIR", "state"),
            ("WCOMPOSE_DATA_DIR", "data"),
            ("XDG_RUNTIME_DIR", "run"),
            ("XDG_STATE_HOME", "state"),
            ("XDG_DATA_HOME", "data"),
            ("HOME", "home"),
        ] {
            environment.insert(variable.to_owned(), root.path().join(folder).display().to_string());
        }
        // Guests are compiled to native code once for all scenarios.
        let cache = places::scratch().join("it-cache").display().to_string();
        environment.insert("WCOMPOSE_CACHE_DIR".to_owned(), cache.clone());
        environment.insert("XDG_CACHE_HOME".to_owned(), cache);
        environment.insert("COMPOSE_PROJECT_NAME".to_owned(), name.clone());
        let address = engine.as_ref().map_or("unix:///nonexistent/docker.sock".to_owned(), Engine::address);
        environment.insert("DOCKER_HOST".to_owned(), address);
        if let Some(engine) = &engine {
            environment.insert("PEER".to_owned(), engine.peer().to_owned());
        }
        let project = Self { name, engine, root, environment, prefix: Vec::new() };
        if !compose.is_empty() {
            project.write("compose.yaml", compose);
        }
        project
    }

    /// Puts a guest beside the compose file, under the names that scenarios use.
    pub fn guest(self, guest: Guest) -> Self {
        let name = match guest {
            Guest::PeerModule => "module.wasm",
            Guest::Peer => "peer.wasm",
            Guest::PeerLinux => "peer",
            Guest::Relay => "relay.wasm",
            Guest::Keeper => "keeper.wasm",
            Guest::AsyncPeer => "async-peer.wasm",
            Guest::AsyncRelay => "async-relay.wasm",
            Guest::Edge => "edge.wasm",
            Guest::EdgeHttp => "edge-http.wasm",
            Guest::Burglar => "burglar.wasm",
            Guest::Rascal => "rascal.wasm",
        };
        fs::copy(guest.path(), self.folder().join(name)).expect("the guest is built");
        self
    }

    /// Sets a variable of the command's environment.
    pub fn with(mut self, variable: &str, value: impl ToString) -> Self {
        self.environment.insert(variable.to_owned(), value.to_string());
        self
    }

    /// Has the binary run by another program.
    pub fn through(mut self, prefix: Vec<String>) -> Self {
        self.prefix = prefix;
        self
    }

    /// The compose file's folder.
    pub fn folder(&self) -> PathBuf {
        self.root.path().join("project")
    }

    /// The folder above: `run`, `state`, `data` and `home` beside `project`.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Writes a file of the project.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.folder().join(path);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a writable folder");
        fs::write(path, text).expect("a writable folder");
    }

    /// Changes the compose file.
    pub fn edit(&self, from: &str, to: &str) {
        let path = self.folder().join("compose.yaml");
        let text = fs::read_to_string(&path).expect("the file is there");
        assert!(text.contains(from), "`{from}` is not in:\n{text}");
        fs::write(path, text.replace(from, to)).expect("a writable folder");
    }

    /// The binary, in the project's folder and environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let binary = places::wcompose();
        let mut words = self.prefix.iter().map(OsStr::new).chain([binary.as_os_str()]);
        let mut command = Command::new(words.next().expect("the binary is one"));
        command.args(words).args(arguments).current_dir(self.folder()).env_clear().envs(&self.environment);
        command
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        self.start(arguments).end()
    }

    /// Runs it to its end, with this on its standard input.
    pub fn feed(&self, arguments: &[&str], input: &str) -> Outcome {
        Running::fed(&mut self.command(arguments), input).end()
    }

    /// Runs it in the foreground.
    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::start(&mut self.command(arguments))
    }

    /// Runs it in the foreground, until files are watched.
    pub fn watch(&self, arguments: &[&str]) -> Running {
        let running = self.start(arguments);
        running.says("Watch enabled");
        running
    }

    /// `up -d`, which must work.
    #[track_caller]
    pub fn up(&self) -> Outcome {
        self.run(&["up", "-d"]).well()
    }

    /// Every service there is, by name.
    pub fn ps(&self) -> BTreeMap<String, Row> {
        let outcome = self.run(&["ps", "-a", "--format", "json"]).well();
        outcome
            .stdout
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .map(|row| {
                (
                    text(&row["Service"]),
                    Row {
                        id: text(&row["ID"]),
                        state: text(&row["State"]),
                        health: text(&row["Health"]),
                        code: row["ExitCode"].as_i64().unwrap_or(-1),
                        status: text(&row["Status"]),
                        created: text(&row["CreatedAt"]),
                    },
                )
            })
            .collect()
    }

    /// One service; fails when there is none of that name.
    #[track_caller]
    pub fn service(&self, name: &str) -> Row {
        let mut rows = self.ps();
        rows.remove(name).unwrap_or_else(|| panic!("`ps` does not show {name}: {rows:?}"))
    }

    /// Waits until a service is in a state.
    pub fn becomes(&self, service: &str, state: &str) -> Row {
        eventually(&format!("{service} becomes {state}"), || match self.ps().remove(service) {
            Some(row) if row.state == state => Ok(row),
            seen => Err(format!("{seen:?}")),
        })
    }

    /// `logs --no-log-prefix` of a service.
    pub fn logs(&self, service: &str) -> String {
        let outcome = self.run(&["logs", "--no-log-prefix", service]).well();
        outcome.stdout + &outcome.stderr
    }

    /// Waits until a service's log holds these words.
    pub fn logged(&self, service: &str, words: &str) -> String {
        eventually(&format!("{service} logs `{words}`"), || {
            let logs = self.logs(service);
            if logs.contains(words) { Ok(logs) } else { Err(logs) }
        })
    }

    /// Makes a guest do something, waiting until it can: the answer with status 200.
    pub fn ask(&self, port: u16, path: &str) -> String {
        eventually(&format!("GET :{port}{path}"), || match http::get(port, path) {
            Ok((200, body)) => Ok(body),
            Ok((status, body)) => Err(format!("status {status}: {body}")),
            Err(error) => Err(error.to_string()),
        })
    }

    /// Makes a guest try something that must fail: the error's text.
    pub fn ask_in_vain(&self, port: u16, path: &str) -> String {
        eventually(&format!("GET :{port}{path}"), || match http::get(port, path) {
            Ok((status, body)) => {
                assert!(status != 200, "GET :{port}{path} should have failed: {body}");
                Ok(body)
            }
            Err(error) => Err(error.to_string()),
        })
    }

    /// Process ids of the supervisors that run this project in the background.
    pub fn supervisors(&self) -> Vec<i32> {
        leaks::processes(self.root.path()).into_iter().map(|(id, _)| id).collect()
    }

    /// Kills the supervisors as a crash would.
    pub fn crash(&self) {
        let ids = self.supervisors();
        assert!(!ids.is_empty(), "a supervisor should be running");
        for id in ids {
            kill_process(Pid::from_raw(id).expect("a process has an id"), Signal::KILL).expect("the process is there");
        }
        eventually("the supervisor is gone", || holds(self.supervisors().is_empty(), "it is still there"));
    }

    /// What is left of the project, one line each.
    pub fn left(&self) -> Vec<String> {
        leaks::left(self.engine.as_ref(), &self.name, self.root.path())
    }

    /// What is still left after the moment that a supervisor needs to end when its last answer is out.
    fn left_soon(&self) -> Vec<String> {
        let start = now();
        loop {
            let left = self.left();
            if left.is_empty() || start.elapsed() > Duration::from_secs(5) {
                return left;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until nothing is left.
    pub fn gone(&self) {
        eventually("nothing is left", || {
            let left = self.left();
            holds(left.is_empty(), left.join("\n"))
        });
    }

    /// Keeps what helps to understand a failure.
    fn keep(&self) {
        let scenario = thread::current().name().unwrap_or("scenario").replace("::", "-");
        let kept = places::scratch().join("it-artifacts").join(scenario);
        let _ = fs::remove_dir_all(&kept);
        copy(self.root.path(), &kept);
        for arguments in [["ps", "-a"], ["logs", "-t"], ["config", "--no-interpolate"]] {
            let outcome = Running::start(&mut self.command(&arguments)).end_within(PATIENCE / 2);
            let _ = fs::write(kept.join(format!("{}.txt", arguments[0])), outcome.to_string());
        }
        let text = format!("kept for a look: {}\n", kept.display());
        let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let failed = thread::panicking();
        if failed {
            // Whatever goes wrong from here on must not hide the failure.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.keep()));
        }
        let down = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.run(&["down", "-v", "--remove-orphans", "-t", "1"])
        }));
        if let Some(engine) = &self.engine {
            engine.remove_images(&self.name);
        }
        let left = self.left_soon();
        for id in self.supervisors() {
            if let Some(id) = Pid::from_raw(id) {
                let _ = kill_process(id, Signal::KILL);
            }
        }
        if let Some(engine) = &self.engine {
            sweep(engine, &self.name);
        }
        if !failed {
            let down = down.unwrap_or_default();
            assert!(left.is_empty(), "left behind after `down -v`:\n{}\n{down}", left.join("\n"));
        }
    }
}

/// Removes by force what a failed scenario left on the engine.
fn sweep(engine: &Engine, project: &str) {
    for kind in ["container", "network", "volume"] {
        for object in engine.objects(project) {
            if let Some(name) = object.strip_prefix(kind) {
                engine.call("DELETE", &format!("/{kind}s/{}?force=1&v=1", name.trim()));
            }
        }
    }
}

/// A port of this host that is free now, outside the range that the kernel gives to outgoing connections.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 100) as u16 * 100;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

/// Copies a folder; sockets and build folders stay.
fn copy(from: &Path, to: &Path) {
    let _ = fs::create_dir_all(to);
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let target = to.join(entry.file_name());
        if kind.is_dir() && entry.file_name() != "target" {
            copy(&entry.path(), &target);
        } else if kind.is_file() {
            let _ = fs::copy(entry.path(), target);
        }
    }
}
