//! Plans as text, and the two laws on random projects.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use insta::assert_snapshot;
use proptest::prelude::*;
use serde_json::json;

use super::observed::{Existing, ExistingKind, ExistingNetwork, ExistingVolume, Observed, RunState};
use super::unit::{Action, InstanceSpec, Plan, Step, UnitId, Work};
use super::{
    Count, Dependencies, DownOptions, NewModule, Options, Orphans, Recreate, Resolution, Target, down, label, plan,
};
use crate::model::{
    Attachment, Condition, Dependency, ExposedPort, ImageConfig, Module, ModuleKind, Mount, MountSource, Network,
    NetworkMode, Project, Protocol, Resolved, Service, ServiceName, Volume, WasmOptions,
};
use crate::net::wiring::Place;

/// A project and what its images are, grown service by service.
#[derive(Debug, Clone)]
struct World {
    project: Project,
    resolution: Resolution,
}

fn world() -> World {
    World {
        project: Project { files: vec!["/p/compose.yaml".into(), "/p/b.yaml".into()], ..Project::named("p") },
        resolution: BTreeMap::new(),
    }
}

impl World {
    fn linux(self, name: &str) -> Self {
        let resolved = Resolved::Linux {
            image: format!("{name}:1"),
            id: format!("sha256:{name}"),
            config: ImageConfig::default(),
        };
        self.service(name, resolved)
    }

    fn wasm(self, name: &str) -> Self {
        let resolved = Resolved::Wasm(Module {
            reference: format!("./{name}.wasm"),
            path: PathBuf::from(format!("/p/{name}.wasm")),
            digest: "0".repeat(64),
            size: 8,
            kind: ModuleKind::Http,
            function: None,
            root: None,
            files: None,
            config: ImageConfig::default(),
        });
        self.service(name, resolved)
    }

    fn service(mut self, name: &str, resolved: Resolved) -> Self {
        self.resolution.insert(name.into(), resolved);
        self.project.services.insert(name.into(), service(name));
        self.network("default").edit(name, |service| {
            service.networks.insert("default".into(), Attachment::default());
        })
    }

    fn edit(mut self, name: &str, edit: impl FnOnce(&mut Service)) -> Self {
        edit(self.project.services.get_mut(name).unwrap());
        self
    }

    fn needs(self, name: &str, dependency: &str, condition: Condition) -> Self {
        self.edit(name, |service| {
            service.depends_on.insert(dependency.into(), Dependency { condition, restart: false, required: true });
        })
    }

    fn joins(self, name: &str, networks: &[&str]) -> Self {
        let world = networks.iter().fold(self, |world, key| world.network(key));
        world.edit(name, |service| {
            service.networks = networks.iter().map(|key| ((*key).into(), Attachment::default())).collect();
            service.document["networks"] = json!(networks);
        })
    }

    fn mounts(mut self, name: &str, key: &str) -> Self {
        let volume = Volume { document: json!({ "name": format!("p_{key}") }), ..Volume::of("p", key) };
        self.project.volumes.insert(key.into(), volume);
        self.edit(name, |service| {
            let source = MountSource::Volume { key: key.into(), no_copy: false, subpath: None };
            service.document["volumes"] = json!([key]);
            service.mounts.push(Mount { source, target: "/data".into(), read_only: false });
        })
    }

    fn network(mut self, key: &str) -> Self {
        self.project
            .networks
            .entry(key.into())
            .or_insert_with(|| Network { document: json!({ "name": format!("p_{key}") }), ..Network::of("p", key) });
        self
    }

    fn plan(&self, observed: &Observed, options: &Options) -> Plan {
        plan(&self.project, &self.resolution, observed, options)
    }

    fn first(&self) -> Plan {
        self.plan(&Observed::default(), &Options::default())
    }

    /// What exists once this project is up.
    fn up(&self) -> Observed {
        carry_out(Observed::default(), &self.first())
    }
}

fn service(name: &str) -> Service {
    Service { image: Some(format!("{name}:1")), document: json!({ "image": name }), ..Service::named(name) }
}

