//! A small project for the tests of the views: a database, an api that waits for it, a Wasm gateway.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::event::{
    Event, Health, InstanceState, InstanceView, Kind, Phase, PublishedPort, Snapshot, Stamped, VERSION,
};
use crate::model::{InstanceName, Protocol};
use crate::session::Update;

/// The moment everything counts from.
pub(super) fn epoch() -> Timestamp {
    "2026-11-23T03:00:00Z".parse().unwrap()
}

/// So many milliseconds later.
pub(super) fn after(millis: i64) -> Timestamp {
    epoch() + SignedDuration::from_millis(millis)
}

pub(super) fn update(millis: i64, event: Event) -> Update {
    Update::Event(Stamped { at: after(millis), event })
}

pub(super) fn began(millis: i64, id: &str, status: &str) -> Update {
    update(millis, Event::StepStarted { id: id.into(), status: status.into() })
}

pub(super) fn ended(millis: i64, id: &str, status: &str) -> Update {
    update(millis, Event::StepFinished { id: id.into(), status: status.into() })
}

pub(super) fn failed(millis: i64, id: &str, error: &str, hint: Option<&str>) -> Update {
    update(millis, Event::StepFailed { id: id.into(), error: error.into(), hint: hint.map(str::to_owned) })
}

pub(super) fn changed(millis: i64, instance: &InstanceView) -> Update {
    update(millis, Event::Changed { instance: Box::new(instance.clone()) })
}

pub(super) fn instance(service: &str, kind: Kind, state: InstanceState) -> InstanceView {
    InstanceView {
        name: InstanceName::new(service.into(), 1),
        container: format!("shop-{service}-1"),
        kind,
        image: format!("{service}:1"),
        module: None,
        command: format!("/{service} --serve"),
        state,
        health: None,
        restarts: 0,
        ports: Vec::new(),
        addresses: BTreeMap::new(),
        id: None,
        created: Some(epoch()),
        started: None,
        finished: None,
    }
}

pub(super) fn port(address: &str, published: u16, target: u16) -> PublishedPort {
    PublishedPort { address: address.into(), published, target, protocol: Protocol::Tcp }
}

pub(super) fn snapshot() -> Snapshot {
    let mut db = instance("db", Kind::Linux, InstanceState::Running);
    db.health = Some(Health::Starting);
    db.started = Some(after(1_000));
    let api = instance("api", Kind::Linux, InstanceState::Waiting { reason: "`db` to become healthy".into() });
    let mut gateway = instance("gateway", Kind::Wasm, InstanceState::Running);
    gateway.image = "./gateway.wasm".into();
    gateway.started = Some(after(2_000));
    gateway.restarts = 2;
    gateway.ports = vec![port("0.0.0.0", 8080, 80), port("::", 8080, 80)];
    Snapshot {
        version: VERSION,
        project: "shop".into(),
        directory: "/shop".into(),
        files: vec!["/shop/compose.yaml".into()],
        supervisor: 4242,
        phase: Phase::Starting,
        instances: [db, api, gateway].into_iter().map(|instance| (instance.name.clone(), instance)).collect(),
    }
}
