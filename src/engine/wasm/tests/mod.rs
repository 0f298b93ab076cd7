//! The engine as the supervisor drives it, on guests written as text.

mod agents;
mod hands;
mod http;
mod programs;
mod reload;
mod sockets;

use std::path::Path;
use std::time::Duration;

use indexmap::IndexMap;
use tokio::sync::mpsc::{self, Receiver};

use super::*;
use crate::engine::{Attempt, Exit, Stream, Tagged, TaggedLine};
use crate::image::store::Store;
use crate::model::{NetworkKey, Service, ServiceName, WasmOptions};
use crate::net::directory::Directory;
use crate::plan::observed::RunState;
use crate::plan::unit::{AtEnd, NetworkJoin};

/// Nothing here takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// An engine with folders of its own.
struct Bench {
    folder: tempfile::TempDir,
    wasm: Arc<Wasm>,
}

/// A run that was started, and what came of it.
struct Started {
    handle: Box<dyn Handle>,
    reports: Receiver<Tagged>,
    lines: Receiver<TaggedLine>,
}

impl Bench {
    fn new() -> Self {
        Self::over(Directory::new(), Arc::default(), AgentWay::Probe)
    }

    fn over(directory: Arc<Directory>, docker: Arc<OnceCell<Arc<Docker>>>, agents: AgentWay) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders {
            runtime: folder.path().join("run"),
            cache: folder.path().join("cache"),
            data: folder.path().join("data"),
        };
        let wasm = Wasm::new(folders, Fabric::new(directory), docker, agents);
        Self { folder, wasm }
    }

    /// A service of a module given as text.
    fn spec(&self, name: &str, text: &str) -> InstanceSpec {
        let path = self.folder.path().join(format!("{name}.wat"));
        std::fs::write(&path, text).unwrap();
        let module = Store::new(self.folder.path()).local(&format!("./{name}.wat"), &path, None).unwrap();
        spec(name, module)
    }

    async fn create(&self, spec: &InstanceSpec) -> Result<()> {
        self.wasm.apply(&Step::Create { spec: Arc::new(spec.clone()), replace: None }).await
    }

    async fn start(&self, spec: &InstanceSpec) -> Started {
        let (reports, told) = mpsc::channel(64);
        let (lines, written) = mpsc::channel(4096);
        let outlet = Outlet::new(spec.name.clone(), Attempt(1), reports, lines, false);
        let handle = self.wasm.start(Arc::new(spec.clone()), outlet).await.unwrap();
        let mut started = Started { handle, reports: told, lines: written };
        assert!(matches!(started.report().await, Report::Started(_)));
        started
    }

    /// Creates, starts and waits for the end.
    async fn run(&self, spec: &InstanceSpec) -> (Exit, Vec<(Stream, String)>) {
        self.create(spec).await.unwrap();
        let mut started = self.start(spec).await;
        let exit = started.exit().await;
        (exit, started.written())
    }
}

impl Started {
    async fn report(&mut self) -> Report {
        let report = tokio::time::timeout(PATIENCE, self.reports.recv()).await.expect("a report in time");
        report.expect("the run tells its end").report
    }

    async fn exit(&mut self) -> Exit {
        loop {
            if let Report::Exited(exit) = self.report().await {
                return exit;
            }
        }
    }

    /// The lines so far.
    fn written(&mut self) -> Vec<(Stream, String)> {
        let mut written = Vec::new();
        while let Ok(line) = self.lines.try_recv() {
            written.push((line.line.stream, line.line.text));
        }
        written
    }
}

fn texts(written: &[(Stream, String)]) -> Vec<&str> {
    written.iter().map(|(_, text)| text.as_str()).collect()
}

fn spec(name: &str, module: Module) -> InstanceSpec {
    InstanceSpec {
        name: InstanceName::new(ServiceName::from(name), 1),
        project: "shop".into(),
        container: format!("shop-{name}-1"),
        service: Arc::new(service(name)),
        resolved: Resolved::Wasm(module),
        place: Place::InProcess,
        labels: BTreeMap::from([("com.docker.compose.project".into(), "shop".into())]),
        config_hash: "hash".into(),
        wasm_hash: Some("wasm".into()),
        networks: vec![NetworkJoin {
            key: NetworkKey::from("default"),
            name: "shop_default".into(),
            aliases: vec![format!("shop-{name}-1"), name.into()],
            attachment: Default::default(),
            internal: false,
            ipv6: false,
            in_process: true,
        }],
        environment: IndexMap::new(),
        volumes: IndexMap::new(),
        egress: Vec::new(),
        at_end: AtEnd::Kept,
    }
}

fn service(name: &str) -> Service {
    Service { wasm: Some(WasmOptions::default()), ..Service::named(name) }
}

/// Changes the service of a specification.
fn with_service(spec: &mut InstanceSpec, change: impl FnOnce(&mut Service)) {
    let mut service = (*spec.service).clone();
    change(&mut service);
    spec.service = Arc::new(service);
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}
