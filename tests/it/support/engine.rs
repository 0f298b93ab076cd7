//! The engine as tests see it: a plain client of the Docker API, independent of the one under test.

use std::collections::BTreeMap;
use std::env;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde_json::Value;
use tar::EntryType;

use super::{Guest, Outcome, Running, places};

/// An engine that answered.
#[derive(Debug, Clone)]
pub struct Engine {
    /// The socket it listens on.
    pub socket: String,
    peer: Arc<PeerImage>,
}

impl Engine {
    /// The engine of this machine. Where none answers the scenario is skipped, loudly, unless one is required.
    pub fn answering() -> Option<Self> {
        let address = env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        let Some(socket) = address.strip_prefix("unix://") else {
            skip(&format!("scenarios need an engine on a Unix socket, not {address}"));
            return None;
        };
        match request(socket, "GET", "/_ping", None) {
            Ok((200, _)) => Some(Self { socket: socket.to_owned(), peer: PeerImage::shared(socket) }),
            Ok((status, _)) => {
                skip(&format!("the engine at {socket} answers with status {status}"));
                None
            }
            Err(error) => {
                skip(&format!("no Docker engine answers at {socket}: {error}"));
                None
            }
        }
    }

    /// The same, when it also has these public images.
    pub fn with_images(images: &[&str]) -> Option<Self> {
        let engine = Self::answering()?;
        let missing: Vec<&str> = images.iter().copied().filter(|image| !engine.has_image(image)).collect();
        if missing.is_empty() {
            return Some(engine);
        }
        skip(&format!("the engine has no {}", missing.join(", ")));
        None
    }

    /// Its address, for `DOCKER_HOST`.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket)
    }

    /// Name of the image that runs the `peer` guest on Linux; made from nothing, so no public image is needed.
    pub fn peer(&self) -> &str {
        &self.peer.name
    }

    /// A GET that must work.
    pub fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path);
        assert!(status == 200, "GET {path}: status {status}: {body}");
        body
    }

    /// Any call; the answer's status and its JSON (null when it is none).
    pub fn call(&self, method: &str, path: &str) -> (u16, Value) {
        let (status, body) = request(&self.socket, method, path, None).expect("the engine answers");
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// A POST with a JSON body that must work.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let (status, answer) = request(&self.socket, "POST", path, Some(("application/json", body.as_bytes())))
            .expect("the engine answers");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!((200..300).contains(&status), "POST {path}: status {status}: {answer}");
        serde_json::from_str(&answer).unwrap_or(Value::Null)
    }

    /// The engine's time now, as its list of events takes it.
    pub fn now(&self) -> String {
        let time: jiff::Timestamp = text(&self.get("/info")["SystemTime"]).parse().expect("the engine tells the time");
        format!("{}.{:09}", time.as_second(), time.subsec_nanosecond())
    }

    /// The services whose containers this happened to since a time, in order.
    pub fn happened(&self, project: &str, action: &str, since: &str) -> Vec<String> {
        let label = format!("%22label%22:%5B%22com.docker.compose.project={project}%22%5D");
        let filters = format!("%7B{label},%22event%22:%5B%22{action}%22%5D%7D");
        let path = format!("/events?since={since}&until={}&filters={filters}", self.now());
        let (status, body) = request(&self.socket, "GET", &path, None).expect("the engine answers");
        let body = String::from_utf8_lossy(&body).into_owned();
        assert!(status == 200, "GET {path}: status {status}: {body}");
        let events = body.lines().map(|line| serde_json::from_str::<Value>(line).expect("an event is JSON"));
        events.map(|event| text(&event["Actor"]["Attributes"]["com.docker.compose.service"])).collect()
    }

    /// Containers of a project, running or not.
    pub fn containers(&self, project: &str) -> Vec<Value> {
        let path = format!("/containers/json?all=1&filters={}", label_filter(project));
        self.get(&path).as_array().cloned().unwrap_or_default()
    }

    /// Container names → ids of a project.
    pub fn ids(&self, project: &str) -> BTreeMap<String, String> {
        self.containers(project)
            .iter()
            .map(|container| (text(&container["Names"][0]).trim_start_matches('/').to_owned(), text(&container["Id"])))
            .collect()
    }

    /// Every object of a project, one line each: `container x`, `network x`, `volume x`, `image x`.
    pub fn objects(&self, project: &str) -> Vec<String> {
        let mut objects: Vec<String> = self.ids(project).keys().map(|name| format!("container {name}")).collect();
        let filter = label_filter(project);
        for network in self.get(&format!("/networks?filters={filter}")).as_array().into_iter().flatten() {
            objects.push(format!("network {}", text(&network["Name"])));
        }
        for volume in self.get(&format!("/volumes?filters={filter}"))["Volumes"].as_array().into_iter().flatten() {
            objects.push(format!("volume {}", text(&volume["Name"])));
        }
        objects
    }

    /// What a container wrote, as `docker logs` gives it.
    pub fn logs(&self, container: &str) -> String {
        let path = format!("/containers/{container}/logs?stdout=1&stderr=1");
        let (_, bytes) = request(&self.socket, "GET", &path, None).expect("the engine answers");
        // Frames of eight bytes (stream, three zeros, length) and the text.
        let mut text = String::new();
        let mut rest = bytes.as_slice();
        while let Some((head, tail)) = rest.split_at_checked(8) {
            let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
            let (frame, tail) = tail.split_at(length.min(tail.len()));
            text.push_str(&String::from_utf8_lossy(frame));
            rest = tail;
        }
        text
    }

    /// Runs a command in a container, by docker's own client.
    pub fn exec(&self, container: &str, command: &[&str]) -> Outcome {
        let address = self.address();
        let mut docker = Command::new("docker");
        Running::start(docker.args(["--host", &address, "exec", container]).args(command)).end()
    }

    /// Removes the images a project built.
    pub fn remove_images(&self, project: &str) {
        for image in self.get("/images/json").as_array().into_iter().flatten() {
            for tag in image["RepoTags"].as_array().into_iter().flatten().map(text) {
                if tag.starts_with(&format!("{project}-")) {
                    self.call("DELETE", &format!("/images/{tag}?force=1"));
                }
            }
        }
    }

    /// Whether it has that image.
    pub fn has_image(&self, name: &str) -> bool {
        self.call("GET", &format!("/images/{name}/json")).0 == 200
    }
}

