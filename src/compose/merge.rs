//! What a later file (or an extending service) does to an earlier one.
//!
//! Mappings merge key by key, lists are appended, scalars replace, and null changes nothing, save where the table says
//! otherwise. `!reset` drops what was there, `!override` replaces it. Both sides are in long form.

use std::collections::HashMap;

use super::node::{Data, Directive, Map, Node, Path};
use crate::diag::Diagnostic;

/// How two values under one key become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// The later one alone.
    Replace,
    /// Key by key; a key without a value counts as a value.
    Pairs,
    /// The later list's elements that are not there yet are appended.
    AppendNew,
    /// Key by key when the drivers agree, else the later one alone.
    SameDriver,
    /// Address pools are matched by their subnet; as in compose, the later list decides which there are.
    BySubnet,
}

/// What does not merge by the kinds of its values.
static RULES: &[(&str, Rule)] = &[
    ("networks.*.ipam.config", Rule::BySubnet),
    ("networks.*.labels", Rule::Pairs),
    ("volumes.*.labels", Rule::Pairs),
    ("services.*.annotations", Rule::Pairs),
    ("services.*.build.args", Rule::Pairs),
    ("services.*.build.additional_contexts", Rule::Pairs),
    ("services.*.build.extra_hosts", Rule::AppendNew),
    ("services.*.build.labels", Rule::Pairs),
    ("services.*.command", Rule::Replace),
    ("services.*.deploy.labels", Rule::Pairs),
    ("services.*.entrypoint", Rule::Replace),
    ("services.*.environment", Rule::Pairs),
    ("services.*.extra_hosts", Rule::AppendNew),
    ("services.*.healthcheck.test", Rule::Replace),
    ("services.*.labels", Rule::Pairs),
    ("services.*.logging", Rule::SameDriver),
    ("services.*.sysctls", Rule::Pairs),
    ("services.*.ulimits.*", Rule::Replace),
];

/// What makes two elements of a list the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Identity {
    /// The scalar; of `name=value` the name.
    Value,
    /// `target`.
    Target,
    /// `target`, or `source` below this folder.
    Grant(&'static str),
    /// Address, host port, container port and protocol.
    Port,
    /// `path`.
    FilePath,
}

/// The lists in which an element replaces an earlier one that is the same.
static UNIQUE: &[(&str, Identity)] = &[
    ("services.*.build.tags", Identity::Value),
    ("services.*.cap_add", Identity::Value),
    ("services.*.cap_drop", Identity::Value),
    ("services.*.configs", Identity::Grant("")),
    ("services.*.devices", Identity::Target),
    ("services.*.dns", Identity::Value),
    ("services.*.dns_opt", Identity::Value),
    ("services.*.dns_search", Identity::Value),
    ("services.*.env_file", Identity::FilePath),
    ("services.*.expose", Identity::Value),
    ("services.*.links", Identity::Value),
    ("services.*.networks.*.aliases", Identity::Value),
    ("services.*.networks.*.link_local_ips", Identity::Value),
    ("services.*.ports", Identity::Port),
    ("services.*.profiles", Identity::Value),
    ("services.*.secrets", Identity::Grant("/run/secrets")),
    ("services.*.tmpfs", Identity::Value),
    ("services.*.volumes", Identity::Target),
];

/// Whether `!reset` and `!override` have done their work, or are needed for another merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directives {
    /// This is the last merge.
    Settle,
    /// The result will be merged again.
    Keep,
}

/// Merges `over` into `base`.
pub fn merge(base: &mut Node, over: Node, path: &Path, directives: Directives, diagnostics: &mut Vec<Diagnostic>) {
    let rule = RULES.iter().find(|(pattern, _)| path.matches(pattern)).map(|(_, rule)| *rule);
    match rule {
        Some(Rule::Replace) => *base = over,
        Some(Rule::Pairs) => pairs(base, over),
        Some(Rule::AppendNew) => append_new(base, over),
        Some(Rule::BySubnet) => by_subnet(base, over, path, directives, diagnostics),
        Some(Rule::SameDriver) => {
            let driver = |node: &Node| node.get("driver").cloned();
            match (driver(base), driver(&over)) {
                (Some(a), Some(b)) if a != b => *base = over,
                _ => by_kind(base, over, path, directives, diagnostics),
            }
        }
        None => by_kind(base, over, path, directives, diagnostics),
    }
    enforce_unicity(base, path);
}

