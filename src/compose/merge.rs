//! What a later file (or an extending service) does to an earlier one.
//!
//! Mappings merge key by key, lists are appended, scalars replace, and null changes nothing, save where the table says
//! otherwise. `!reset` drops what was there, `!override` replaces it. Both sides are in long form, or both as written.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use super::limits;
use super::node::{Data, Directive, Map, Node, Path};
use super::rules::{Place, Rules};
use crate::diag::{Diagnostic, Diagnostics};

/// How two values under one key become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// The later one alone.
    Replace,
    /// Key by key; a key without a value counts as a value.
    Pairs,
    /// As `Pairs`, and a mapping even where those are as written.
    Mapping,
    /// The later list's elements that are not there yet are appended.
    AppendNew,
    /// Appended to what is there, be it a list or one text.
    Append,
    /// Key by key when the drivers agree, else the later one alone.
    SameDriver,
    /// Address pools are matched by their subnet; as in compose, the later list decides which there are.
    BySubnet,
}

/// What does not merge by the kinds of its values.
static RULES: LazyLock<Rules<Rule>> = LazyLock::new(|| {
    Rules::new(&[
        ("networks.*.ipam.config", Rule::BySubnet),
        ("networks.*.labels", Rule::Pairs),
        ("volumes.*.labels", Rule::Pairs),
        ("services.*.annotations", Rule::Pairs),
        ("services.*.build.args", Rule::Pairs),
        ("services.*.build.additional_contexts", Rule::Mapping),
        ("services.*.build.extra_hosts", Rule::AppendNew),
        ("services.*.build.labels", Rule::Pairs),
        ("services.*.command", Rule::Replace),
        ("services.*.deploy.labels", Rule::Pairs),
        ("services.*.dns_search", Rule::Append),
        ("services.*.entrypoint", Rule::Replace),
        ("services.*.environment", Rule::Pairs),
        ("services.*.extra_hosts", Rule::AppendNew),
        ("services.*.healthcheck.test", Rule::Replace),
        ("services.*.labels", Rule::Pairs),
        ("services.*.logging", Rule::SameDriver),
        ("services.*.sysctls", Rule::Pairs),
        ("services.*.tmpfs", Rule::Append),
        ("services.*.ulimits.*", Rule::Replace),
    ])
});

/// What makes two elements of a list the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Identity {
    /// The scalar; of `name=value` the name.
    Value,
    /// `target`.
    Target,
    /// `target`, or `source` below this folder.
    Grant(&'static str),
    /// Address, host port, container port and protocol. As in compose, the host port 80 is not `'80'`.
    Port,
    /// `path`.
    FilePath,
}

/// The lists in which an element replaces an earlier one that is the same. Some are lists only as [`Form::Written`].
static UNIQUE: LazyLock<Rules<Identity>> = LazyLock::new(|| {
    Rules::new(&[
        ("networks.*.labels", Identity::Value),
        ("services.*.annotations", Identity::Value),
        ("services.*.build.args", Identity::Value),
        ("services.*.build.labels", Identity::Value),
        ("services.*.build.tags", Identity::Value),
        ("services.*.cap_add", Identity::Value),
        ("services.*.cap_drop", Identity::Value),
        ("services.*.configs", Identity::Grant("")),
        ("services.*.deploy.labels", Identity::Value),
        ("services.*.devices", Identity::Target),
        ("services.*.dns", Identity::Value),
        ("services.*.dns_opt", Identity::Value),
        ("services.*.dns_search", Identity::Value),
        ("services.*.env_file", Identity::FilePath),
        ("services.*.environment", Identity::Value),
        ("services.*.expose", Identity::Value),
        ("services.*.labels", Identity::Value),
        ("services.*.links", Identity::Value),
        ("services.*.networks.*.aliases", Identity::Value),
        ("services.*.networks.*.link_local_ips", Identity::Value),
        ("services.*.ports", Identity::Port),
        ("services.*.profiles", Identity::Value),
        ("services.*.secrets", Identity::Grant("/run/secrets")),
        ("services.*.sysctls", Identity::Value),
        ("services.*.tmpfs", Identity::Value),
        ("services.*.volumes", Identity::Target),
    ])
});

