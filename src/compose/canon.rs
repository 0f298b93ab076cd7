//! Short forms → long forms, so that every later phase meets one form of each key.
//!
//! The rules are one table of path patterns. A value that has neither form is left alone: [`super::decode`] says what is
//! wrong with it. Elements that say the same thing twice are reduced here too, the later one counting, as in compose.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::limits;
use super::merge;
use super::node::{Data, Key, Map, Node};
use super::rules::{Place, Rules};
use super::values;
use crate::diag::{Diagnostic, Diagnostics};

type Rule = fn(&mut Node, &mut Canon<'_>);

/// What is widened, and how.
static RULES: LazyLock<Rules<Rule>> = LazyLock::new(|| {
    Rules::new(&[
        ("include", includes as Rule),
        ("services.*.annotations", pairs),
        ("services.*.build", build),
        ("services.*.build.additional_contexts", assignments),
        ("services.*.build.args", pairs),
        ("services.*.build.extra_hosts", hosts),
        ("services.*.build.labels", pairs),
        ("services.*.build.no_cache_filter", texts),
        ("services.*.build.secrets.[]", source),
        ("services.*.build.ssh", keys),
        ("services.*.configs.[]", source),
        ("services.*.depends_on", dependencies),
        ("services.*.depends_on.*.required", switch),
        ("services.*.deploy.labels", pairs),
        ("services.*.deploy.resources.reservations.devices.[].options", distinct_pairs),
        ("services.*.develop.watch.[].exec.environment", hook_environment),
        ("services.*.develop.watch.[].ignore", listed),
        ("services.*.develop.watch.[].include", listed),
        ("services.*.devices.[]", device),
        ("services.*.dns", name_servers),
        ("services.*.dns_search", texts),
        ("services.*.env_file", env_files),
        ("services.*.environment", environment),
        ("services.*.extends", extends),
        ("services.*.extra_hosts", hosts),
        ("services.*.gpus", gpus),
        ("services.*.gpus.[].options", distinct_pairs),
        ("services.*.label_file", listed),
        ("services.*.labels", pairs),
        ("services.*.models", names),
        ("services.*.networks", names),
        ("services.*.ports", ports),
        ("services.*.post_start.[].environment", hook_environment),
        ("services.*.pre_start.[].environment", hook_environment),
        ("services.*.pre_stop.[].environment", hook_environment),
        ("services.*.secrets.[]", source),
        ("services.*.sysctls", pairs),
        ("services.*.tmpfs", texts),
        ("services.*.volumes.[]", mount),
        ("services.*.volumes.[].volume.labels", distinct_pairs),
        ("configs.*", external),
        ("configs.*.labels", distinct_pairs),
        ("networks.*", external),
        ("networks.*.labels", pairs),
        ("secrets.*", external),
        ("secrets.*.labels", distinct_pairs),
        ("volumes.*", external),
        ("volumes.*.labels", distinct_pairs),
    ])
});

/// Whether a mapping under this key of a service may be written as a list.
pub fn takes_list(key: &str) -> bool {
    const KEYS: &[&str] = &[
        "additional_contexts",
        "annotations",
        "args",
        "depends_on",
        "environment",
        "labels",
        "models",
        "networks",
        "ssh",
        "sysctls",
    ];
    KEYS.contains(&key)
}

/// What rules may report to.
pub struct Canon<'d> {
    /// What is wrong so far.
    pub diagnostics: &'d mut Diagnostics,
    /// Variables are still in place: a text that cannot be parsed stays as it is, and so does, as in compose, what only
    /// decoding needs in long form.
    pub uninterpolated: bool,
    /// Ports that short forms may still become.
    ports: usize,
}

impl<'d> Canon<'d> {
    /// For one document.
    pub fn new(diagnostics: &'d mut Diagnostics, uninterpolated: bool) -> Self {
        Self { diagnostics, uninterpolated, ports: limits::PORTS }
    }
}

/// Widens everything below `node`.
pub fn canonical(node: &mut Node, canon: &mut Canon<'_>) {
    widen(node, RULES.root(), canon);
    merge::enforce_unicity_below(node);
}

