//! The way to a one-off (`run`): its dependencies up, and its container or guest made once their conditions hold. Where
//! somebody attaches to it, nothing starts it here: whoever attaches does, so that no output is lost.

use std::sync::Arc;

use super::observed::Observed;
use super::spec::Specs;
use super::unit::{Action, AtEnd, Cause, Edge, EdgeCondition, InstanceSpec, Plan, Step, Unit, UnitId, Work};
use super::{Dependencies, Options, Orphans, Resolution, instance, label, orphans, plan, resources};
use crate::model::{Condition, InstanceName, Project, ServiceName};

/// Which one-off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOff {
    /// Whose.
    pub service: ServiceName,
    /// Name of its container.
    pub container: String,
    /// What tells it from others of its service.
    pub slug: String,
    /// It has the service's names on its networks, too.
    pub use_aliases: bool,
    /// It is started as any instance is; otherwise whoever attaches to it does that.
    pub start: bool,
    /// What becomes of it at its end, where it is started so; whoever attaches to it sees to that himself.
    pub at_end: AtEnd,
}

/// The way to a one-off. `options` say what is done about its dependencies; the services they name are left out of account.
/// A service that is not in the project, or whose image was not resolved, gives nothing but a warning.
pub fn run(
    project: &Project,
    resolution: &Resolution,
    observed: &Observed,
    options: &Options,
    one_off: &OneOff,
) -> Plan {
    let Some(service) = project.services.get(&one_off.service) else {
        return Plan { units: Vec::new(), warnings: vec![format!("no such service: `{}`", one_off.service)] };
    };
    let declared = service.depends_on.keys().filter(|name| project.services.contains_key(*name));
    let needed: Vec<ServiceName> = match options.dependencies {
        Dependencies::Include => declared.cloned().collect(),
        Dependencies::Skip => Vec::new(),
    };
    let mut whole = if needed.is_empty() {
        let mut warnings = Vec::new();
        let options = Options { orphans: options.orphans, ..Options::default() };
        let units = match options.orphans {
            Orphans::Remove => orphans(project, observed, &options, &mut warnings),
            Orphans::Warn | Orphans::Ignore => Vec::new(),
        };
        Plan { units, warnings }
    } else {
        plan(project, resolution, observed, &Options { services: needed, ..options.clone() })
    };

    let specs = Specs::new(project, resolution, options);
    let resources = resources::wanted(&specs, &[service], observed, &mut whole.warnings);
    for unit in resources.units {
        if whole.unit(&unit.id).is_none() {
            whole.units.push(unit);
        }
    }
    let Some(spec) = spec(&specs, resolution, one_off) else {
        whole.warnings.push(format!("service `{}` is left out: its image was not resolved", one_off.service));
        return whole;
    };
    let mut after: Vec<Edge> = whole
        .units
        .iter()
        .filter(|unit| matches!(unit.id, UnitId::Network(_) | UnitId::Volume(_) | UnitId::Create(_)))
        .map(|unit| Edge::done(unit.id.clone()))
        .collect();
    for unit in &whole.units {
        let UnitId::Instance(on) = &unit.id else { continue };
        let Some(dependency) = service.depends_on.get(&on.service) else { continue };
        let condition = match dependency.condition {
            Condition::Started => EdgeCondition::Started,
            Condition::Healthy => EdgeCondition::Healthy,
            Condition::Completed => EdgeCondition::Completed,
        };
        after.push(Edge { on: unit.id.clone(), condition, required: dependency.required });
    }
    let create = UnitId::Create(spec.name.clone());
    let step = Step::Create { spec: Arc::clone(&spec), replace: None };
    let cause = Cause("one-off".into());
    whole.units.push(Unit { id: create.clone(), work: Work::Step(step), cause: cause.clone(), after });
    if one_off.start {
        whole.units.push(instance(&spec, Action::Start, cause, vec![Edge::done(create)]));
    }
    whole
}

/// Whether an instance is a one-off of a service, by its name.
pub fn is_one_off_of(name: &InstanceName, service: &ServiceName) -> bool {
    let rest = name.service.as_str().strip_prefix(service.as_str()).and_then(|rest| rest.strip_prefix("-run-"));
    rest.is_some_and(|slug| slug.len() == 12 && slug.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn spec(specs: &Specs<'_>, resolution: &Resolution, one_off: &OneOff) -> Option<Arc<InstanceSpec>> {
    let service = specs.project.services.get(&one_off.service)?;
    let resolved = resolution.get(&one_off.service)?;
    let mut spec = InstanceSpec::clone(&specs.spec(service, resolved, 1, Some(&one_off.container)));
    // A name of its own: the service's replicas and those of other one-offs have theirs.
    let short = one_off.slug.get(..12).unwrap_or(&one_off.slug);
    spec.name = InstanceName::new(ServiceName::new(format!("{}-run-{short}", service.name)), 1);
    spec.at_end = if one_off.start { one_off.at_end } else { AtEnd::Kept };
    spec.labels.remove(label::NUMBER);
    spec.labels.insert(label::ONE_OFF.to_owned(), "True".to_owned());
    spec.labels.insert(label::SLUG.to_owned(), one_off.slug.clone());
    if !one_off.use_aliases {
        for join in &mut spec.networks {
            join.aliases = vec![one_off.container.clone()];
            join.attachment.aliases.clear();
            // A static address is the service's own.
            (join.attachment.ipv4, join.attachment.ipv6) = (None, None);
        }
    }
    Some(Arc::new(spec))
}
