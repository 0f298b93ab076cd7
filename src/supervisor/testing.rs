//! What the tests of this folder share: services in a line, plans as the planner makes them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use crate::model::{
    Condition, Dependency, HealthTest, Healthcheck, ImageConfig, InstanceName, Module, ModuleKind, ProjectName,
    Resolved, Restart, Service, ServiceName,
};
use crate::net::wiring::Place;
use crate::plan::observed::{Existing, ExistingKind, RunState};
use crate::plan::unit::{Action, AtEnd, Cause, Edge, EdgeCondition, InstanceSpec, Plan, Step, Unit, UnitId, Work};

/// A service, to be put into a plan.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) service: Service,
    resolved: Resolved,
    edges: Vec<(InstanceName, EdgeCondition, bool)>,
    at_end: AtEnd,
}

/// Short enough to be read in a failing case.
impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.resolved.is_wasm() { "wasm" } else { "linux" };
        write!(f, "{kind} {} restart {}", self.service.name, self.service.restart)?;
        let edge = |(on, condition, required): &(InstanceName, EdgeCondition, bool)| {
            format!(" after {on} {condition:?}{}", if *required { "" } else { "?" })
        };
        f.write_str(&self.edges.iter().map(edge).collect::<String>())
    }
}

pub(super) fn linux(name: &str) -> Draft {
    let resolved =
        Resolved::Linux { image: format!("{name}:1"), id: "sha256:1".into(), config: ImageConfig::default() };
    Draft { service: service(name), resolved, edges: Vec::new(), at_end: AtEnd::Kept }
}

pub(super) fn wasm(name: &str) -> Draft {
    let resolved = Resolved::Wasm(Module {
        reference: format!("./{name}.wasm"),
        path: PathBuf::from(format!("/p/{name}.wasm")),
        digest: "0".repeat(64),
        size: 8,
        kind: ModuleKind::Core,
        function: None,
        root: None,
        files: None,
        config: ImageConfig::default(),
    });
    Draft { service: service(name), resolved, edges: Vec::new(), at_end: AtEnd::Kept }
}

impl Draft {
    pub(super) fn after(self, on: &str, condition: EdgeCondition) -> Self {
        self.edge(on, condition, true)
    }

    pub(super) fn perhaps_after(self, on: &str, condition: EdgeCondition) -> Self {
        self.edge(on, condition, false)
    }

    fn edge(mut self, on: &str, condition: EdgeCondition, required: bool) -> Self {
        let of_service = match condition {
            EdgeCondition::Done | EdgeCondition::Started => Condition::Started,
            EdgeCondition::Healthy => Condition::Healthy,
            EdgeCondition::Completed => Condition::Completed,
        };
        let dependency = Dependency { condition: of_service, restart: false, required };
        self.service.depends_on.insert(ServiceName::new(on), dependency);
        self.edges.push((instance(on), condition, required));
        self
    }

    /// Its dependencies restart it when they are restarted.
    pub(super) fn restarting(mut self) -> Self {
        self.service.depends_on.values_mut().for_each(|dependency| dependency.restart = true);
        self
    }

    /// Its engine removes it at its end.
    pub(super) fn removed(self) -> Self {
        Self { at_end: AtEnd::Removed, ..self }
    }

    /// A module of this digest, repeated.
    pub(super) fn digest(mut self, digit: char) -> Self {
        if let Resolved::Wasm(module) = &mut self.resolved {
            module.digest = digit.to_string().repeat(64);
        }
        self
    }

    pub(super) fn policy(mut self, restart: Restart) -> Self {
        self.service.restart = restart;
        self
    }

    /// A check of this command, every second, three tries.
    pub(super) fn check(mut self, line: &str) -> Self {
        self.service.healthcheck = Some(Healthcheck {
            test: Some(HealthTest::Shell(line.into())),
            interval: Some(Duration::from_secs(1)),
            ..Healthcheck::default()
        });
        self
    }

    pub(super) fn spec(&self) -> Arc<InstanceSpec> {
        let name = InstanceName::new(self.service.name.clone(), 1);
        Arc::new(InstanceSpec {
            container: format!("p-{name}"),
            name,
            project: ProjectName::new("p"),
            service: Arc::new(self.service.clone()),
            resolved: self.resolved.clone(),
            place: Place::InProcess,
            labels: BTreeMap::new(),
            config_hash: String::new(),
            wasm_hash: None,
            networks: Vec::new(),
            environment: IndexMap::new(),
            volumes: IndexMap::new(),
            egress: Vec::new(),
            at_end: self.at_end,
        })
    }
}