fn widen(node: &mut Node, place: Place<'_, Rule>, canon: &mut Canon<'_>) {
    if let Some(rule) = place.rule() {
        rule(node, canon);
    }
    match &mut node.data {
        Data::Map(map) => {
            for (key, node) in map {
                if let Some(place) = place.key(&key.text) {
                    widen(node, place, canon);
                }
            }
        }
        Data::List(list) => {
            if let Some(place) = place.element() {
                list.iter_mut().for_each(|node| widen(node, place, canon));
            }
        }
        _ => {}
    }
}

/// `a` → `[a]`.
fn listed(node: &mut Node, _: &mut Canon<'_>) {
    if let Data::Text(_) = node.data {
        let data = Data::List(vec![Node { directive: super::node::Directive::Merge, ..node.clone() }]);
        node.data = data;
    }
}

/// As `listed`, but only once variables are replaced.
fn texts(node: &mut Node, canon: &mut Canon<'_>) {
    if !canon.uninterpolated {
        listed(node, canon);
    }
}

/// As `listed`; an empty one, mostly from a variable that is not set, is none.
fn name_servers(node: &mut Node, canon: &mut Canon<'_>) {
    listed(node, canon);
    if let Data::List(list) = &mut node.data {
        list.retain(|node| node.as_text() != Some(""));
    }
}

/// `[a=1, b]` → `{a: 1, b: null}`, but only once variables are replaced.
fn pairs(node: &mut Node, canon: &mut Canon<'_>) {
    if !canon.uninterpolated {
        paired(node);
    }
}

fn paired(node: &mut Node) {
    let Data::List(list) = &node.data else { return };
    let mut map = Map::default();
    for item in list {
        let Some(text) = item.as_text() else { return };
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Data::Text(value.to_owned())),
            None => (text, Data::Null),
        };
        map.insert(Key::new(key, item.span), item.at(value));
    }
    node.data = Data::Map(map);
}

/// As `pairs`, where compose refuses a list that says the same twice.
fn distinct_pairs(node: &mut Node, canon: &mut Canon<'_>) {
    let mut known: HashMap<&str, &Node> = HashMap::new();
    for item in node.as_list().unwrap_or_default() {
        let Some(text) = item.as_text() else { continue };
        if let Some(first) = known.insert(text, item) {
            let diagnostic = item.error(format!("`{text}` is listed twice")).related(first.span, "first here");
            canon.diagnostics.push(diagnostic);
        }
    }
    pairs(node, canon);
}

/// As `distinct_pairs` and `environment`.
fn hook_environment(node: &mut Node, canon: &mut Canon<'_>) {
    if node.as_list().is_none() {
        return;
    }
    distinct_pairs(node, canon);
    check_names(node, canon);
}

/// As `pairs`, but a list's names must not end with a space.
fn environment(node: &mut Node, canon: &mut Canon<'_>) {
    if node.as_list().is_none() {
        return;
    }
    pairs(node, canon);
    check_names(node, canon);
}

fn check_names(node: &Node, canon: &mut Canon<'_>) {
    for key in node.as_map().into_iter().flat_map(Map::keys) {
        if key.text.ends_with(char::is_whitespace) {
            canon.diagnostics.push(
                Diagnostic::error(key.span, format!("the name of the variable `{}` ends with a space", key.text))
                    .hint("remove the space before `=`"),
            );
        }
    }
}

/// As `pairs`, but only `default` may stand alone.
fn keys(node: &mut Node, canon: &mut Canon<'_>) {
    for item in node.as_list().unwrap_or_default() {
        if let Some(text) = item.as_text().filter(|text| *text != "default" && !text.contains('=')) {
            let diagnostic = item.error(format!("the SSH key `{text}` has no path"));
            canon.diagnostics.push(diagnostic.hint("write `name=path`; only `default` may stand alone"));
        }
    }
    paired(node);
}

/// As `pairs`, but every element needs its `=`.
fn assignments(node: &mut Node, canon: &mut Canon<'_>) {
    let bare = |node: &&Node| node.as_text().is_some_and(|text| !text.contains('='));
    match node.as_list().and_then(|list| list.iter().find(bare)) {
        Some(_) if canon.uninterpolated => {}
        Some(item) => {
            canon.diagnostics.push(item.error(format!("{} is not of the form `name=value`", item.describe())))
        }
        None => paired(node),
    }
}