/// What exists after a plan was carried out and everything in it runs.
fn carry_out(mut observed: Observed, plan: &Plan) -> Observed {
    for unit in &plan.units {
        match &unit.work {
            Work::Step(Step::CreateNetwork(spec)) => {
                observed.networks.retain(|network| Some(&network.id) != spec.replace.as_ref());
                if !spec.in_process {
                    observed.networks.push(ExistingNetwork {
                        id: format!("id of {}", spec.network.name),
                        name: spec.network.name.clone(),
                        key: Some(spec.network.key.clone()),
                        owned: true,
                        config_hash: spec.labels.get(label::CONFIG_HASH).cloned(),
                    });
                }
            }
            Work::Step(Step::CreateVolume(spec)) => observed.volumes.push(ExistingVolume {
                name: spec.volume.name.clone(),
                key: Some(spec.volume.key.clone()),
                owned: true,
                config_hash: spec.labels.get(label::CONFIG_HASH).cloned(),
                in_process: spec.in_process,
            }),
            Work::Step(Step::Create { spec, replace }) => {
                observed.instances.retain(|existing| replace.as_ref().is_none_or(|old| old.name != existing.name));
                observed.instances.push(made(spec));
            }
            Work::Step(Step::Remove { existing, .. }) => observed.instances.retain(|one| one.name != existing.name),
            Work::Step(Step::RemoveNetwork(name)) => observed.networks.retain(|network| network.name != *name),
            Work::Step(Step::RemoveVolume(name)) => observed.volumes.retain(|volume| volume.name != *name),
            Work::Instance(spec, _) => {
                let found = observed.instances.iter_mut().find(|existing| existing.name == spec.container);
                found.unwrap_or_else(|| panic!("{} is started before it is made", spec.container)).state =
                    RunState::Running;
            }
        }
    }
    observed
}

fn made(spec: &InstanceSpec) -> Existing {
    let label = |key: &str| spec.labels.get(key).cloned();
    let kind = match (&spec.resolved, spec.place) {
        (Resolved::Linux { .. }, _) => ExistingKind::Container,
        (Resolved::Wasm(_), Place::Agent) => ExistingKind::Agent,
        (Resolved::Wasm(_), Place::InProcess) => ExistingKind::Guest,
    };
    Existing {
        id: format!("id of {}", spec.container),
        name: spec.container.clone(),
        kind,
        service: label(label::SERVICE).map(ServiceName::new),
        number: label(label::NUMBER).and_then(|number| number.parse().ok()),
        one_off: label(label::ONE_OFF).as_deref() == Some("True"),
        state: RunState::Created,
        health: None,
        exit_code: 0,
        config_hash: label(label::CONFIG_HASH),
        wasm_hash: label(label::WASM_HASH),
        image_id: label(label::IMAGE),
        image: "image".into(),
        command: String::new(),
        networks: spec.networks.iter().map(|join| (join.name.clone(), Vec::new())).collect(),
        volumes: spec.volumes.values().cloned().collect(),
        anonymous_volumes: BTreeMap::new(),
        ports: Vec::new(),
        created: 1,
        started: 0,
        finished: 0,
        restarts: 0,
        labels: spec.labels.clone(),
    }
}

fn spec_of(plan: &Plan, container: &str) -> Arc<InstanceSpec> {
    let mut specs = plan.units.iter().filter_map(|unit| match &unit.work {
        Work::Instance(spec, _) => Some(Arc::clone(spec)),
        Work::Step(_) => None,
    });
    specs.find(|spec| spec.container == container).unwrap()
}

fn find<'a>(observed: &'a mut Observed, name: &str) -> &'a mut Existing {
    observed.instances.iter_mut().find(|existing| existing.name == name).unwrap()
}

/// gateway (Wasm) → backend (Linux, a volume) → db (Linux, healthy), and pricing (Wasm) beside them.
fn shop() -> World {
    world()
        .wasm("gateway")
        .linux("backend")
        .linux("db")
        .wasm("pricing")
        .mounts("db", "data")
        .needs("gateway", "backend", Condition::Started)
        .needs("backend", "db", Condition::Healthy)
}

