//! Where remote compose files come from: repositories behind git's own server, and a real registry.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::engine::skip;
use super::eventually;
use super::project::free_port;

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
        if Command::new("docker-registry").arg("--version").output().is_err() {
            skip("there is no `docker-registry` to run");
            return None;
        }
        let root = tempfile::Builder::new().prefix("wc-oci-").tempdir().expect("a temporary folder");
        let port = free_port();
        let folder = root.path().display();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n\
             storage: {{filesystem: {{rootdirectory: {folder}/storage}}}}\n"
        );
        if readers == Readers::Known {
            config += &format!("auth: {{htpasswd: {{realm: it, path: {folder}/users}}}}\n");
            let users = "me:$2y$05$SOMaXyaWzqzF.DtqyNZGtutI.DXwiQck9LW71CPc613MDFDJl94RC\n";
            fs::write(root.path().join("users"), users).expect("a writable folder");
        }
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
        let digest = self.blob(name, &manifest.to_string());
        let hex = digest.trim_start_matches("sha256:");
        let manifests = self.storage(&format!("repositories/{name}/_manifests"));
        link(&manifests.join("revisions/sha256").join(hex), &digest);
        link(&manifests.join("tags/1/current"), &digest);
        link(&manifests.join("tags/1/index/sha256").join(hex), &digest);
        digest
    }

    fn blob(&self, name: &str, content: &str) -> String {
        let hex: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        let path = self.data(&hex);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a writable folder");
        fs::write(path, content).expect("a writable folder");
        link(&self.storage(&format!("repositories/{name}/_layers/sha256/{hex}")), &format!("sha256:{hex}"));
        format!("sha256:{hex}")
    }

    /// Changes what the registry has under the digest of `content`.
    pub fn tamper(&self, content: &str, other: &str) {
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