/// `{a: 1.2.3.4, b: [x, y]}` → `[a=1.2.3.4, b=x, b=y]`, but only once variables are replaced.
fn hosts(node: &mut Node, canon: &mut Canon<'_>) {
    let Data::Map(map) = &node.data else { return };
    if canon.uninterpolated {
        return;
    }
    let mut list = Vec::new();
    for (key, value) in map {
        let addresses: Vec<&Node> = value.as_list().map_or_else(|| vec![value], |list| list.iter().collect());
        for address in addresses {
            let Some(text) = address.as_text() else { return };
            if key.text.contains([':', '=']) || key.text.is_empty() {
                return;
            }
            list.push(address.at(Data::Text(format!("{}={text}", key.text))));
        }
    }
    node.data = Data::List(list);
}

/// `[a, b]` → `{a: null, b: null}`.
fn names(node: &mut Node, canon: &mut Canon<'_>) {
    let Data::List(list) = &node.data else { return };
    let mut map = Map::default();
    for item in list {
        let Some(name) = item.as_text() else { return };
        if let Some((earlier, _)) = map.get_key_value(name) {
            let diagnostic = item.error(format!("`{name}` is listed twice")).related(earlier.span, "first here");
            canon.diagnostics.push(diagnostic);
        }
        map.insert(Key::new(name, item.span), item.at(Data::Null));
    }
    node.data = Data::Map(map);
}

fn dependencies(node: &mut Node, canon: &mut Canon<'_>) {
    if node.as_list().is_none() {
        return;
    }
    names(node, canon);
    for value in node.as_map_mut().into_iter().flat_map(Map::values_mut) {
        let span = value.span;
        *value = Node::map(
            span,
            [("condition", Node::text(span, "service_started")), ("required", Node::new(span, Data::Bool(true)))],
        );
    }
}

/// Text that variables made becomes a boolean where no other text may stand.
fn switch(node: &mut Node, _: &mut Canon<'_>) {
    if let Some(value) = node.as_text().and_then(values::boolean)
        && node.variables.is_some()
    {
        node.data = Data::Bool(value);
    }
}

fn build(node: &mut Node, _: &mut Canon<'_>) {
    wrap(node, "context");
}

fn extends(node: &mut Node, _: &mut Canon<'_>) {
    wrap(node, "service");
}

fn source(node: &mut Node, _: &mut Canon<'_>) {
    wrap(node, "source");
}

/// `text` → `{key: text}`.
fn wrap(node: &mut Node, key: &str) {
    if node.as_text().is_some() {
        let data = std::mem::replace(&mut node.data, Data::Null);
        let inner = node.at(data);
        node.data = Data::Map(Map::from_iter([(Key::new(key, node.span), inner)]));
    }
}

fn env_files(node: &mut Node, canon: &mut Canon<'_>) {
    listed(node, canon);
    if let Data::List(list) = &mut node.data {
        list.iter_mut().for_each(|node| wrap(node, "path"));
    }
}

fn includes(node: &mut Node, canon: &mut Canon<'_>) {
    if let Data::List(list) = &mut node.data {
        for include in list {
            wrap(include, "path");
            for key in ["path", "env_file"] {
                if let Some(paths) = include.get_mut(key) {
                    listed(paths, canon);
                }
            }
        }
    }
}

fn gpus(node: &mut Node, _: &mut Canon<'_>) {
    if node.as_text() == Some("all") {
        let (span, count) = (node.span, node.at(Data::Text("all".into())));
        node.data = Data::List(vec![Node::map(span, [("count", count)])]);
    }
}

fn ports(node: &mut Node, canon: &mut Canon<'_>) {
    let Data::List(list) = &mut node.data else { return };
    let mut widened = Vec::new();
    for item in std::mem::take(list) {
        let text = match &item.data {
            Data::Text(text) => text.clone(),
            Data::Int(number) => number.to_string(),
            _ => {
                widened.push(item);
                continue;
            }
        };
        match values::ports(&text) {
            Ok(ports) if ports.len() > canon.ports => {
                canon.diagnostics.push(item.error(format!("the file publishes more than {} ports", limits::PORTS)));
                return;
            }
            Ok(ports) => widened.extend(ports.into_iter().inspect(|_| canon.ports -= 1).map(|port| {
                let text = |value: &str| item.at(Data::Text(value.to_owned()));
                let mut entries = vec![("mode", text("ingress"))];
                if !port.host_ip.is_empty() {
                    entries.push(("host_ip", text(&port.host_ip)));
                }
                entries.push(("target", item.at(Data::Int(port.target.into()))));
                if !port.published.is_empty() {
                    entries.push(("published", text(&port.published)));
                }
                entries.push(("protocol", text(&port.protocol)));
                Node { variables: item.variables.clone(), ..Node::map(item.span, entries) }
            })),
            Err(_) if canon.uninterpolated => widened.push(item),
            Err(what) => canon.diagnostics.push(
                item.error(format!("`{text}` is not a port: {what}"))
                    .label("invalid port")
                    .hint("write `[HOST_IP:][HOST_PORT:]CONTAINER_PORT[/PROTOCOL]`, as in `8080:80`"),
            ),
        }
    }
    *list = widened;
}

