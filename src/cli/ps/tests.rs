//! What `ps` prints of a mixed project, at several moments of its life.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use super::*;
use crate::event::{Phase, PublishedPort, VERSION};
use crate::model::{InstanceName, Protocol};

const NOW: i64 = 1_795_000_000;

fn clock() -> Clock {
    Clock { now: Timestamp::from_second(NOW).unwrap(), zone: TimeZone::UTC }
}

fn existing(service: &str, kind: ExistingKind, state: RunState) -> Existing {
    Existing {
        id: format!("{service:0<64}"),
        name: format!("shop-{service}-1"),
        kind,
        service: Some(service.into()),
        number: Some(1),
        one_off: false,
        state,
        health: None,
        exit_code: 0,
        config_hash: None,
        wasm_hash: None,
        image_id: None,
        image: format!("{service}:1"),
        command: format!("/bin/{service} --serve --port 80"),
        networks: BTreeMap::from([("shop_default".into(), Vec::new())]),
        volumes: Vec::new(),
        anonymous_volumes: BTreeMap::new(),
        ports: Vec::new(),
        created: NOW - 90,
        started: if state == RunState::Created { 0 } else { NOW - 80 },
        finished: if state == RunState::Exited { NOW - 3 } else { 0 },
        restarts: 0,
        labels: BTreeMap::new(),
    }
}

fn view(service: &str, kind: Kind, state: InstanceState) -> InstanceView {
    let second = |seconds| Some(Timestamp::from_second(seconds).unwrap());
    InstanceView {
        name: InstanceName::new(service.into(), 1),
        container: format!("shop-{service}-1"),
        kind,
        image: format!("./{service}.wasm"),
        module: None,
        command: format!("{service}.wasm"),
        state,
        health: None,
        restarts: 0,
        ports: Vec::new(),
        addresses: BTreeMap::new(),
        id: None,
        created: second(NOW - 90),
        started: second(NOW - 2),
        finished: None,
    }
}

fn snapshot(instances: impl IntoIterator<Item = InstanceView>) -> Snapshot {
    Snapshot {
        version: VERSION,
        project: "shop".into(),
        directory: "/shop".into(),
        files: Vec::new(),
        supervisor: 1,
        phase: Phase::Running,
        instances: instances.into_iter().map(|view| (view.name.clone(), view)).collect(),
    }
}

fn observed(instances: impl IntoIterator<Item = Existing>) -> Observed {
    Observed { instances: instances.into_iter().collect(), ..Observed::default() }
}

fn all() -> Selection {
    Selection { extent: Extent::All, ..Selection::default() }
}

