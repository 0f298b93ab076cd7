//! Where agents find us: a folder with a socket, mounted into the container; hellos and health checks come in through it.
//!
//! Who may come in: the socket's folder lies under a private parent, so only containers that mount it reach it;
//! each presents the token of its environment; and no other ordinary user of this machine is let in whatever it presents.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::net::SocketAddrUnix;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Agent;
use super::link::{Door, Link, Packet};
use super::passing::Introduction;
use super::wire::{self, Said};

/// The socket's name in the folder; the agent's `control.rs` holds the same.
const SOCKET: &str = "s";
/// How long a connection may take to say its first word.
const FIRST_WORD: Duration = Duration::from_secs(5);
/// Connections that have not said it yet.
const WAITING: usize = 16;

/// Where an agent's container finds us: a folder to be mounted read-only at [`super::MOUNT`], with a socket in it.
/// The folder goes with the last of the rendezvous and the agents it accepted.
#[derive(Debug)]
pub struct Rendezvous {
    shared: Arc<Shared>,
    hellos: Mutex<mpsc::Receiver<Hello>>,
}

/// What a rendezvous and its agents hold together: as long as one of them lives, health checks are answered.
#[derive(Debug)]
pub(super) struct Shared {
    folder: PathBuf,
    /// The socket's device and inode: a later rendezvous may have taken the folder over.
    identity: (u64, u64),
    token: String,
    healthy: Arc<AtomicBool>,
    _porter: JoinSet<()>,
}

impl Shared {
    pub(super) fn set_health(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::Relaxed);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let socket = self.folder.join(SOCKET);
        if fs::metadata(&socket).is_ok_and(|found| (found.dev(), found.ino()) == self.identity) {
            // What cannot be removed is found and taken over by the next rendezvous of this name.
            let _ = fs::remove_file(&socket);
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

/// An agent that showed the right token.
#[derive(Debug)]
struct Hello {
    link: Link,
    resolver: String,
    output: Option<(OwnedFd, OwnedFd)>,
}

impl Rendezvous {
    /// Makes the folder `runtime/id` (0755 under a private parent) and the socket in it (0666). A socket that an earlier
    /// process left there is replaced. To be called on a tokio runtime.
    pub fn prepare(runtime: &Path, id: &str) -> io::Result<Self> {
        if super::BINARY.is_empty() {
            let text = "this build of wcompose has no agent: Wasm services cannot share a network with Linux services";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        DirBuilder::new().recursive(true).mode(0o700).create(runtime).map_err(|error| at(error, "create", runtime))?;
        fs::set_permissions(runtime, Permissions::from_mode(0o700)).map_err(|error| at(error, "protect", runtime))?;
        let folder = runtime.join(id);
        DirBuilder::new().recursive(true).create(&folder).map_err(|error| at(error, "create", &folder))?;
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).map_err(|error| at(error, "open up", &folder))?;
        let socket = folder.join(SOCKET);
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(error, "replace", &socket)),
            Ok(()) | Err(_) => {}
        }
        let address = SocketAddrUnix::new(&socket).map_err(|_| {
            let length = socket.as_os_str().len();
            let text = format!("socket path of {length} bytes is too long, 107 fit: `{}`", socket.display());
            io::Error::new(io::ErrorKind::InvalidFilename, text)
        })?;
        let door = Door::open(&address).map_err(|error| at(error, "listen at", &socket))?;
        fs::set_permissions(&socket, Permissions::from_mode(0o666)).map_err(|error| at(error, "open up", &socket))?;
        let found = fs::metadata(&socket).map_err(|error| at(error, "look at", &socket))?;

        let token = token()?;
        let healthy = Arc::new(AtomicBool::new(false));
        let (sender, hellos) = mpsc::channel(1);
        let mut porter = JoinSet::new();
        porter.spawn(admit(door, token.clone(), healthy.clone(), sender));
        let identity = (found.dev(), found.ino());
        let shared = Arc::new(Shared { folder, identity, token, healthy, _porter: porter });
        Ok(Self { shared, hellos: Mutex::new(hellos) })
    }

    /// The folder to mount at [`super::MOUNT`].
    pub fn folder(&self) -> &Path {
        &self.shared.folder
    }

    /// What the agent must present, as the value of the environment variable [`super::TOKEN`].
    pub fn token(&self) -> &str {
        &self.shared.token
    }

    /// Waits for the agent of a container that was started. `volumes` are the targets whose directory descriptors are
    /// wanted, as in the container's [`super::VOLUMES`]. An agent that ended meanwhile is passed over.
    pub async fn accept(&self, volumes: &[String], limit: Duration) -> io::Result<Agent> {
        let late =
            || io::Error::new(io::ErrorKind::TimedOut, format!("no agent came to `{}`", self.folder().display()));
        timeout(limit, self.introduce(volumes)).await.map_err(|_| late())?
    }

