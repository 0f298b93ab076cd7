//! Which services a command is about, dependencies before dependents. Profiles were applied when the project was loaded.

use std::collections::BTreeSet;

use crate::model::graph::ServiceGraph;
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

/// The services of these names (all, when there are none), in an order in which dependencies come first, by name where
/// nothing else decides.
pub fn services<'a>(project: &'a Project, names: &[ServiceName], dependencies: Dependencies) -> Vec<&'a Service> {
    let graph = ServiceGraph::of(project);
    let wanted: BTreeSet<ServiceName> = match (names, dependencies) {
        ([], _) => project.services.keys().cloned().collect(),
        (_, Dependencies::Include) => graph.with_dependencies(names),
        (_, Dependencies::Skip) => names.iter().cloned().collect(),
    };
    graph.order().iter().filter(|name| wanted.contains(*name)).filter_map(|name| project.services.get(name)).collect()
}

/// Names that no enabled service has.
pub fn unknown<'a>(project: &Project, names: &'a [ServiceName]) -> Vec<&'a ServiceName> {
    names.iter().filter(|name| !project.services.contains_key(*name)).collect()
}