fn listed(observed: &Observed, snapshot: Option<&Snapshot>, selection: &Selection, format: Format) -> String {
    let rows = rows(&"shop".into(), observed, snapshot, selection, &clock());
    let mut out = Vec::new();
    print(&rows, format, &clock(), &mut out).unwrap();
    // The blanks before an empty last column are the table's own test.
    String::from_utf8(out).unwrap().lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

const TABLE: Format = Format::Table(Shortening::On);

/// A database that is not ready, an api that waits for it in a container, a gateway in an agent, a job that ended,
/// and a pricing service without any container.
fn mixed() -> (Observed, Snapshot) {
    let mut db = existing("db", ExistingKind::Container, RunState::Running);
    db.health = Some(Health::Starting);
    let port = |address: &str| PublishedPort {
        address: address.into(),
        published: 8080,
        target: 8080,
        protocol: Protocol::Tcp,
    };
    let mut gateway = view("gateway", Kind::Wasm, InstanceState::Running);
    gateway.health = Some(Health::Healthy);
    gateway.ports = vec![port("0.0.0.0"), port("::")];
    let mut job = existing("job", ExistingKind::Container, RunState::Exited);
    job.exit_code = 3;
    let reason = || "`db` to become healthy".to_owned();
    let observed = observed([
        job,
        existing("gateway", ExistingKind::Agent, RunState::Running),
        db,
        existing("api", ExistingKind::Container, RunState::Created),
    ]);
    let snapshot = snapshot([
        view("db", Kind::Linux, InstanceState::Running),
        view("api", Kind::Linux, InstanceState::Waiting { reason: reason() }),
        view("pricing", Kind::Wasm, InstanceState::Waiting { reason: reason() }),
        view("report", Kind::Wasm, InstanceState::Exited { code: 0, reason: None }),
        gateway,
    ]);
    (observed, snapshot)
}

#[test]
fn both_kinds_stand_in_one_table() {
    let (observed, snapshot) = mixed();
    insta::assert_snapshot!(listed(&observed, Some(&snapshot), &Selection::default(), TABLE), @r#"
    NAME             IMAGE            COMMAND                  SERVICE   CREATED              STATUS                                 PORTS
    shop-db-1        db:1             "/bin/db --serve --p…"   db        About a minute ago   Up About a minute (health: starting)
    shop-gateway-1   ./gateway.wasm   "gateway.wasm"           gateway   About a minute ago   Up 2 seconds (healthy)                 0.0.0.0:8080->8080/tcp, [::]:8080->8080/tcp
    shop-pricing-1   ./pricing.wasm   "pricing.wasm"           pricing   About a minute ago   Waiting for `db` to become healthy
    "#);
    insta::assert_snapshot!(listed(&observed, Some(&snapshot), &all(), TABLE), @r#"
    NAME             IMAGE            COMMAND                  SERVICE   CREATED              STATUS                                 PORTS
    shop-api-1       api:1            "/bin/api --serve --…"   api       About a minute ago   Waiting for `db` to become healthy
    shop-db-1        db:1             "/bin/db --serve --p…"   db        About a minute ago   Up About a minute (health: starting)
    shop-gateway-1   ./gateway.wasm   "gateway.wasm"           gateway   About a minute ago   Up 2 seconds (healthy)                 0.0.0.0:8080->8080/tcp, [::]:8080->8080/tcp
    shop-job-1       job:1            "/bin/job --serve --…"   job       About a minute ago   Exited (3) 3 seconds ago
    shop-pricing-1   ./pricing.wasm   "pricing.wasm"           pricing   About a minute ago   Waiting for `db` to become healthy
    shop-report-1    ./report.wasm    "report.wasm"            report    About a minute ago   Exited (0) 2 seconds ago
    "#);
}

#[test]
fn without_a_supervisor_the_engine_is_believed() {
    let (mut observed, _) = mixed();
    observed.instances[1].state = RunState::Exited;
    (observed.instances[1].exit_code, observed.instances[1].finished) = (137, NOW - 60);
    insta::assert_snapshot!(listed(&observed, None, &all(), TABLE), @r#"
    NAME             IMAGE       COMMAND                  SERVICE   CREATED              STATUS                                 PORTS
    shop-api-1       api:1       "/bin/api --serve --…"   api       About a minute ago   Created
    shop-db-1        db:1        "/bin/db --serve --p…"   db        About a minute ago   Up About a minute (health: starting)
    shop-gateway-1   gateway:1   "/bin/gateway --serv…"   gateway   About a minute ago   Exited (137) About a minute ago
    shop-job-1       job:1       "/bin/job --serve --…"   job       About a minute ago   Exited (3) 3 seconds ago
    "#);
}

#[test]
fn states_read_as_in_docker() {
    let mut states = Vec::new();
    for state in [
        RunState::Created,
        RunState::Running,
        RunState::Paused,
        RunState::Restarting,
        RunState::Removing,
        RunState::Exited,
        RunState::Dead,
    ] {
        let mut one = existing("a", ExistingKind::Container, state);
        (one.finished, one.exit_code) = (NOW - 7_000, 1);
        states.push(of_existing(&"shop".into(), &one, None, &clock()).status);
    }
    insta::assert_snapshot!(states.join("\n"), @r"
    Created
    Up About a minute
    Up About a minute (Paused)
    Restarting (1) 2 hours ago
    Removal In Progress
    Exited (1) 2 hours ago
    Dead
    ");
}

#[test]
fn a_guest_is_shown_as_its_supervisor_sees_it() {
    let agents = || existing("gateway", ExistingKind::Agent, RunState::Running);
    let mut lines = Vec::new();
    for state in [
        InstanceState::Starting,
        InstanceState::Running,
        InstanceState::Paused,
        InstanceState::Stopping,
        InstanceState::Exited { code: 134, reason: Some("wasm trap".into()) },
        InstanceState::Restarting { code: 1, reason: None },
        InstanceState::Failed { reason: "dependency `db` failed to start: it is unhealthy".into() },
        InstanceState::Created,
    ] {
        let row = of_existing(&"shop".into(), &agents(), Some(&view("gateway", Kind::Wasm, state)), &clock());
        lines.push(format!("{} {}: {}", row.state, row.exit_code, row.status));
    }
    insta::assert_snapshot!(lines.join("\n"), @r"
    created 0: Starting
    running 0: Up 2 seconds
    paused 0: Up 2 seconds (Paused)
    running 0: Up 2 seconds
    exited 134: Exited (134) 2 seconds ago
    restarting 1: Restarting (1) 2 seconds ago
    created 0: Failed: dependency `db` failed to start: it is unhealthy
    created 0: Created
    ");
}

#[test]
fn one_offs_and_undeclared_services_are_told_apart() {
    let mut task = existing("task", ExistingKind::Container, RunState::Running);
    (task.one_off, task.number) = (true, None);
    let mut stray = existing("stray", ExistingKind::Container, RunState::Running);
    stray.service = None;
    let observed = observed([task, stray, existing("db", ExistingKind::Container, RunState::Running)]);
    assert_eq!(listed(&observed, None, &Selection::default(), Format::Services), "db\n");
    assert_eq!(listed(&observed, None, &all(), Format::Services), "db\ntask\n");
    let ids = listed(&observed, None, &Selection::default(), Format::Ids);
    assert_eq!(ids.lines().map(str::len).collect::<Vec<_>>(), [64, 64], "whole ids, of the stray one as well");
}

#[test]
fn states_and_services_select() {
    let (observed, snapshot) = mixed();
    let services = |selection: Selection| listed(&observed, Some(&snapshot), &selection, Format::Services);
    let status = |words: &[&str]| Selection {
        status: words.iter().map(|word| (*word).to_owned()).collect(),
        ..Selection::default()
    };
    assert_eq!(services(status(&["exited"])), "job\nreport\n");
    assert_eq!(services(status(&["created", "running"])), "api\ndb\ngateway\npricing\n");
    assert_eq!(services(Selection { services: vec!["job".into()], ..Selection::default() }), "");
    assert_eq!(services(Selection { services: vec!["job".into()], ..all() }), "job\n");
    assert_eq!(listed(&observed, Some(&snapshot), &status(&["dead"]), Format::Ids), "");
}

#[test]
fn json_is_an_object_a_line() {
    let (observed, snapshot) = mixed();
    let text = listed(&observed, Some(&snapshot), &all(), Format::Json(Shortening::On));
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let short: Vec<String> = rows
        .iter()
        .map(|row| format!("{} {} {} {}", row["Name"], row["State"], row["ExitCode"], row["Health"]))
        .collect();
    insta::assert_snapshot!(short.join("\n"), @r#"
    "shop-api-1" "created" 0 ""
    "shop-db-1" "running" 0 "starting"
    "shop-gateway-1" "running" 0 "healthy"
    "shop-job-1" "exited" 3 ""
    "shop-pricing-1" "created" 0 ""
    "shop-report-1" "exited" 0 ""
    "#);
}