/// Whether `!reset` and `!override` have done their work, or are needed for another merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directives {
    /// This is the last merge.
    Settle,
    /// The result will be merged again.
    Keep,
}

/// What names and their values look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// They are mappings.
    Long,
    /// They are lists or mappings; merged ones are lists, as compose has them until it decodes them.
    Written,
}

/// Merges a document into the ones before it.
pub fn documents(base: &mut Node, over: Node, directives: Directives, form: Form, diagnostics: &mut Diagnostics) {
    let mut merge = Merge { directives, form, diagnostics };
    merge.at(base, over, &Path::ROOT, At::root());
}

/// Merges an extending service into its base.
pub fn service(base: &mut Node, over: Node, name: &str, form: Form, diagnostics: &mut Diagnostics) {
    let services = Path::ROOT.key("services");
    let at = At::root().key("services").key(name);
    Merge { directives: Directives::Keep, form, diagnostics }.at(base, over, &services.key(name), at);
}

/// Where a merge is in the tables; below what they are about, nowhere.
#[derive(Clone, Copy)]
struct At {
    rules: Option<Place<'static, Rule>>,
    unique: Option<Place<'static, Identity>>,
}

impl At {
    fn root() -> Self {
        Self { rules: Some(RULES.root()), unique: Some(UNIQUE.root()) }
    }

    fn key(self, key: &str) -> Self {
        Self {
            rules: self.rules.and_then(|place| place.key(key)),
            unique: self.unique.and_then(|place| place.key(key)),
        }
    }
}

struct Merge<'d> {
    directives: Directives,
    form: Form,
    diagnostics: &'d mut Diagnostics,
}