fn mount(node: &mut Node, canon: &mut Canon<'_>) {
    let Data::Text(text) = &node.data else { return };
    let mount = match values::mount(text) {
        Ok(mount) => mount,
        Err(_) if canon.uninterpolated => return,
        Err(what) => {
            let diagnostic = node.error(what).label("invalid volume").hint("write `[SOURCE:]TARGET[:OPTIONS]`");
            canon.diagnostics.push(diagnostic);
            return;
        }
    };
    let text = |value: &str| node.at(Data::Text(value.to_owned()));
    let yes = || node.at(Data::Bool(true));
    let mut entries = vec![("type", text(if mount.is_bind() { "bind" } else { "volume" }))];
    if !mount.source.is_empty() {
        entries.push(("source", text(&mount.source)));
    }
    entries.push(("target", text(&values::clean(&mount.target))));
    if mount.read_only {
        entries.push(("read_only", yes()));
    }
    let mut bind = Vec::new();
    bind.extend(mount.selinux.iter().map(|value| ("selinux", text(value))));
    bind.extend(mount.propagation.iter().map(|value| ("propagation", text(value))));
    if mount.is_bind() {
        bind.push(("create_host_path", yes()));
    }
    if !bind.is_empty() {
        entries.push(("bind", Node::map(node.span, bind)));
    }
    if mount.no_copy || !(mount.is_bind() || mount.bare) {
        let volume = mount.no_copy.then(|| ("nocopy", yes()));
        entries.push(("volume", Node::map(node.span, volume)));
    }
    let map = Node::map(node.span, entries);
    node.data = map.data;
}

fn device(node: &mut Node, canon: &mut Canon<'_>) {
    let Data::Text(text) = &node.data else { return };
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, permissions) = match parts.as_slice() {
        [source] => (*source, *source, "rwm"),
        [source, target] => (*source, *target, "rwm"),
        [source, target, permissions] => (*source, *target, *permissions),
        _ if canon.uninterpolated => return,
        _ => {
            let diagnostic =
                node.error(format!("`{text}` is not a device")).hint("write `SOURCE[:TARGET[:PERMISSIONS]]`");
            canon.diagnostics.push(diagnostic);
            return;
        }
    };
    let target = if target.is_empty() { source } else { target };
    let entries = [("source", source), ("target", target), ("permissions", permissions)];
    node.data = Node::map(node.span, entries.map(|(key, value)| (key, node.at(Data::Text(value.to_owned()))))).data;
}

/// `external: {name: x}` → `external: true, name: x`.
fn external(node: &mut Node, canon: &mut Canon<'_>) {
    let named = node.get("name").cloned();
    let Some(external) = node.get_mut("external") else { return };
    let Data::Map(inner) = &external.data else { return };
    let (name, unknown) = (inner.get("name").cloned(), inner.keys().find(|key| &*key.text != "name").cloned());
    if let Some(key) = unknown.filter(|key| !key.text.starts_with("x-")) {
        canon.diagnostics.push(Diagnostic::error(key.span, format!("unknown key `{}` in `external`", key.text)));
    }
    external.data = Data::Bool(true);
    let Some(name) = name else { return };
    match named {
        Some(named) if named != name => canon.diagnostics.push(
            Diagnostic::error(name.span, "`name` and `external.name` differ")
                .related(named.span, "`name` here")
                .hint("keep `name` and write `external: true`"),
        ),
        Some(_) => {}
        None => {
            if let Some(map) = node.as_map_mut() {
                map.insert(Key::new("name", name.span), name);
            }
        }
    }
}