    async fn introduce(&self, volumes: &[String]) -> io::Result<Agent> {
        let mut hellos = self.hellos.lock().await;
        loop {
            let Some(hello) = hellos.recv().await else {
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the agents' socket failed"));
            };
            match welcome(hello, volumes).await {
                Ok(introduction) => {
                    self.shared.set_health(false);
                    return Ok(Agent::passing(introduction, self.shared.clone()));
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Answers a hello and takes the directories, until the agent is ready.
async fn welcome(hello: Hello, volumes: &[String]) -> io::Result<Introduction> {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    hello.link.send(&wire::welcome(user.as_raw(), group.as_raw())).await?;
    let mut directories = Vec::new();
    let mut stopping = false;
    loop {
        let Packet { bytes, mut descriptors } = hello.link.receive().await?;
        match wire::read(&bytes) {
            Some(Said::Volume { number, errno }) => {
                let Some(target) = volumes.get(usize::from(number)) else { continue };
                if errno != 0 {
                    let error = io::Error::from_raw_os_error(errno);
                    return Err(at(error, "open, in the container, the volume at", Path::new(target)));
                }
                directories.extend(descriptors.pop().map(|directory| (PathBuf::from(target), directory)));
            }
            Some(Said::Ready) if directories.len() == volumes.len() => {
                let Hello { link, resolver, output } = hello;
                return Ok(Introduction { link, resolver, output, directories, stopping });
            }
            Some(Said::Ready) => {
                let text = format!("the agent passed {} of {} volumes", directories.len(), volumes.len());
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            Some(Said::Signal) => stopping = true,
            Some(Said::Hello { .. } | Said::Question { .. } | Said::Socket { .. }) | None => {}
        }
    }
}

/// Lets connections in until the rendezvous and all its agents are gone: answers health checks, hands on hellos.
async fn admit(door: Door, token: String, healthy: Arc<AtomicBool>, hellos: mpsc::Sender<Hello>) {
    let token: Arc<str> = token.into();
    let mut newcomers = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = newcomers.join_next() => {}
            accepted = door.accept(), if newcomers.len() < WAITING => match accepted {
                Ok((link, peer)) if is_plausible(peer.uid.as_raw()) => {
                    let (token, healthy, hellos) = (token.clone(), healthy.clone(), hellos.clone());
                    newcomers.spawn(async move {
                        // A connection that says nothing, or nothing sensible, is closed.
                        let _ = timeout(FIRST_WORD, receive_newcomer(link, &token, &healthy, &hellos)).await;
                    });
                }
                Ok(_) => {}
                // Out of descriptors, most likely: others may close some.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
        }
    }
}

/// Hears the first word of a connection.
async fn receive_newcomer(
    link: Link,
    token: &str,
    healthy: &AtomicBool,
    hellos: &mpsc::Sender<Hello>,
) -> io::Result<()> {
    let Packet { bytes, descriptors } = link.receive().await?;
    match wire::read(&bytes) {
        Some(Said::Hello { version: wire::VERSION, token: shown, resolver }) if shown == token.as_bytes() => {
            let mut descriptors = descriptors.into_iter();
            let output = descriptors.next().zip(descriptors.next());
            for descriptor in output.iter().flat_map(|(stdout, stderr)| [stdout, stderr]) {
                let flags = rustix::fs::fcntl_getfl(descriptor)?;
                rustix::fs::fcntl_setfl(descriptor, flags | OFlags::NONBLOCK)?;
            }
            // Nobody waits for it any more where this fails.
            let _ = hellos.send(Hello { link, resolver, output }).await;
        }
        Some(Said::Question { token: shown }) if shown == token.as_bytes() => {
            link.send(&wire::health(healthy.load(Ordering::Relaxed))).await?;
        }
        Some(_) | None => {}
    }
    Ok(())
}

/// Whether a container's process may have this user here: root, ourselves (a rootless engine), nobody, or one of the
/// subordinate users of a user namespace. Not another ordinary user of this machine.
fn is_plausible(user: u32) -> bool {
    const NOBODY: u32 = 65534;
    user == 0 || user >= NOBODY || user == rustix::process::geteuid().as_raw()
}

/// What an agent shows to be ours: 128 random bits, as text.
pub fn token() -> io::Result<String> {
    use std::fmt::Write;
    use std::io::Read;
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// The same error with what was being done, to which path.
fn at(error: io::Error, what: &str, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what} `{}`: {error}", path.display()))
}
