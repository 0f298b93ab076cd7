//! Guests at agents of the real engine: required with `WCOMPOSE_REQUIRE_ENGINE=1`, skipped loudly where none answers.

use super::programs::{WRITE, open, program};
use super::*;
use crate::engine::testing::{self, connect, sweep};
use crate::model::{Mount, MountSource, Network, Volume};
use crate::plan::unit::VolumeSpec;

/// A project of its own on the engine; everything of it goes when it is dropped.
struct Site {
    bench: Bench,
    docker: Arc<Docker>,
    project: String,
}

impl Site {
    /// Nothing when no engine answers and none is required.
    async fn new(test: &str) -> Option<Self> {
        Self::with(test, AgentWay::Probe).await
    }

    /// The same, with agents that are connected so.
    async fn with(test: &str, agents: AgentWay) -> Option<Self> {
        let directory = Directory::new();
        let docker = connect(directory.clone()).await?;
        let cell = Arc::new(OnceCell::new_with(Some(docker.clone())));
        let bench = Bench::over(directory, cell, agents);
        let site = Self { bench, docker, project: format!("wasm-{test}-{}", std::process::id()) };
        site.docker.apply(&Step::CreateNetwork(Box::new(site.network()))).await.unwrap();
        Some(site)
    }

    fn labels(&self, key: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("com.docker.compose.project".to_owned(), self.project.clone()),
            (key.to_owned(), value.to_owned()),
        ])
    }

    fn network(&self) -> NetworkSpec {
        let network = Network::of(&self.project, "default");
        let labels = self.labels("com.docker.compose.network", "default");
        NetworkSpec { network, labels, replace: None, in_process: false }
    }

    /// A Wasm service at an agent.
    fn spec(&self, name: &str, text: &str) -> InstanceSpec {
        let mut spec = self.bench.spec(name, text);
        spec.project = self.project.as_str().into();
        spec.container = format!("{}-{name}-1", self.project);
        spec.place = Place::Agent;
        spec.labels = self.labels("com.docker.compose.service", name);
        for (key, value) in [
            ("com.docker.compose.container-number", "1"),
            ("com.docker.compose.oneoff", "False"),
            ("com.docker.compose.config-hash", "hash"),
            ("dev.wcompose.hash", "wasm"),
        ] {
            spec.labels.insert(key.into(), value.into());
        }
        let join = &mut spec.networks[0];
        join.in_process = false;
        join.name = format!("{}_default", self.project);
        spec
    }

    /// Runs a command in a Linux container on the network.
    fn linux(&self, arguments: &[&str]) -> String {
        let network = format!("{}_default", self.project);
        let run = ["run", "--rm", "--network", &network, "--label", "wcompose.test=wasm", "busybox"];
        docker(&[&run[..], arguments].concat())
    }

    fn inspect(&self, spec: &InstanceSpec, format: &str) -> String {
        docker(&["inspect", "--format", format, &spec.container])
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        sweep(&self.project);
    }
}

/// The engine's own command line: a second opinion. Both its streams as one text.
fn docker(arguments: &[&str]) -> String {
    let output = testing::docker(arguments);
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// What holds for an agent, whichever way it is connected.
macro_rules! both_ways {
    ($($name:ident: $short:literal),* $(,)?) => {
        mod mounted {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    let Some(site) = Site::with($short, AgentWay::Probe).await else { return };
                    super::$name(&site).await;
                }
            )*
        }
        mod carried {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    let Some(site) = Site::with(concat!($short, "-carried"), AgentWay::Attach).await else { return };
                    super::$name(&site).await;
                }
            )*
        }
    };
}

both_ways! {
    a_linux_container_reaches_a_guest_by_name: "name",
    docker_shows_the_lines_and_the_exit_code: "logs",
    docker_can_stop_and_remove_a_guest: "stop",
}

async fn a_linux_container_reaches_a_guest_by_name(site: &Site) {
    let spec = site.spec("web", &http::component(""));
    site.bench.create(&spec).await.unwrap();
    let mut started = site.bench.start(&spec).await;
    let answer = site.linux(&["wget", "-S", "-O-", "http://web:8080/"]);
    assert!(answer.contains("HTTP/1.1 201 Created"), "{answer}");
    assert_eq!(site.inspect(&spec, "{{.State.Status}}"), "running");
    assert_eq!(site.bench.get(&spec, 8080).await.0, 201);
    started.handle.stop(None).await.unwrap();
    assert_eq!(started.exit().await.code, 143);
    assert_eq!(site.inspect(&spec, "{{.State.Status}} {{.State.ExitCode}}"), "exited 143");
}

async fn docker_shows_the_lines_and_the_exit_code(site: &Site) {
    let spec = site.spec("job", &program("(call $print (i32.const 0) (i32.const 8)) (call $exit (i32.const 7))"));
    site.bench.create(&spec).await.unwrap();
    for _ in 0..2 {
        // A second start finds the same container.
        let mut started = site.bench.start(&spec).await;
        assert_eq!(started.exit().await.code, 7);
        assert_eq!(texts(&started.written()), ["file.txt"]);
        assert_eq!(site.inspect(&spec, "{{.State.Status}} {{.State.ExitCode}}"), "exited 7");
    }
    assert_eq!(docker(&["logs", &spec.container]), "file.txt\nfile.txt");
}

