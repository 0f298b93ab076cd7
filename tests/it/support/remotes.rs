//! Where remote compose files come from: repositories behind git's own server, and a real registry.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::engine::skip;
use super::eventually;
use super::project::free_port;
use super::tokens::Tokens;

/// A server that ends with its scenario.
#[derive(Debug)]
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Starts it and waits until it accepts.
    fn start(command: &mut Command, port: u16) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let server = Self { child: child.expect("the server starts"), port };
        eventually("the server accepts", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)));
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Repositories behind `git daemon`.
#[derive(Debug)]
pub struct Repositories {
    root: TempDir,
    server: Server,
}

impl Repositories {
    /// A server without repositories; skips loudly where git has none.
    pub fn serve() -> Option<Self> {
        let path = Command::new("git").arg("--exec-path").output().ok().filter(|output| output.status.success());
        let path = path.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).join("git-daemon"));
        let Some(daemon) = path.filter(|daemon| daemon.is_file()) else {
            skip("there is no git with its daemon");
            return None;
        };
        let root = tempfile::Builder::new().prefix("wc-git-").tempdir().expect("a temporary folder");
        let port = free_port();
        let mut command = Command::new(daemon);
        command.args(["--export-all", "--reuseaddr", "--listen=127.0.0.1", &format!("--port={port}")]);
        command.arg(format!("--base-path={}", root.path().display()));
        let server = Server::start(&mut command, port);
        Some(Self { root, server })
    }

    /// The address of a repository.
    pub fn address(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.server.port)
    }

    /// The files of a repository.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes files and commits them: the commit. A text that begins with `-> ` is a symbolic link.
    pub fn commit(&self, name: &str, files: &[(&str, &str)]) -> String {
        let folder = self.folder(name);
        if !folder.exists() {
            fs::create_dir(&folder).expect("a writable folder");
            self.git(name, &["init", "--quiet", "--initial-branch=main"]);
        }
        for (path, text) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a writable folder");
            match text.strip_prefix("-> ") {
                Some(target) => symlink(target, &path).expect("a writable folder"),
                None => fs::write(&path, text).expect("a writable folder"),
            }
        }
        self.git(name, &["add", "--all"]);
        self.git(name, &["commit", "--quiet", "--message=change"]);
        self.git(name, &["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// Runs git in a repository: what it says.
    pub fn git(&self, name: &str, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(self.folder(name)).env("HOME", self.root.path());
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "it").env(format!("GIT_{role}_EMAIL"), "it@wcompose.invalid");
        }
        let output = command.env("GIT_CONFIG_NOSYSTEM", "1").output().expect("git runs");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Who may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// All.
    Anybody,
    /// `me` with the password `secret`.
    Known,
}

/// A layer of an artifact.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'l> {
    /// What follows `application/vnd.docker.compose.`.
    pub kind: &'l str,
    /// Annotations, each below `com.docker.compose.`.
    pub annotations: &'l [(&'l str, &'l str)],
    /// The file.
    pub content: &'l str,
}

/// Debian's `docker-registry`, with a storage folder that artifacts are written to directly.
#[derive(Debug)]
pub struct Registry {
    root: TempDir,
    server: Server,
}

impl Registry {
    /// An empty registry; skips loudly where there is none to run.
    pub fn serve(readers: Readers) -> Option<Self> {
        Self::start(|folder| match readers {
            Readers::Anybody => String::new(),
            Readers::Known => {
                let users = "me:$2y$05$SOMaXyaWzqzF.DtqyNZGtutI.DXwiQck9LW71CPc613MDFDJl94RC\n";
                fs::write(folder.join("users"), users).expect("a writable folder");
                format!("auth: {{htpasswd: {{realm: it, path: {}/users}}}}\n", folder.display())
            }
        })
    }

    /// The same, for those whom a token service lets in.
    pub fn guarded(tokens: &Tokens) -> Option<Self> {
        Self::start(|folder| {
            let certificate = folder.join("tokens.pem");
            fs::write(&certificate, tokens.certificate()).expect("a writable folder");
            format!(
                "auth: {{token: {{realm: \"{}\", service: it, issuer: it, rootcertbundle: {}}}}}\n",
                tokens.realm(),
                certificate.display()
            )
        })
    }