impl Merge<'_> {
    fn at(&mut self, base: &mut Node, over: Node, path: &Path<'_>, at: At) {
        match at.rules.and_then(Place::rule) {
            Some(Rule::Pairs | Rule::Append) if self.form == Form::Written => {
                let mut list = sequence(base);
                list.extend(sequence(&over));
                base.data = Data::List(list);
            }
            Some(Rule::AppendNew) if self.form == Form::Written => {
                base.data = Data::List(sequence(base));
                append_new(base, over.at(Data::List(sequence(&over))));
            }
            Some(Rule::Replace) => *base = over,
            Some(Rule::Pairs | Rule::Mapping) => pairs(base, over),
            Some(Rule::AppendNew) => append_new(base, over),
            Some(Rule::BySubnet) => self.by_subnet(base, over, path),
            Some(Rule::SameDriver) => {
                let driver = |node: &Node| node.get("driver").cloned();
                match (driver(base), driver(&over)) {
                    (Some(a), Some(b)) if a != b => *base = over,
                    _ => self.by_kind(base, over, path, at),
                }
            }
            Some(Rule::Append) | None => self.by_kind(base, over, path, at),
        }
        if let Some(identity) = at.unique.and_then(Place::rule) {
            enforce_unicity(base, identity);
        }
    }

    fn by_kind(&mut self, base: &mut Node, over: Node, path: &Path<'_>, at: At) {
        if over.is_null() {
            return;
        }
        let (over_span, over_what) = (over.span, over.describe());
        match (&mut base.data, over.data) {
            (Data::Map(map), Data::Map(entries)) => {
                for (key, node) in entries {
                    match node.directive {
                        Directive::Reset | Directive::Override if self.directives == Directives::Keep => {
                            map.insert(key, node);
                        }
                        Directive::Reset => {
                            map.shift_remove(&*key.text);
                        }
                        Directive::Override => {
                            map.insert(key, node);
                        }
                        Directive::Merge => match map.get_mut(&*key.text) {
                            Some(existing) => self.at(existing, node, &path.key(&key.text), at.key(&key.text)),
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
                self.diagnostics.push(
                    Diagnostic::error(over_span, format!("`{path}` is {kind}, {over_what} cannot be merged into it"))
                        .related(base.span, "merged into this")
                        .hint("tag it `!override` to replace what was there"),
                );
            }
            (_, data) => *base = Node { data, span: over_span, directive: over.directive, variables: over.variables },
        }
    }

    fn by_subnet(&mut self, base: &mut Node, over: Node, path: &Path<'_>) {
        let (Data::List(pools), Data::List(overrides)) = (&mut base.data, over.data) else { return };
        let mut merged: Vec<Node> = Vec::new();
        let subnet = |node: &Node| node.get("subnet").cloned();
        if pools.len() * overrides.len() > limits::POOL_PAIRS {
            self.diagnostics.push(Diagnostic::error(over.span, format!("`{path}` has too many address pools")));
            return;
        }
        let nowhere = At { rules: None, unique: None };
        for pool in std::mem::take(pools) {
            for over in &overrides {
                let known = merged.iter().position(|known| subnet(known) == subnet(over));
                if subnet(over) != subnet(&pool) && known.is_none() {
                    merged.push(over.clone());
                    continue;
                }
                let mut pool = pool.clone();
                self.by_kind(&mut pool, over.clone(), &path.element(), nowhere);
                match merged.iter().position(|known| subnet(known) == subnet(&pool)) {
                    Some(at) => merged[at] = pool,
                    None => merged.push(pool),
                }
            }
        }
        *pools = merged;
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

/// `{b: [x, y], a: }` → `[a, b=x, b=y]`, and `x` → `[x]`.
fn sequence(node: &Node) -> Vec<Node> {
    match &node.data {
        Data::Null => Vec::new(),
        Data::List(list) => list.clone(),
        Data::Map(map) => {
            let mut list = Vec::new();
            for (key, value) in map.iter().filter(|(_, value)| value.directive != Directive::Reset) {
                let entry = |value: &Node| match value.scalar() {
                    Some(text) => value.at(Data::Text(format!("{}={text}", key.text))),
                    None => value.at(Data::Text(key.text.to_string())),
                };
                match &value.data {
                    Data::List(values) => list.extend(values.iter().map(entry)),
                    _ => list.push(entry(value)),
                }
            }
            list.sort_by(|a, b| a.as_text().cmp(&b.as_text()));
            list
        }
        _ => vec![node.clone()],
    }
}

fn append_new(base: &mut Node, over: Node) {
    if let (Data::List(list), Data::List(elements)) = (&mut base.data, over.data) {
        let mut known: HashSet<_> = list.iter().map(Node::scalar).collect();
        for element in elements {
            if known.insert(element.scalar()) || !list.contains(&element) {
                list.push(element);
            }
        }
    }
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

/// Makes lists without elements null, as compose has them until it decodes them, save those of the table.
pub fn drop_empty_lists(root: &mut Node) {
    fn walk(node: &mut Node, place: Option<Place<'_, Identity>>) {
        match &mut node.data {
            Data::List(list) if list.is_empty() && place.and_then(Place::rule).is_none() => node.data = Data::Null,
            Data::List(list) => list.iter_mut().for_each(|node| walk(node, None)),
            Data::Map(map) => {
                map.iter_mut().for_each(|(key, node)| walk(node, place.and_then(|place| place.key(&key.text))));
            }
            _ => {}
        }
    }
    walk(root, Some(UNIQUE.root()));
}

/// In the lists of the table, lets a later element take the place of an earlier one that is the same.
pub fn enforce_unicity_below(root: &mut Node) {
    fn walk(node: &mut Node, place: Place<'_, Identity>) {
        if let Some(identity) = place.rule() {
            enforce_unicity(node, identity);
        }
        for (key, node) in node.as_map_mut().into_iter().flatten() {
            if let Some(place) = place.key(&key.text) {
                walk(node, place);
            }
        }
    }
    walk(root, UNIQUE.root());
}

fn enforce_unicity(node: &mut Node, identity: Identity) {
    let Data::List(list) = &mut node.data else { return };
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
                let published = match node.get("published").map(|node| &node.data) {
                    Some(Data::Int(port)) => format!("number {port}"),
                    _ => part("published", ""),
                };
                node.get("target").and_then(Node::scalar).map(|target| {
                    format!("{}:{published}:{target}/{}", part("host_ip", "0.0.0.0"), part("protocol", "tcp"))
                })
            }
        }
    }
}

/// The keys of a mapping, for messages.
pub fn keys(map: &Map) -> impl Iterator<Item = &str> {
    map.keys().map(|key| &*key.text)
}