async fn docker_can_stop_and_remove_a_guest(site: &Site) {
    let spec = site.spec("job", &program("(loop (br 0))"));
    site.bench.create(&spec).await.unwrap();
    let mut started = site.bench.start(&spec).await;
    docker(&["stop", &spec.container]);
    let exit = started.exit().await;
    assert_eq!((exit.code, exit.reason), (143, None));
    let mut started = site.bench.start(&spec).await;
    docker(&["rm", "-f", &spec.container]);
    let exit = started.exit().await;
    assert_eq!((exit.code, exit.reason.as_deref()), (137, Some("its agent container was stopped or removed")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_cannot_reach_the_mounted_socket_is_made_to_carry() {
    let Some(site) = Site::new("probe").await else { return };
    let spec = site.spec("web", &http::component(""));
    site.bench.create(&spec).await.unwrap();
    let before = site.inspect(&spec, "{{.Id}}");
    // As where the folder is shared with the engine's machine, and its sockets are not.
    std::fs::remove_file(site.bench.folder.path().join("run").join(spec::short_id(&spec)).join("s")).unwrap();
    let mut started = site.bench.start(&spec).await;
    assert_ne!(site.inspect(&spec, "{{.Id}}"), before);
    assert_eq!(site.inspect(&spec, "{{(index .Mounts 0).Type}}"), "tmpfs");
    let answer = site.linux(&["wget", "-S", "-O-", "http://web:8080/"]);
    assert!(answer.contains("HTTP/1.1 201 Created"), "{answer}");
    started.handle.stop(None).await.unwrap();
    assert_eq!(started.exit().await.code, 143);
    // The next ones are made so at once.
    let next = site.spec("next", &program("(call $exit (i32.const 3))"));
    assert_eq!(site.bench.run(&next).await.0.code, 3);
    assert_eq!(site.inspect(&next, "{{(index .Mounts 0).Type}} {{.State.ExitCode}}"), "tmpfs 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_volume_of_a_carrying_agent_is_refused_by_name() {
    let Some(site) = Site::with("novolume", AgentWay::Attach).await else { return };
    let mut spec = site.spec("job", &program(""));
    let source = MountSource::Volume { key: "data".into(), no_copy: false, subpath: None };
    with_service(&mut spec, |service| {
        service.mounts.push(Mount { source, target: "/data".into(), read_only: false });
    });
    spec.volumes.insert("data".into(), format!("{}_data", site.project));
    let error = site.bench.create(&spec).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    let text = error.to_string();
    assert!(text.contains("service `job`") && text.contains("volume `data`") && text.contains("`/data`"), "{text}");
    assert!(error.hint.unwrap().contains("./data:/data"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_ends_with_the_streams_of_its_agent() {
    let Some(site) = Site::with("cut", AgentWay::Attach).await else { return };
    let spec = site.spec("job", &program("(loop (br 0))"));
    site.bench.create(&spec).await.unwrap();
    let mut started = site.bench.start(&spec).await;
    // The program that lends them, seen from the host, is the youngest of the container's.
    let processes = docker(&["top", &spec.container, "-eo", "pid,args"]);
    let lender = processes.lines().find(|line| line.contains("lend")).expect("it runs");
    let id = lender.split_whitespace().next().expect("a number").parse().expect("a number");
    rustix::process::kill_process(rustix::process::Pid::from_raw(id).unwrap(), rustix::process::Signal::KILL).unwrap();
    let exit = started.exit().await;
    assert_eq!((exit.code, exit.reason.as_deref()), (137, Some("its agent container was stopped or removed")));
    assert_eq!(site.inspect(&spec, "{{.State.Status}}"), "exited");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_volume_is_shared_with_linux() {
    let Some(site) = Site::new("volume").await else { return };
    let volume = Volume::of(&site.project, "data");
    let name = volume.name.clone();
    let labels = site.labels("com.docker.compose.volume", "data");
    site.docker.apply(&Step::CreateVolume(Box::new(VolumeSpec { volume, labels, in_process: false }))).await.unwrap();
    let mut spec = site.spec("job", &open(4, 1, WRITE));
    let source = MountSource::Volume { key: "data".into(), no_copy: false, subpath: None };
    with_service(&mut spec, |service| {
        service.mounts.push(Mount { source, target: "/data".into(), read_only: false });
    });
    spec.volumes.insert("data".into(), name.clone());
    assert_eq!(site.bench.run(&spec).await.0.code, 0);
    assert_eq!(docker(&["run", "--rm", "-v", &format!("{name}:/data"), "busybox", "ls", "/data"]), "file.txt");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_supervisor_takes_over_and_removes() {
    let Some(site) = Site::new("over").await else { return };
    let spec = site.spec("job", &program("(call $exit (i32.const 3))"));
    site.bench.create(&spec).await.unwrap();
    let docker = Docker::connect(None, Directory::new()).await.unwrap();
    let next = Bench::over(Directory::new(), Arc::new(OnceCell::new_with(Some(docker.clone()))), AgentWay::Probe);
    let mut started = next.start(&spec).await;
    assert_eq!(started.exit().await.code, 3);
    let observed = docker.observe(&spec.project).await.unwrap().instances;
    assert_eq!(observed.len(), 1);
    let remove = Step::Remove { existing: Box::new(observed[0].clone()), grace: None, volumes: false };
    next.wasm.apply(&remove).await.unwrap();
    assert_eq!(docker.observe(&spec.project).await.unwrap().instances, []);
    assert!(is_empty(&next.folder.path().join("data/instances")) && is_empty(&next.folder.path().join("run")));
}