pub(super) fn instance(service: &str) -> InstanceName {
    InstanceName::new(ServiceName::new(service), 1)
}

fn unit(id: UnitId, work: Work, after: Vec<Edge>) -> Unit {
    Unit { id, work, cause: Cause("test".into()), after }
}

/// `up` of services of which nothing exists: every instance after every creation.
pub(super) fn up(drafts: &[Draft]) -> Plan {
    up_with(drafts, |_| None)
}

/// `up` that replaces what `existing` knows.
pub(super) fn up_with(drafts: &[Draft], existing: impl Fn(&InstanceName) -> Option<Existing>) -> Plan {
    let specs: Vec<_> = drafts.iter().map(|draft| (draft, draft.spec())).collect();
    let mut units: Vec<Unit> = specs
        .iter()
        .map(|(_, spec)| {
            let replace = existing(&spec.name).map(Box::new);
            let step = Step::Create { spec: Arc::clone(spec), replace };
            unit(UnitId::Create(spec.name.clone()), Work::Step(step), Vec::new())
        })
        .collect();
    let created: Vec<Edge> =
        units.iter().map(|unit| Edge { on: unit.id.clone(), condition: EdgeCondition::Done, required: true }).collect();
    for (draft, spec) in specs {
        units.push(instance_unit(draft, spec, Action::Start, created.clone()));
    }
    Plan { units, warnings: Vec::new() }
}

/// `up` of services that all run already.
pub(super) fn unchanged(drafts: &[Draft]) -> Plan {
    running_as(drafts, Action::Adopt)
}

/// Services that exist and do not run, as they are.
pub(super) fn stopped(drafts: &[Draft]) -> Plan {
    running_as(drafts, |existing| Action::Know(Box::new(Existing { state: RunState::Exited, ..*existing })))
}

/// `up` of services that all run already, with other modules.
pub(super) fn swapped(drafts: &[Draft]) -> Plan {
    running_as(drafts, Action::Swap)
}

fn running_as(drafts: &[Draft], action: fn(Box<Existing>) -> Action) -> Plan {
    let units = drafts.iter().map(|draft| {
        let spec = draft.spec();
        let action = action(Box::new(running(&spec.name)));
        instance_unit(draft, spec, action, Vec::new())
    });
    Plan { units: units.collect(), warnings: Vec::new() }
}

fn instance_unit(draft: &Draft, spec: Arc<InstanceSpec>, action: Action, mut after: Vec<Edge>) -> Unit {
    after.extend(draft.edges.iter().map(|(on, condition, required)| Edge {
        on: UnitId::Instance(on.clone()),
        condition: *condition,
        required: *required,
    }));
    unit(UnitId::Instance(spec.name.clone()), Work::Instance(spec, action), after)
}

/// `down` of these, each after those before it, then the network.
pub(super) fn down(services: &[&str]) -> Plan {
    let mut units: Vec<Unit> = Vec::new();
    for service in services {
        let existing = running(&instance(service));
        let id = UnitId::Remove(existing.name.clone());
        let after =
            units.iter().map(|unit| Edge { on: unit.id.clone(), condition: EdgeCondition::Done, required: true });
        let (after, existing) = (after.collect(), Box::new(existing));
        units.push(unit(id, Work::Step(Step::Remove { existing, grace: None, volumes: false }), after));
    }
    let after = units.iter().map(|unit| Edge { on: unit.id.clone(), condition: EdgeCondition::Done, required: true });
    let after = after.collect();
    let network = "p_default".to_owned();
    units.push(unit(UnitId::RemoveNetwork(network.clone()), Work::Step(Step::RemoveNetwork(network)), after));
    Plan { units, warnings: Vec::new() }
}

pub(super) fn running(name: &InstanceName) -> Existing {
    Existing {
        id: format!("id-{name}"),
        name: format!("p-{name}"),
        kind: ExistingKind::Container,
        service: Some(name.service.clone()),
        number: Some(name.number),
        one_off: false,
        state: RunState::Running,
        health: None,
        exit_code: 0,
        config_hash: None,
        wasm_hash: None,
        image_id: None,
        image: String::new(),
        command: String::new(),
        networks: BTreeMap::new(),
        volumes: Vec::new(),
        anonymous_volumes: BTreeMap::new(),
        ports: Vec::new(),
        created: 1,
        started: 1,
        finished: 0,
        restarts: 0,
        labels: BTreeMap::new(),
    }
}

fn service(name: &str) -> Service {
    Service::named(name)
}