#[test]
fn everything_is_created_before_anything_starts() {
    assert_snapshot!(shop().first(), @r"
    create network p_default (not found)
    create volume p_data (not found)
    create p-db-1 (not found)
    create p-backend-1 (not found)
    create p-gateway-1 (not found)
    create p-pricing-1 (not found)
    start p-db-1 (not found)
    start p-backend-1 (not found) after db-1 healthy
    start p-gateway-1 (not found) after backend-1 started
    start p-pricing-1 (not found)
    ");
}

#[test]
fn what_runs_as_it_should_is_kept() {
    assert_snapshot!(shop().plan(&shop().up(), &Options::default()), @r"
    keep p-db-1 (running)
    keep p-backend-1 (running) after db-1 healthy
    keep p-gateway-1 (running) after backend-1 started
    keep p-pricing-1 (running)
    ");
}

#[test]
fn an_edited_service_alone_is_recreated() {
    let edited = shop().edit("backend", |service| service.document = json!({ "image": "backend", "environment": 1 }));
    assert_snapshot!(edited.plan(&shop().up(), &Options::default()), @r"
    recreate p-backend-1 (config changed)
    keep p-db-1 (running)
    start p-backend-1 (config changed) after db-1 healthy
    keep p-gateway-1 (running) after backend-1 started
    keep p-pricing-1 (running)
    ");
}

#[test]
fn each_difference_is_the_cause_it_is() {
    let cause = |edit: fn(&mut Existing)| {
        let mut observed = shop().up();
        edit(find(&mut observed, "p-gateway-1"));
        edit(find(&mut observed, "p-db-1"));
        let plan = shop().plan(&observed, &Options::default());
        let causes: Vec<_> = ["gateway", "db"]
            .iter()
            .map(|name| plan.unit(&UnitId::Instance(crate::model::InstanceName::new((*name).into(), 1))).unwrap())
            .map(|unit| format!("{}: {}", unit.work, unit.cause))
            .collect();
        causes.join("; ")
    };
    assert_snapshot!(cause(|one| one.config_hash = None), @"start p-gateway-1: config changed; start p-db-1: config changed");
    assert_snapshot!(cause(|one| one.image_id = Some("sha256:old".into())), @"keep p-gateway-1: running; start p-db-1: image changed");
    assert_snapshot!(cause(|one| one.wasm_hash = Some("old".into())), @"start p-gateway-1: config changed: x-wasm; keep p-db-1: running");
    assert_snapshot!(cause(|one| one.networks.clear()), @"start p-gateway-1: network left: p_default; start p-db-1: network left: p_default");
    assert_snapshot!(cause(|one| one.volumes.clear()), @"keep p-gateway-1: running; start p-db-1: volume not mounted: p_data");
    assert_snapshot!(cause(|one| one.state = RunState::Exited), @"start p-gateway-1: exited; start p-db-1: exited");
    assert_snapshot!(cause(|one| one.state = RunState::Created), @"start p-gateway-1: created; start p-db-1: created");
    assert_snapshot!(cause(|one| one.state = RunState::Paused), @"keep p-gateway-1: paused; keep p-db-1: paused");
    assert_snapshot!(cause(|one| one.kind = ExistingKind::Guest), @"start p-gateway-1: now beside Linux services; start p-db-1: now a Linux service");
    assert_snapshot!(cause(|one| one.name = format!("0123456789ab_{}", one.name)), @"start p-gateway-1: left by an interrupted recreate; start p-db-1: left by an interrupted recreate");
}

#[test]
fn new_bytes_of_a_module_and_new_options_are_told_apart() {
    let observed = shop().up();
    let mut rebuilt = shop();
    if let Some(Resolved::Wasm(module)) = rebuilt.resolution.get_mut("gateway") {
        module.digest = "1".repeat(64);
    }
    assert_snapshot!(rebuilt.plan(&observed, &Options::default()).units[0], @"recreate p-gateway-1 (module changed)");
    let options = Options { allow_egress: vec![("gateway".into(), "example.com:443".into())], ..Options::default() };
    assert_snapshot!(shop().plan(&observed, &options).units[0], @"recreate p-gateway-1 (config changed: x-wasm)");
}

#[test]
fn a_module_that_alone_is_new_is_swapped_where_that_is_asked_for() {
    let rebuilt = |mut world: World| {
        if let Some(Resolved::Wasm(module)) = world.resolution.get_mut("gateway") {
            module.digest = "1".repeat(64);
        }
        world
    };
    let options = Options {
        services: vec!["gateway".into()],
        dependencies: Dependencies::Skip,
        new_module: NewModule::Swaps,
        ..Options::default()
    };
    let observed = shop().up();
    let plan = rebuilt(shop()).plan(&observed, &options);
    assert_snapshot!(plan, @"swap the module of p-gateway-1 (module changed)");
    let unit = plan.unit(&UnitId::Instance(crate::model::InstanceName::new("gateway".into(), 1))).unwrap();
    let Work::Instance(spec, _) = &unit.work else { panic!("an instance") };
    assert!(matches!(&spec.resolved, Resolved::Wasm(module) if module.digest.starts_with('1')));

    // Anything else that is new, too, makes another instance of it.
    let edited = rebuilt(shop().edit("gateway", |service| service.document = json!("changed")));
    assert_snapshot!(edited.plan(&observed, &options).units[0], @"recreate p-gateway-1 (config changed)");
    let granted = Options { allow_egress: vec![("gateway".into(), "example.com:443".into())], ..options.clone() };
    assert_snapshot!(rebuilt(shop()).plan(&observed, &granted).units[0], @"recreate p-gateway-1 (module changed)");
    let mut left = observed.clone();
    find(&mut left, "p-gateway-1").networks.clear();
    assert_snapshot!(rebuilt(shop()).plan(&left, &options).units[0], @"recreate p-gateway-1 (module changed)");
    let mut ended = observed.clone();
    find(&mut ended, "p-gateway-1").state = RunState::Exited;
    assert_snapshot!(rebuilt(shop()).plan(&ended, &options).units[0], @"recreate p-gateway-1 (module changed)");
}

#[test]
fn a_module_of_an_image_is_swapped_unless_its_other_files_or_settings_are_new() {
    let of = |digit: &str, files: &str, command: &str| {
        let mut world = world().wasm("web");
        if let Some(Resolved::Wasm(module)) = world.resolution.get_mut("web") {
            module.digest = digit.repeat(64);
            module.root = Some(PathBuf::from(format!("/images/{digit}")));
            module.files = Some(files.to_owned());
            module.config.command = vec![command.to_owned()];
        }
        world
    };
    let options = Options { new_module: NewModule::Swaps, ..Options::default() };
    let observed = carry_out(Observed::default(), &of("0", "f", "c").plan(&Observed::default(), &options));
    let then = |world: World| world.plan(&observed, &options).to_string();
    assert_snapshot!(then(of("0", "f", "c")), @"keep p-web-1 (running)");
    assert_snapshot!(then(of("1", "f", "c")), @"swap the module of p-web-1 (module changed)");
    for other in [of("1", "g", "c"), of("1", "f", "d"), of("0", "g", "c")] {
        assert!(then(other).starts_with("recreate p-web-1"));
    }
}

#[test]
fn a_swap_leaves_the_number_of_replicas_alone() {
    let mut world = world().wasm("web");
    let scaled = Options { scale: BTreeMap::from([("web".into(), 2)]), ..Options::default() };
    let observed = carry_out(Observed::default(), &world.plan(&Observed::default(), &scaled));
    if let Some(Resolved::Wasm(module)) = world.resolution.get_mut("web") {
        module.digest = "1".repeat(64);
    }
    let options = Options { new_module: NewModule::Swaps, count: Count::AsBefore, ..Options::default() };
    assert_snapshot!(world.plan(&observed, &options), @r"
    swap the module of p-web-1 (module changed)
    swap the module of p-web-2 (module changed)
    ");
}

#[test]
fn forcing_is_for_the_named_and_never_recreating_for_all() {
    let edited = shop().edit("db", |service| service.document = json!("changed"));
    let observed = shop().up();
    let options = Options { services: vec!["backend".into()], recreate: Recreate::Always, ..Options::default() };
    assert_snapshot!(edited.plan(&observed, &options), @r"
    recreate p-db-1 (config changed)
    recreate p-backend-1 (forced)
    start p-db-1 (config changed)
    start p-backend-1 (forced) after db-1 healthy
    ");
    let options = Options { recreate: Recreate::Never, ..Options::default() };
    assert_snapshot!(edited.plan(&observed, &options), @r"
    keep p-db-1 (running)
    keep p-backend-1 (running) after db-1 healthy
    keep p-gateway-1 (running) after backend-1 started
    keep p-pricing-1 (running)
    ");
}

#[test]
fn named_services_bring_what_they_depend_on_unless_told_otherwise() {
    let options = Options { services: vec!["backend".into()], ..Options::default() };
    assert_snapshot!(shop().plan(&Observed::default(), &options), @r"
    create network p_default (not found)
    create volume p_data (not found)
    create p-db-1 (not found)
    create p-backend-1 (not found)
    start p-db-1 (not found)
    start p-backend-1 (not found) after db-1 healthy
    ");
    let options = Options { dependencies: Dependencies::Skip, ..options };
    assert_snapshot!(shop().plan(&Observed::default(), &options), @r"
    create network p_default (not found)
    create p-backend-1 (not found)
    start p-backend-1 (not found)
    ");
    let options = Options { no_start: true, ..options };
    assert_snapshot!(shop().plan(&Observed::default(), &options), @r"
    create network p_default (not found)
    create p-backend-1 (not found)
    ");
}

#[test]
fn replicas_grow_past_the_highest_number_and_shrink_from_the_outdated() {
    let web = |scale| world().linux("web").edit("web", |service| service.scale = scale);
    let mut observed = web(4).up();
    observed.instances.retain(|existing| existing.name != "p-web-2");
    assert_snapshot!(web(5).plan(&observed, &Options::default()), @r"
    create p-web-5 (not found)
    create p-web-6 (not found)
    keep p-web-1 (running)
    keep p-web-3 (running)
    keep p-web-4 (running)
    start p-web-5 (not found)
    start p-web-6 (not found)
    ");
    find(&mut observed, "p-web-1").config_hash = None;
    assert_snapshot!(web(1).plan(&observed, &Options::default()), @r"
    remove p-web-1 (scaled down)
    remove p-web-4 (scaled down)
    keep p-web-3 (running)
    ");
    let options = Options { scale: BTreeMap::from([("web".into(), 0)]), ..Options::default() };
    assert_snapshot!(web(1).plan(&observed, &options), @r"
    remove p-web-1 (scaled down)
    remove p-web-4 (scaled down)
    remove p-web-3 (scaled down)
    ");
}

#[test]
fn orphans_are_named_or_removed_before_anything_is_made() {
    let observed = shop().up();
    let renamed = world().linux("store");
    assert_snapshot!(renamed.plan(&observed, &Options::default()), @r"
    create p-store-1 (not found)
    start p-store-1 (not found)
    warning: Found orphan containers ([p-db-1 p-backend-1 p-gateway-1 p-pricing-1]) for this project. If you removed or renamed this service in your compose file, you can run this command with the --remove-orphans flag to clean it up.
    ");
    let options = Options { orphans: Orphans::Remove, ..Options::default() };
    let removing = renamed.plan(&observed, &options);
    assert_snapshot!(removing, @r"
    remove p-db-1 (orphan)
    remove p-backend-1 (orphan)
    remove p-gateway-1 (orphan)
    remove p-pricing-1 (orphan)
    create p-store-1 (not found)
    start p-store-1 (not found)
    ");
    let create = removing.units.iter().find(|unit| matches!(unit.id, UnitId::Create(_))).unwrap();
    assert!(create.after.iter().any(|edge| edge.on == UnitId::Remove("p-db-1".into())));
}

#[test]
fn what_an_interrupted_recreate_left_is_cleared() {
    let mut observed = shop().up();
    let mut left = find(&mut observed, "p-db-1").clone();
    left.name = "0123456789ab_p-db-1".into();
    left.state = RunState::Created;
    observed.instances.push(left);
    assert_snapshot!(shop().plan(&observed, &Options::default()).units[0], @"remove 0123456789ab_p-db-1 (left by an interrupted recreate)");
}

#[test]
fn a_changed_network_takes_everything_on_it_along() {
    let mut changed = world().linux("web").linux("other").joins("other", &["back"]);
    let observed = changed.up();
    changed.project.networks.get_mut("default").unwrap().document = json!("changed");
    assert_snapshot!(changed.plan(&observed, &Options::default()), @r"
    recreate network p_default (config changed)
    recreate p-web-1 (network new: p_default)
    keep p-other-1 (running)
    start p-web-1 (network new: p_default)
    ");
}

#[test]
fn external_objects_are_looked_for_and_foreign_ones_used_with_a_warning() {
    let mut world = world().linux("web").mounts("web", "data");
    world.project.networks.get_mut("default").unwrap().external = true;
    world.project.volumes.get_mut("data").unwrap().external = true;
    assert_snapshot!(world.first(), @r"
    find network p_default (external)
    find volume p_data (external)
    create p-web-1 (not found)
    start p-web-1 (not found)
    ");
    let found = Observed {
        networks: vec![ExistingNetwork {
            id: "1".into(),
            name: "p_default".into(),
            key: None,
            owned: false,
            config_hash: None,
        }],
        volumes: vec![ExistingVolume {
            name: "p_data".into(),
            key: None,
            owned: false,
            config_hash: None,
            in_process: false,
        }],
        instances: Vec::new(),
    };
    assert_snapshot!(world.plan(&found, &Options::default()), @r"
    create p-web-1 (not found)
    start p-web-1 (not found)
    ");
    world.project.networks.get_mut("default").unwrap().external = false;
    world.project.volumes.get_mut("data").unwrap().external = false;
    assert_snapshot!(world.plan(&found, &Options::default()), @r#"
    create p-web-1 (not found)
    start p-web-1 (not found)
    warning: a network with name p_default exists but was not created for project "p". Set `external: true` to use an existing network
    warning: volume "p_data" already exists but was not created for project "p". Use `external: true` to use an existing volume
    "#);
}

#[test]
fn a_volume_that_differs_is_kept_for_its_data() {
    let mut changed = shop();
    let observed = changed.up();
    changed.project.volumes.get_mut("data").unwrap().document = json!("changed");
    assert_snapshot!(changed.plan(&observed, &Options::default()), @r#"
    keep p-db-1 (running)
    keep p-backend-1 (running) after db-1 healthy
    keep p-gateway-1 (running) after backend-1 started
    keep p-pricing-1 (running)
    warning: volume "p_data" exists but doesn't match configuration in compose file. It is kept, since recreating it would lose its data; `down -v` removes it
    "#);
}

#[test]
fn dependents_that_ask_for_it_follow_a_recreate() {
    let tied = || {
        shop()
            .linux("sidecar")
            .joins("sidecar", &[])
            .needs("sidecar", "backend", Condition::Started)
            .edit("sidecar", |service| service.network_mode = Some(NetworkMode::Service("backend".into())))
            .edit("backend", |service| service.depends_on["db"].restart = true)
    };
    let edited = tied().edit("db", |service| service.document = json!("changed"));
    let plan = edited.plan(&tied().up(), &Options::default());
    assert_snapshot!(plan, @r"
    recreate p-db-1 (config changed)
    recreate p-backend-1 (`db` is recreated)
    recreate p-sidecar-1 (`backend` is recreated)
    start p-db-1 (config changed)
    start p-backend-1 (`db` is recreated) after db-1 healthy
    keep p-gateway-1 (running) after backend-1 started
    keep p-pricing-1 (running)
    start p-sidecar-1 (`backend` is recreated) after backend-1 started
    ");
    let create = |name: &str| UnitId::Create(crate::model::InstanceName::new(name.into(), 1));
    assert!(plan.unit(&create("sidecar")).unwrap().after.iter().any(|edge| edge.on == create("backend")));
}

#[test]
fn wasm_alone_lives_in_process_until_a_linux_service_joins() {
    let alone = world().wasm("a").wasm("b").mounts("a", "data");
    assert_snapshot!(alone.first(), @r"
    create network p_default in process (not found)
    create volume p_data in process (not found)
    create p-a-1 (not found)
    create p-b-1 (not found)
    start p-a-1 (not found)
    start p-b-1 (not found)
    ");
    assert_eq!(
        alone.plan(&alone.up(), &Options::default()).to_string(),
        "keep p-a-1 (running)\nkeep p-b-1 (running)\n"
    );
    assert_snapshot!(alone.clone().linux("c").plan(&alone.up(), &Options::default()), @r"
    create network p_default (not found)
    create volume p_data (not found)
    recreate p-a-1 (now beside Linux services)
    recreate p-b-1 (now beside Linux services)
    create p-c-1 (not found)
    start p-a-1 (now beside Linux services)
    start p-b-1 (now beside Linux services)
    start p-c-1 (not found)
    ");
}

#[test]
fn a_container_carries_the_labels_compose_reads() {
    let mut shop = shop();
    shop.project.environment_files = vec!["/p/my.env".into()];
    let plan = shop.first();
    let labels = |container: &str| {
        let labels = &spec_of(&plan, container).labels;
        let lines: Vec<_> =
            labels.iter().filter(|(key, _)| !key.ends_with("hash")).map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(labels.contains_key(label::WASM_HASH), container == "p-gateway-1");
        assert_eq!(labels[label::CONFIG_HASH].len(), 64);
        lines.join("\n")
    };
    assert_snapshot!(labels("p-backend-1"), @r"
    com.docker.compose.container-number=1
    com.docker.compose.depends_on=db:service_healthy:false
    com.docker.compose.image=sha256:backend
    com.docker.compose.oneoff=False
    com.docker.compose.project=p
    com.docker.compose.project.config_files=/p/compose.yaml,/p/b.yaml
    com.docker.compose.project.environment_file=/p/my.env
    com.docker.compose.project.working_dir=/p
    com.docker.compose.service=backend
    com.docker.compose.version=2.40.3
    ");
    assert_snapshot!(labels("p-gateway-1"), @r"
    com.docker.compose.container-number=1
    com.docker.compose.depends_on=backend:service_started:false
    com.docker.compose.image=sha256:0000000000000000000000000000000000000000000000000000000000000000
    com.docker.compose.oneoff=False
    com.docker.compose.project=p
    com.docker.compose.project.config_files=/p/compose.yaml,/p/b.yaml
    com.docker.compose.project.environment_file=/p/my.env
    com.docker.compose.project.working_dir=/p
    com.docker.compose.service=gateway
    com.docker.compose.version=2.40.3
    dev.wcompose.module=./gateway.wasm
    ");
}

#[test]
fn the_primary_network_is_the_one_of_highest_priority_and_engine_networks_come_first() {
    let world = world()
        .linux("db")
        .joins("db", &["b", "c"])
        .wasm("app")
        .joins("app", &["a", "b", "c"])
        .edit("app", |service| service.networks["c"].priority = 10);
    let plan = world.first();
    let spec = spec_of(&plan, "p-app-1");
    let joins: Vec<_> = spec.networks.iter().map(|join| (join.name.as_str(), join.in_process)).collect();
    assert_eq!(joins, [("p_c", false), ("p_b", false), ("p_a", true)]);
    assert_eq!(spec.networks[0].aliases, ["p-app-1", "app"]);
}

#[test]
fn a_guest_sees_links_to_what_it_depends_on() {
    let world = shop()
        .edit("backend", |service| service.expose = vec![ExposedPort { port: 9000, protocol: Protocol::Tcp }])
        .edit("gateway", |service| {
            service.environment.insert("MODE".into(), Some("test".into()));
            service.environment.insert("PRICING_HOST".into(), Some("elsewhere".into()));
        })
        .needs("gateway", "pricing", Condition::Started)
        .needs("gateway", "db", Condition::Started);
    let environment = |world: &World| {
        let environment = &spec_of(&world.first(), "p-gateway-1").environment;
        environment.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("\n")
    };
    assert_snapshot!(environment(&world), @r"
    MODE=test
    PRICING_HOST=elsewhere
    BACKEND_HOST=backend
    BACKEND_PORT=9000
    PRICING_PORT=8080
    PRICING_URL=http://pricing:8080
    DB_HOST=db
    ");
    let off = WasmOptions { env_from_links: Some(false), ..WasmOptions::default() };
    assert_snapshot!(environment(&world.edit("gateway", |service| service.wasm = Some(off))), @r"
    MODE=test
    PRICING_HOST=elsewhere
    ");
}

#[test]
fn down_goes_in_reverse_and_says_what_stays() {
    let mut observed = shop().up();
    let mut one_off = find(&mut observed, "p-db-1").clone();
    (one_off.name, one_off.one_off, one_off.number) = ("p-db-run-1".into(), true, None);
    observed.instances.push(one_off);
    let orphan = world().linux("old").up().instances.remove(0);
    observed.instances.push(orphan);
    let shop = shop();
    let project = Target::Project(&shop.project);
    assert_snapshot!(down(project, &observed, &DownOptions::default()), @r"
    remove p-gateway-1 (running)
    remove p-backend-1 (running)
    remove p-db-1 (running)
    remove p-pricing-1 (running)
    warning: containers of `run` are left: p-db-run-1; `--remove-orphans` removes them, too
    warning: containers of services that are not declared are left: p-old-1; `--remove-orphans` removes them, too
    warning: network p_default is left: p-db-run-1 still uses it
    ");
    let all = DownOptions { volumes: true, remove_orphans: true, ..DownOptions::default() };
    let plan = down(project, &observed, &all);
    assert_snapshot!(plan, @r"
    remove p-gateway-1 (running)
    remove p-backend-1 (running)
    remove p-db-run-1 (one-off)
    remove p-db-1 (running)
    remove p-old-1 (orphan)
    remove p-pricing-1 (running)
    remove network p_default (down)
    remove volume p_data (down)
    ");
    let remove = |name: &str| plan.unit(&UnitId::Remove(name.into())).unwrap();
    assert_eq!(remove("p-db-1").after[0].on, UnitId::Remove("p-backend-1".into()));
    assert_eq!(carry_out(observed.clone(), &plan), Observed::default());
    assert_eq!(down(Target::Labels, &observed, &all).units.len(), plan.units.len());
}

#[test]
fn down_of_a_service_leaves_the_rest() {
    let options = DownOptions { services: vec!["backend".into()], volumes: true, ..DownOptions::default() };
    assert_snapshot!(down(Target::Labels, &shop().up(), &options), @"remove p-backend-1 (running)");
}

/// Services that depend on earlier ones only; each Linux or Wasm, on one of two networks, with one volume or none.
fn worlds() -> impl Strategy<Value = World> {
    let service = (
        any::<bool>(),
        0..3u32,
        any::<[bool; 4]>(),
        proptest::collection::vec((any::<prop::sample::Index>(), 0..3u8, any::<bool>()), 0..3),
    );
    proptest::collection::vec(service, 1..7).prop_map(|services| {
        let mut result = world();
        for (index, (wasm, scale, [back, both, volume, shared], needs)) in services.into_iter().enumerate() {
            let name = format!("s{index}");
            result = if wasm { result.wasm(&name) } else { result.linux(&name) };
            result = match (back, both) {
                (_, true) => result.joins(&name, &["default", "back"]),
                (true, false) => result.joins(&name, &["back"]),
                (false, false) => result,
            };
            if volume {
                result = result.mounts(&name, if shared { "shared" } else { &name });
            }
            result = result.edit(&name, |service| service.scale = scale);
            for (on, condition, restart) in needs.into_iter().filter(|_| index > 0) {
                let on = format!("s{}", on.index(index));
                let condition = [Condition::Started, Condition::Healthy, Condition::Completed][condition as usize];
                result = result.needs(&name, &on, condition);
                result = result.edit(&name, |service| service.depends_on[on.as_str()].restart = restart);
            }
        }
        result
    })
}

fn check_order(plan: &Plan) -> Result<(), TestCaseError> {
    let mut before = BTreeSet::new();
    for unit in &plan.units {
        for edge in &unit.after {
            prop_assert!(before.contains(&edge.on), "{} stands before {}", unit.id, edge.on);
        }
        prop_assert!(before.insert(unit.id.clone()), "{} stands there twice", unit.id);
    }
    Ok(())
}

proptest! {
    #[test]
    fn units_stand_after_what_they_wait_for(before in worlds(), after in worlds()) {
        check_order(&before.first())?;
        let observed = before.up();
        let options = Options { orphans: Orphans::Remove, ..Options::default() };
        check_order(&after.plan(&observed, &options))?;
        check_order(&down(Target::Labels, &observed, &DownOptions::default()))?;
    }

    #[test]
    fn planning_again_changes_nothing(before in worlds(), after in worlds(), edited in any::<prop::sample::Index>()) {
        let options = Options { orphans: Orphans::Remove, ..Options::default() };
        let mut after = after;
        let index = edited.index(after.project.services.len());
        after.project.services[index].document = json!("edited");
        let observed = carry_out(before.up(), &after.plan(&before.up(), &options));
        let again = after.plan(&observed, &options);
        for unit in &again.units {
            prop_assert!(matches!(unit.work, Work::Instance(_, Action::Adopt(_))), "{unit}");
        }
        prop_assert_eq!(carry_out(observed.clone(), &again), observed);
    }

    #[test]
    fn down_leaves_nothing(world in worlds()) {
        let options = DownOptions { volumes: true, ..DownOptions::default() };
        let observed = world.up();
        prop_assert_eq!(carry_out(observed.clone(), &down(Target::Project(&world.project), &observed, &options)), Observed::default());
        prop_assert_eq!(carry_out(observed.clone(), &down(Target::Labels, &observed, &options)), Observed::default());
    }

    #[test]
    fn nothing_starts_before_everything_is_created(world in worlds()) {
        let plan = world.first();
        let creates: Vec<_> = plan.units.iter().filter(|unit| matches!(unit.id, UnitId::Create(_))).collect();
        for start in plan.units.iter().filter(|unit| matches!(unit.work, Work::Instance(_, Action::Start))) {
            for create in &creates {
                prop_assert!(start.after.iter().any(|edge| edge.on == create.id));
            }
        }
    }
}
