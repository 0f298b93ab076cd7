//! Which services a command is about, dependencies before dependents. Profiles were applied when the project was loaded.

use std::collections::BTreeSet;

use crate::model::{Project, Service, ServiceName};

/// Whether what named services depend on comes with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dependencies {
    /// It does.
    #[default]
    Include,
    /// It is left alone (`--no-deps`).
    Skip,
}

/// The services of these names (all, when there are none), in an order in which dependencies come first and otherwise the
/// file's order holds.
pub fn services<'a>(project: &'a Project, names: &[ServiceName], dependencies: Dependencies) -> Vec<&'a Service> {
    let wanted = if names.is_empty() { None } else { Some(closure(project, names, dependencies)) };
    in_order(project)
        .into_iter()
        .filter(|service| wanted.as_ref().is_none_or(|wanted| wanted.contains(&service.name)))
        .collect()
}

/// Names that no enabled service has.
pub fn unknown<'a>(project: &Project, names: &'a [ServiceName]) -> Vec<&'a ServiceName> {
    names.iter().filter(|name| !project.services.contains_key(*name)).collect()
}

/// All enabled services, dependencies before dependents, otherwise in the file's order.
pub fn in_order(project: &Project) -> Vec<&Service> {
    let mut ordered = Vec::with_capacity(project.services.len());
    let mut seen = BTreeSet::new();
    for service in project.services.values() {
        visit(project, service, &mut seen, &mut ordered);
    }
    ordered
}

/// Depth first, each service after what it depends on. An explicit stack: chains may be longer than the thread's.
fn visit<'a>(
    project: &'a Project,
    service: &'a Service,
    seen: &mut BTreeSet<&'a ServiceName>,
    ordered: &mut Vec<&'a Service>,
) {
    if !seen.insert(&service.name) {
        return;
    }
    let mut stack = vec![(service, service.depends_on.keys())];
    while let Some((service, dependencies)) = stack.last_mut() {
        match dependencies.next() {
            Some(name) => {
                if let Some(dependency) = project.services.get(name)
                    && seen.insert(&dependency.name)
                {
                    stack.push((dependency, dependency.depends_on.keys()));
                }
            }
            None => {
                ordered.push(*service);
                stack.pop();
            }
        }
    }
}

fn closure(project: &Project, names: &[ServiceName], dependencies: Dependencies) -> BTreeSet<ServiceName> {
    let mut wanted = BTreeSet::new();
    let mut stack: Vec<&ServiceName> = names.iter().collect();
    while let Some(name) = stack.pop() {
        let Some(service) = project.services.get(name) else { continue };
        if wanted.insert(name.clone()) && dependencies == Dependencies::Include {
            stack.extend(service.depends_on.keys());
        }
    }
    wanted
}