fn by_kind(base: &mut Node, over: Node, path: &Path, directives: Directives, diagnostics: &mut Vec<Diagnostic>) {
    if over.is_null() {
        return;
    }
    let (over_span, over_what) = (over.span, over.describe());
    match (&mut base.data, over.data) {
        (Data::Map(map), Data::Map(entries)) => {
            for (key, node) in entries {
                let next = path.key(key.text.clone());
                match node.directive {
                    Directive::Reset | Directive::Override if directives == Directives::Keep => {
                        map.insert(key, node);
                    }
                    Directive::Reset => {
                        map.shift_remove(&*key.text);
                    }
                    Directive::Override => {
                        map.insert(key, node);
                    }
                    Directive::Merge => match map.get_mut(&*key.text) {
                        Some(existing) => merge(existing, node, &next, directives, diagnostics),
                        None => {
                            map.insert(key, node);
                        }
                    },
                }
            }
        }
        (Data::List(list), Data::List(elements)) => list.extend(elements),
        (Data::Map(_) | Data::List(_), _) => {
            let kind = if base.as_map().is_some() { "a mapping" } else { "a list" };
            diagnostics.push(
                Diagnostic::error(over_span, format!("`{path}` is {kind}, {over_what} cannot be merged into it"))
                    .related(base.span, "merged into this")
                    .hint("tag it `!override` to replace what was there"),
            );
        }
        (_, data) => *base = Node { data, span: over_span, directive: over.directive, variables: over.variables },
    }
}

fn pairs(base: &mut Node, over: Node) {
    match (&mut base.data, over.data) {
        (Data::Map(map), Data::Map(entries)) => {
            for (key, node) in entries {
                if node.directive == Directive::Reset {
                    map.shift_remove(&*key.text);
                } else {
                    map.insert(key, node);
                }
            }
        }
        (_, Data::Null) => {}
        (_, data) => base.data = data,
    }
}

fn append_new(base: &mut Node, over: Node) {
    if let (Data::List(list), Data::List(elements)) = (&mut base.data, over.data) {
        for element in elements {
            if !list.contains(&element) {
                list.push(element);
            }
        }
    }
}

fn by_subnet(base: &mut Node, over: Node, path: &Path, directives: Directives, diagnostics: &mut Vec<Diagnostic>) {
    let (Data::List(pools), Data::List(overrides)) = (&mut base.data, over.data) else { return };
    let mut merged: Vec<Node> = Vec::new();
    let subnet = |node: &Node| node.get("subnet").cloned();
    for pool in std::mem::take(pools) {
        for over in &overrides {
            let known = merged.iter().position(|known| subnet(known) == subnet(over));
            if subnet(over) != subnet(&pool) && known.is_none() {
                merged.push(over.clone());
                continue;
            }
            let mut pool = pool.clone();
            by_kind(&mut pool, over.clone(), &path.element(), directives, diagnostics);
            match merged.iter().position(|known| subnet(known) == subnet(&pool)) {
                Some(at) => merged[at] = pool,
                None => merged.push(pool),
            }
        }
    }
    *pools = merged;
}

/// Removes what `!reset` marks and forgets `!override`: what is left is what the file says.
pub fn settle(node: &mut Node) {
    node.directive = Directive::Merge;
    match &mut node.data {
        Data::Map(map) => {
            map.retain(|_, node| node.directive != Directive::Reset);
            map.values_mut().for_each(settle);
        }
        Data::List(list) => list.iter_mut().for_each(settle),
        _ => {}
    }
}

/// In the lists of the table, lets a later element take the place of an earlier one that is the same.
pub fn enforce_unicity(node: &mut Node, path: &Path) {
    let Data::List(list) = &mut node.data else { return };
    let Some((_, identity)) = UNIQUE.iter().find(|(pattern, _)| path.matches(pattern)) else { return };
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut unique: Vec<Node> = Vec::with_capacity(list.len());
    for element in std::mem::take(list) {
        match identity.of(&element) {
            Some(id) => match places.get(&id) {
                Some(&at) => unique[at] = element,
                None => {
                    places.insert(id, unique.len());
                    unique.push(element);
                }
            },
            None => unique.push(element),
        }
    }
    *list = unique;
}

impl Identity {
    fn of(self, node: &Node) -> Option<String> {
        match self {
            Self::Value => node.scalar().map(|text| text.split('=').next().unwrap_or("").to_owned()),
            Self::Target => node.text_at("target").map(str::to_owned),
            Self::FilePath => node.text_at("path").map(str::to_owned),
            Self::Grant(folder) => match node.text_at("target") {
                Some(target) => Some(target.to_owned()),
                None => node.text_at("source").map(|source| format!("{folder}/{source}")),
            },
            Self::Port => {
                let part = |key: &str, default: &str| {
                    node.get(key).and_then(Node::scalar).unwrap_or_else(|| default.to_owned())
                };
                node.get("target").and_then(Node::scalar).map(|target| {
                    format!(
                        "{}:{}:{target}/{}",
                        part("host_ip", "0.0.0.0"),
                        part("published", ""),
                        part("protocol", "tcp")
                    )
                })
            }
        }
    }
}

/// The keys of a mapping, for messages.
pub fn keys(map: &Map) -> impl Iterator<Item = &str> {
    map.keys().map(|key| &*key.text)
}