/// A JSON string, or nothing.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Says that a scenario is skipped and why, on the real standard error and in the list that `make test` ends with.
/// Fails instead where everything is required (`WCOMPOSE_REQUIRE_ENGINE=1`).
pub fn skip(why: &str) {
    let scenario = std::thread::current().name().unwrap_or("a scenario").to_owned();
    assert!(env::var("WCOMPOSE_REQUIRE_ENGINE").as_deref() != Ok("1"), "{scenario} may not be skipped: {why}");
    let line = format!("SKIPPED {scenario}: {why}\n");
    // Not through `eprintln!`: the test harness would keep it to itself.
    let _ = io::stderr().write_all(line.as_bytes());
    let list = OpenOptions::new().create(true).append(true).open(places::scratch().join("it-skipped"));
    let _ = list.and_then(|mut list| list.write_all(line.as_bytes()));
}

fn label_filter(project: &str) -> String {
    format!("%7B%22label%22%3A%5B%22com.docker.compose.project%3D{project}%22%5D%7D")
}

/// The image of the `peer` guest, there while any scenario uses it.
#[derive(Debug)]
struct PeerImage {
    socket: String,
    name: String,
}

static PEER: Mutex<Weak<PeerImage>> = Mutex::new(Weak::new());

impl PeerImage {
    fn shared(socket: &str) -> Arc<Self> {
        let mut slot = PEER.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(image) = slot.upgrade() {
            return image;
        }
        let binary = std::fs::read(Guest::PeerLinux.path()).expect("the peer is built");
        let tag = std::process::id().to_string();
        import(socket, "wcompose-it-peer", &tag, "peer", &binary);
        let image = Arc::new(Self { socket: socket.to_owned(), name: format!("wcompose-it-peer:{tag}") });
        *slot = Arc::downgrade(&image);
        image
    }
}

impl Drop for PeerImage {
    fn drop(&mut self) {
        let _ = request(&self.socket, "DELETE", &format!("/images/{}?force=1", self.name), None);
    }
}

/// Makes an image from nothing but a program, its entrypoint, and a folder to mount volumes at.
pub fn import(socket: &str, repository: &str, tag: &str, program: &str, binary: &[u8]) {
    let mut archive = tar::Builder::new(Vec::new());
    for (kind, path, content) in [(EntryType::Regular, program, binary), (EntryType::Directory, "data/", &[])] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        archive.append_data(&mut header, path, content).expect("an archive in memory");
    }
    let body = archive.into_inner().expect("an archive in memory");
    let entrypoint = format!("changes=ENTRYPOINT%20%5B%22%2F{program}%22%5D");
    let path = format!("/images/create?fromSrc=-&repo={repository}&tag={tag}&{entrypoint}");
    let (status, answer) =
        request(socket, "POST", &path, Some(("application/x-tar", &body))).expect("the engine answers");
    assert!(status == 200, "importing {repository}: {}", String::from_utf8_lossy(&answer));
}

/// One call as HTTP/1.0: the answer ends with the connection and comes unchunked.
fn request(socket: &str, method: &str, path: &str, body: Option<(&str, &[u8])>) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let (kind, body) = body.unwrap_or(("text/plain", &[]));
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.0\r\nhost: engine\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // The engine did not read the body, and closed.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset && !answer.is_empty() => {}
        read => drop(read?),
    }
    let split = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let head = String::from_utf8_lossy(&answer[..split]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok((status, answer.split_off(split + 4)))
}
