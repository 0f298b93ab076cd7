//! The services of a project as a graph: who waits for whom, and for what.
//!
//! An edge runs from a dependent to its dependency and carries the condition that is waited for. `compose` reports a
//! cycle from it, `plan` takes the order from it. Knows nothing of files and engines.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;

use super::name::ServiceName;
use super::project::Project;
use super::service::Condition;

/// Services and their dependencies.
#[derive(Debug, Clone, Default)]
pub struct ServiceGraph {
    graph: StableDiGraph<ServiceName, Condition>,
    nodes: BTreeMap<ServiceName, NodeIndex>,
}

impl ServiceGraph {
    /// Services without dependencies between them yet.
    pub fn new(services: impl IntoIterator<Item = ServiceName>) -> Self {
        let mut graph = StableDiGraph::new();
        let nodes = services.into_iter().map(|name| (name.clone(), graph.add_node(name))).collect();
        Self { graph, nodes }
    }

    /// The enabled services of a project.
    pub fn of(project: &Project) -> Self {
        let mut graph = Self::new(project.services.keys().cloned());
        for (name, service) in &project.services {
            for (dependency, how) in &service.depends_on {
                graph.depend(name, dependency, how.condition);
            }
        }
        graph
    }

    /// Adds a dependency. One on a service that is not in the graph is ignored: it is optional, or was reported.
    pub fn depend(&mut self, dependent: &ServiceName, dependency: &ServiceName, condition: Condition) {
        if let (Some(from), Some(to)) = (self.nodes.get(dependent), self.nodes.get(dependency)) {
            self.graph.update_edge(*from, *to, condition);
        }
    }

    /// What a service waits for, and how, by name.
    pub fn dependencies(&self, name: &ServiceName) -> Vec<(&ServiceName, Condition)> {
        self.neighbours(name, Direction::Outgoing)
    }

    /// Who waits for a service, and how, by name.
    pub fn dependents(&self, name: &ServiceName) -> Vec<(&ServiceName, Condition)> {
        self.neighbours(name, Direction::Incoming)
    }

    fn neighbours(&self, name: &ServiceName, direction: Direction) -> Vec<(&ServiceName, Condition)> {
        let Some(&node) = self.nodes.get(name) else { return Vec::new() };
        let mut found: Vec<_> = self
            .graph
            .edges_directed(node, direction)
            .map(|edge| {
                let other = if direction == Direction::Outgoing { edge.target() } else { edge.source() };
                (&self.graph[other], *edge.weight())
            })
            .collect();
        found.sort();
        found
    }

    /// These services and everything they depend on, however far.
    pub fn with_dependencies<'n>(&self, names: impl IntoIterator<Item = &'n ServiceName>) -> BTreeSet<ServiceName> {
        self.reach(names, Direction::Outgoing)
    }

    /// These services and everything that depends on them, however far.
    pub fn with_dependents<'n>(&self, names: impl IntoIterator<Item = &'n ServiceName>) -> BTreeSet<ServiceName> {
        self.reach(names, Direction::Incoming)
    }

    fn reach<'n>(
        &self,
        names: impl IntoIterator<Item = &'n ServiceName>,
        direction: Direction,
    ) -> BTreeSet<ServiceName> {
        let mut open: Vec<NodeIndex> = names.into_iter().filter_map(|name| self.nodes.get(name).copied()).collect();
        let mut reached = BTreeSet::new();
        while let Some(node) = open.pop() {
            if reached.insert(self.graph[node].clone()) {
                open.extend(self.graph.neighbors_directed(node, direction));
            }
        }
        reached
    }

    /// Services in an order in which dependencies come first, by name where nothing else decides; a cycle's services
    /// come last.
    pub fn order(&self) -> Vec<ServiceName> {
        let mut waiting: BTreeMap<&ServiceName, usize> = self
            .nodes
            .iter()
            .map(|(name, node)| (name, self.graph.edges_directed(*node, Direction::Outgoing).count()))
            .collect();
        let mut order = Vec::with_capacity(waiting.len());
        while let Some(name) = waiting.iter().find(|(_, open)| **open == 0).map(|(name, _)| *name) {
            waiting.remove(name);
            for (dependent, _) in self.dependents(name) {
                if let Some(open) = waiting.get_mut(dependent) {
                    *open -= 1;
                }
            }
            order.push(name.clone());
        }
        order.extend(waiting.into_keys().cloned());
        order
    }

    /// A cycle as the path around it, its first service repeated at the end; the one found from the first name.
    pub fn cycle(&self) -> Option<Vec<ServiceName>> {
        let mut done = BTreeSet::new();
        self.nodes.keys().find_map(|name| self.cycle_from(name, &mut done))
    }

    /// Depth first with a path of its own, so that a long chain costs memory and no stack.
    fn cycle_from(&self, start: &ServiceName, done: &mut BTreeSet<ServiceName>) -> Option<Vec<ServiceName>> {
        let mut path: Vec<(ServiceName, Vec<ServiceName>)> = Vec::new();
        let mut next = Some(start.clone());
        loop {
            if let Some(name) = next.take() {
                if let Some(at) = path.iter().position(|(earlier, _)| *earlier == name) {
                    let mut cycle: Vec<_> = path[at..].iter().map(|(name, _)| name.clone()).collect();
                    cycle.push(name);
                    return Some(cycle);
                }
                if !done.contains(&name) {
                    let open = self.dependencies(&name).into_iter().rev().map(|(name, _)| name.clone()).collect();
                    path.push((name, open));
                }
            }
            let (name, open) = path.last_mut()?;
            match open.pop() {
                Some(dependency) => next = Some(dependency),
                None => {
                    done.insert(name.clone());
                    path.pop();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &str)]) -> ServiceGraph {
        let names: BTreeSet<_> = edges.iter().flat_map(|(a, b)| [*a, *b]).map(ServiceName::from).collect();
        let mut graph = ServiceGraph::new(names);
        for (from, to) in edges {
            graph.depend(&(*from).into(), &(*to).into(), Condition::Started);
        }
        graph
    }

    fn text(names: impl IntoIterator<Item = ServiceName>) -> String {
        names.into_iter().map(|name| name.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn dependencies_come_first() {
        let graph = graph(&[("web", "api"), ("api", "db"), ("api", "cache"), ("web", "cache")]);
        assert_eq!(text(graph.order()), "cache db api web");
        assert_eq!(text(graph.with_dependencies([&"api".into()])), "api cache db");
        assert_eq!(text(graph.with_dependents([&"db".into()])), "api db web");
        assert!(graph.cycle().is_none());
    }

    #[test]
    fn a_cycle_is_a_path() {
        let cyclic = graph(&[("a", "b"), ("b", "c"), ("c", "b"), ("x", "a")]);
        assert_eq!(text(cyclic.cycle().expect("there is one")), "b c b");
        assert_eq!(text(graph(&[("a", "a")]).cycle().expect("there is one")), "a a");
    }
}