    /// An empty registry with more in its configuration.
    fn start(more: impl FnOnce(&Path) -> String) -> Option<Self> {
        if Command::new("docker-registry").arg("--version").output().is_err() {
            skip("there is no `docker-registry` to run");
            return None;
        }
        let root = tempfile::Builder::new().prefix("wc-oci-").tempdir().expect("a temporary folder");
        let port = free_port();
        let folder = root.path().display();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n\
             storage: {{filesystem: {{rootdirectory: {folder}/storage}}}}\n"
        );
        let config = config + &more(root.path());
        fs::write(root.path().join("config.yml"), config).expect("a writable folder");
        let mut command = Command::new("docker-registry");
        let server = Server::start(command.arg("serve").arg(root.path().join("config.yml")), port);
        Some(Self { root, server })
    }

    /// Its name.
    pub fn name(&self) -> String {
        format!("127.0.0.1:{}", self.server.port)
    }

    /// Publishes a compose project as `NAME:1`: the digest of its manifest.
    pub fn publish(&self, name: &str, layers: &[Layer<'_>]) -> String {
        let described = |layer: &Layer<'_>| {
            let annotations: BTreeMap<_, _> =
                layer.annotations.iter().map(|(key, value)| (format!("com.docker.compose.{key}"), *value)).collect();
            json!({
                "mediaType": format!("application/vnd.docker.compose.{}", layer.kind),
                "digest": self.blob(name, layer.content),
                "size": layer.content.len(),
                "annotations": annotations,
            })
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "application/vnd.docker.compose.project",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": self.blob(name, "{}"), "size": 2},
            "layers": layers.iter().map(described).collect::<Vec<Value>>(),
        });
        self.tag(name, &manifest)
    }

    /// Lets `NAME:1` stand for a manifest or an index: its digest.
    pub fn tag(&self, name: &str, manifest: &Value) -> String {
        let digest = self.manifest(name, manifest);
        let hex = digest.trim_start_matches("sha256:");
        let tag = self.storage(&format!("repositories/{name}/_manifests/tags/1"));
        link(&tag.join("current"), &digest);
        link(&tag.join("index/sha256").join(hex), &digest);
        digest
    }

    /// A manifest that can be asked for by its digest.
    pub fn manifest(&self, name: &str, manifest: &Value) -> String {
        let digest = self.blob(name, manifest.to_string());
        let hex = digest.trim_start_matches("sha256:");
        link(&self.storage(&format!("repositories/{name}/_manifests/revisions/sha256/{hex}")), &digest);
        digest
    }

    /// What it has under a digest, of whatever repository.
    pub fn content(&self, digest: &str) -> Vec<u8> {
        fs::read(self.data(digest.trim_start_matches("sha256:"))).expect("the registry has it")
    }

    /// The digest a tag stands for.
    pub fn tagged(&self, name: &str, tag: &str) -> String {
        let link = self.storage(&format!("repositories/{name}/_manifests/tags/{tag}/current/link"));
        fs::read_to_string(link).expect("the registry has the tag")
    }

    /// A blob: its digest.
    pub fn blob(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let content = content.as_ref();
        let hex: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        let path = self.data(&hex);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a writable folder");
        fs::write(path, content).expect("a writable folder");
        link(&self.storage(&format!("repositories/{name}/_layers/sha256/{hex}")), &format!("sha256:{hex}"));
        format!("sha256:{hex}")
    }

    /// Changes what the registry has under the digest of `content`.
    pub fn tamper(&self, content: impl AsRef<[u8]>, other: impl AsRef<[u8]>) {
        let (content, other) = (content.as_ref(), other.as_ref());
        let hex: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(content.len(), other.len(), "a registry notices another length");
        fs::write(self.data(&hex), other).expect("a writable folder");
    }

    fn data(&self, hex: &str) -> PathBuf {
        self.storage(&format!("blobs/sha256/{}/{hex}/data", &hex[..2]))
    }

    fn storage(&self, path: &str) -> PathBuf {
        self.root.path().join("storage/docker/registry/v2").join(path)
    }
}

fn link(folder: &Path, digest: &str) {
    fs::create_dir_all(folder).expect("a writable folder");
    fs::write(folder.join("link"), digest).expect("a writable folder");
}

/// A registry with one repository that breaks blobs off in the middle, as a real one cannot be made to.
#[derive(Debug)]
pub struct Breaking {
    port: u16,
}

impl Breaking {
    /// Serves documents and blobs by path (`manifests/1`, `blobs/sha256:…`); the first so many blobs break off. The
    /// thread ends with the tests.
    pub fn serve(parts: BTreeMap<String, (&'static str, Vec<u8>)>, mut breaks: usize) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
                    head.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default().trim_start_matches("/v2/");
                let part = parts.get(path.trim_start_matches("app/"));
                let (status, kind, body) = match part {
                    Some((kind, body)) => ("200 OK", *kind, body.as_slice()),
                    None if path.is_empty() => ("200 OK", "application/json", b"{}".as_slice()),
                    None => ("404 Not Found", "application/json", b"{}".as_slice()),
                };
                let broken = path.contains("blobs/") && breaks > 0;
                breaks -= usize::from(broken);
                let sent = if broken { &body[..body.len() / 2] } else { body };
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(sent));
            }
        });
        Self { port }
    }

    /// Its name.
    pub fn name(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}
