//! What must hold between the parts of a file: names that refer to something, values that do not contradict.
//!
//! Works on nodes, so that everything it finds points at the words that are wrong.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::merge;
use super::node::{Data, Key, Map, Node};
use super::{spec, values};
use crate::diag::{Diagnostic, Diagnostics};
use crate::model::graph::ServiceGraph;
use crate::model::{Condition, ServiceName};

/// The services that a profile, or their name, enables.
pub fn enabled(root: &Node, profiles: &[String], wanted: &[String]) -> BTreeSet<String> {
    let services = services(root);
    let of = |service: &Node| -> Vec<String> {
        let list = service.get("profiles").and_then(Node::as_list).unwrap_or_default();
        list.iter().filter_map(Node::scalar).collect()
    };
    let mut active = profiles.to_vec();
    for name in wanted {
        active.extend(services.and_then(|services| services.get(name.as_str())).map(of).unwrap_or_default());
    }
    let on = |service: &Node| {
        let own = of(service);
        own.is_empty() || active.iter().any(|profile| profile == "*" || own.contains(profile))
    };
    services.into_iter().flatten().filter(|(_, service)| on(service)).map(|(key, _)| key.text.to_string()).collect()
}

fn services(root: &Node) -> Option<&Map> {
    root.get("services").and_then(Node::as_map)
}

/// What each model, included ones too, must hold on its own.
pub fn check_model(root: &Node, diagnostics: &mut Diagnostics) {
    for (key, volume) in section(root, "volumes") {
        external_alone(volume, &format!("volumes.{}", key.text), diagnostics);
    }
    for (section_name, sources) in
        [("configs", &["file", "environment", "content"][..]), ("secrets", &["file", "environment"][..])]
    {
        for (key, entry) in section(root, section_name) {
            if entry.is_null() {
                let diagnostic =
                    Diagnostic::error(key.span, format!("`{section_name}.{}` must be a mapping", key.text));
                diagnostics.push(diagnostic.label("there is nothing below it"));
            }
            let given: Vec<_> = sources.iter().filter_map(|name| entry.as_map()?.get_key_value(*name)).collect();
            let names = sources.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            match given.as_slice() {
                [] if entry.get("external").is_none() && entry.get("driver").is_none() && entry.as_map().is_some() => {
                    diagnostics.push(
                        Diagnostic::error(key.span, format!("`{section_name}.{}` has no content", key.text))
                            .hint(format!("give it one of {names}, or `external: true`")),
                    );
                }
                [(first, _), (second, _), ..] => diagnostics.push(
                    Diagnostic::error(second.span, format!("`{section_name}.{}` has more than one source", key.text))
                        .related(first.span, "the other one")
                        .hint(format!("keep one of {names}")),
                ),
                _ => {}
            }
        }
    }
    for (_, service) in section(root, "services") {
        for port in list(service, "ports") {
            if let Some(address) = port.get("host_ip")
                && let Some(text) = address.as_text()
                && text.parse::<std::net::IpAddr>().is_err()
                && !text.contains('$')
            {
                diagnostics.push(address.error(format!("`{text}` is not an IP address")));
            }
        }
        let reserved = service
            .get("deploy")
            .and_then(|node| node.get("resources")?.get("reservations")?.get("devices")?.as_list())
            .unwrap_or_default();
        for device in reserved.iter().chain(list(service, "gpus")) {
            if let (Some(count), Some(_)) = (device.get("count"), device.get("device_ids")) {
                diagnostics.push(count.error("`count` and `device_ids` exclude each other"));
            }
        }
        for rule in service.get("develop").map(|develop| list(develop, "watch")).unwrap_or_default() {
            if let Some(path) = rule.get("path").filter(|path| path.as_text() == Some("")) {
                diagnostics.push(path.error("the `path` of a watch rule must not be empty"));
            }
        }
        for mount in list(service, "volumes") {
            if mount.text_at("type") == Some("bind") && mount.get("source").is_none() {
                diagnostics.push(mount.error("a bind mount needs a `source`"));
            }
            if mount.as_map().is_some() && mount.get("target").is_none() {
                diagnostics.push(mount.error("a volume mount needs a `target`"));
            }
        }
    }
}

fn external_alone(entry: &Node, path: &str, diagnostics: &mut Diagnostics) {
    let Some(map) = entry.as_map() else { return };
    if !matches!(map.get("external").map(|node| &node.data), Some(Data::Bool(true))) {
        return;
    }
    for key in map.keys().filter(|key| !matches!(&*key.text, "name" | "external") && !key.text.starts_with("x-")) {
        diagnostics.push(
            Diagnostic::error(key.span, format!("`{path}` is external and cannot have `{}`", key.text))
                .hint("an external object is made elsewhere; only its `name` can be given"),
        );
    }
}

fn section<'n>(root: &'n Node, name: &str) -> impl Iterator<Item = (&'n Key, &'n Node)> {
    root.get(name).and_then(Node::as_map).into_iter().flatten()
}

fn list<'n>(node: &'n Node, key: &str) -> &'n [Node] {
    node.get(key).and_then(Node::as_list).unwrap_or_default()
}

/// What the whole project must hold, for the services that are enabled. What the services `unextended` lack may be in
/// the base they did not get.
pub fn check(root: &Node, enabled: &BTreeSet<String>, unextended: &BTreeSet<String>, diagnostics: &mut Diagnostics) {
    let Some(services) = services(root) else { return };
    for (key, service) in services.iter().filter(|(key, _)| enabled.contains(&*key.text)) {
        if diagnostics.is_full() {
            return;
        }
        let mut check = Check { root, services, enabled, name: &key.text, service, diagnostics };
        if !unextended.contains(&*key.text) {
            check.image_or_build(key.span);
        }
        check.build();
        check.references();
        check.dependencies();
        check.healthcheck();
        check.limits();
        check.mounts();
    }
    for (key, secret) in section(root, "secrets") {
        let external = matches!(secret.get("external").map(|node| &node.data), Some(Data::Bool(true)));
        if !external && secret.get("driver").is_some() && secret.get("file").or(secret.get("environment")).is_none() {
            diagnostics.push(
                Diagnostic::error(key.span, format!("`secrets.{}` has no content", key.text))
                    .hint("give it `file` or `environment`"),
            );
        }
    }
    let mut names: Vec<&Node> = Vec::new();
    let enabled_services = services.iter().filter(|(key, _)| enabled.contains(&*key.text));
    for name in enabled_services.filter_map(|(_, service)| service.get("container_name")) {
        match names.iter().find(|earlier| **earlier == name) {
            Some(earlier) => diagnostics.push(
                name.error(format!("{} is the `container_name` of another service already", name.describe()))
                    .related(earlier.span, "that of the other service"),
            ),
            None => names.push(name),
        }
    }
    if let Some(cycle) = cycle(services, enabled) {
        diagnostics.push(cycle);
    }
}

struct Check<'n, 'd> {
    root: &'n Node,
    services: &'n Map,
    enabled: &'n BTreeSet<String>,
    name: &'n str,
    service: &'n Node,
    diagnostics: &'d mut Diagnostics,
}

impl<'n> Check<'n, '_> {
    fn image_or_build(&mut self, span: crate::diag::Span) {
        // A key that is not known may be one of these, misspelt; it is reported already.
        let misspelt = |key: &Key| {
            !key.text.starts_with("x-") && spec::SERVICE.fields.iter().all(|field| field.name != &*key.text)
        };
        if self.service.as_map().is_none_or(|service| service.keys().any(misspelt)) {
            return;
        }
        let given = self.service.get("image").is_some_and(|image| !image.is_null() && image.as_text() != Some(""));
        let module = self
            .service
            .get("x-wasm")
            .is_some_and(|wasm| ["module", "build"].iter().any(|key| wasm.get(key).is_some()));
        if !given && !module && self.service.get("build").is_none() && self.service.get("provider").is_none() {
            self.diagnostics.push(
                Diagnostic::error(span, format!("service `{}` has neither an image nor a build", self.name))
                    .hint("give it `image:` or `build:`"),
            );
        }
    }

    fn build(&mut self) {
        let Some(build) = self.service.get("build") else { return };
        if let (Some(_), Some(inline)) = (build.get("dockerfile"), build.get("dockerfile_inline")) {
            self.diagnostics.push(inline.error("`dockerfile` and `dockerfile_inline` exclude each other"));
        }
        for context in build.get("additional_contexts").and_then(Node::as_map).into_iter().flat_map(Map::values) {
            let Some(target) = context.as_text().and_then(|text| text.strip_prefix("service:")) else { continue };
            match self.services.get(target) {
                Some(service) if self.enabled.contains(target) && service.get("build").is_some() => {}
                Some(_) if self.enabled.contains(target) => {
                    self.diagnostics
                        .push(context.error(format!("service `{target}` is not built, so it is no build context")));
                }
                _ => {
                    let unknown = self.unknown(context, "service", target, merge::keys(self.services));
                    self.diagnostics.push(unknown);
                }
            }
        }
        let platforms = list(build, "platforms");
        if let Some(platform) = self.service.get("platform")
            && !platforms.is_empty()
            && !platforms.contains(platform)
        {
            self.diagnostics.push(platform.error("`build.platforms` does not contain the service's `platform`"));
        }
        for secret in list(build, "secrets") {
            self.granted(secret, "secrets", "secret");
        }
    }

    fn references(&mut self) {
        let joins = self.service.get("networks").and_then(Node::as_map).is_some_and(|networks| !networks.is_empty());
        if let Some(mode) = self.service.get("network_mode").filter(|mode| joins && mode.as_text() != Some("")) {
            self.diagnostics
                .push(mode.error("`network_mode` and `networks` exclude each other").hint("keep one of them"));
        }
        for (key, _) in section(self.service, "networks").filter(|(key, _)| &*key.text != "default") {
            self.defined(Some(&Node::text(key.span, &*key.text)), "networks", "network");
        }
        for mount in list(self.service, "volumes") {
            if mount.text_at("type") == Some("volume") {
                self.defined(mount.get("source").filter(|source| source.as_text() != Some("")), "volumes", "volume");
            }
        }
        for (section_name, what) in [("configs", "config"), ("secrets", "secret")] {
            for grant in list(self.service, section_name) {
                self.granted(grant, section_name, what);
            }
        }
        for (key, _) in section(self.service, "models") {
            self.defined(Some(&Node::text(key.span, &*key.text)), "models", "model");
        }
    }

    fn granted(&mut self, grant: &Node, section: &str, what: &str) {
        if grant.get("source").is_none() {
            self.diagnostics.push(grant.error(format!("this use of a {what} names no `source`")));
        }
        self.defined(grant.get("source"), section, what);
    }

    fn defined(&mut self, reference: Option<&Node>, section: &str, what: &str) {
        let Some(name) = reference.and_then(Node::as_text) else { return };
        let Some(reference) = reference else { return };
        let entries = self.root.get(section).and_then(Node::as_map);
        if !entries.is_some_and(|entries| entries.contains_key(name)) {
            let unknown = self.unknown(reference, what, name, entries.into_iter().flat_map(merge::keys));
            let content = match section {
                "secrets" | "configs" => "file: PATH",
                "models" => "model: NAME",
                _ => "",
            };
            let hint = format!("declare it at the top level: `{section}: {{{name}: {{{content}}}}}`");
            self.diagnostics.push(unknown.hint(hint));
        }
    }

    fn unknown<'c>(&self, place: &Node, what: &str, name: &str, known: impl Iterator<Item = &'c str>) -> Diagnostic {
        let mut diagnostic = place
            .error(format!("service `{}` refers to the {what} `{name}`, which is not defined", self.name))
            .label(format!("no such {what}"));
        if let Some(similar) = values::similar(name, known) {
            diagnostic = diagnostic.hint(format!("did you mean `{similar}`?"));
        }
        diagnostic
    }

    fn dependencies(&mut self) {
        for (key, dependency) in section(self.service, "depends_on") {
            if self.enabled.contains(&*key.text) {
                continue;
            }
            let required = !matches!(dependency.get("required").map(|node| &node.data), Some(Data::Bool(false)));
            match self.services.get_key_value(&*key.text) {
                Some(_) if !required => {}
                Some((other, service)) => {
                    let profiles: Vec<_> = list(service, "profiles")
                        .iter()
                        .filter_map(Node::scalar)
                        .map(|name| format!("`{name}`"))
                        .collect();
                    self.diagnostics.push(
                        Diagnostic::error(
                            key.span,
                            format!(
                                "service `{}` depends on `{}`, which no active profile enables",
                                self.name, key.text
                            ),
                        )
                        .related(other.span, format!("it has the profile {}", profiles.join(", ")))
                        .hint("turn the profile on, or write `required: false`"),
                    );
                }
                None => {
                    let mut diagnostic = Diagnostic::error(
                        key.span,
                        format!("service `{}` depends on `{}`, which is not defined", self.name, key.text),
                    )
                    .label("no such service");
                    if let Some(similar) = values::similar(&key.text, merge::keys(self.services)) {
                        diagnostic = diagnostic.hint(format!("did you mean `{similar}`?"));
                    }
                    self.diagnostics.push(diagnostic);
                }
            }
        }
    }

    fn healthcheck(&mut self) {
        let Some(test) = self.service.get("healthcheck").and_then(|check| check.get("test")) else { return };
        if let Some([first, ..]) = test.as_list()
            && !matches!(first.as_text(), Some("CMD" | "CMD-SHELL" | "NONE"))
        {
            self.diagnostics.push(
                first
                    .error("the `test` of a healthcheck must begin with `CMD`, `CMD-SHELL` or `NONE`")
                    .hint("put `CMD` first, or write a plain string to run it in a shell"),
            );
        }
    }

    /// Values that can be said in two places must agree; all were checked to be of their kinds before.
    fn limits(&mut self) {
        let deploy = self.service.get("deploy");
        let number = |node: Option<&Node>| node.and_then(Node::scalar).and_then(|text| text.parse::<f64>().ok());
        let replicas = deploy.and_then(|deploy| deploy.get("replicas"));
        let scale = self.service.get("scale");
        if let (Some(a), Some(b)) = (number(scale), number(replicas))
            && (a - b).abs() > f64::EPSILON
        {
            self.differ(scale, replicas, "scale", "deploy.replicas");
        }
        for (node, what) in [(scale, "scale"), (replicas, "deploy.replicas")] {
            if let (Some(node), Some(value)) = (node, number(node))
                && value < 0.0
            {
                self.diagnostics.push(node.error(format!("`{what}` must not be negative")));
            }
        }
        if let (Some(name), Some(count)) = (self.service.get("container_name"), number(scale).or(number(replicas)))
            && count > 1.0
        {
            self.diagnostics.push(
                name.error(format!("service `{}` has a `container_name`, so it can have one instance only", self.name))
                    .hint("remove `container_name`, or set the number of instances to 1"),
            );
        }
        let resource = |kind: &str, key: &str| deploy?.get("resources")?.get(kind)?.get(key);
        let present = |kind: &str| deploy.and_then(|deploy| deploy.get("resources")?.get(kind)).is_some();
        let size = |node: Option<&Node>| node.and_then(Node::scalar).and_then(|text| values::bytes(&text).ok());
        for (key, kind, other) in [("mem_limit", "limits", "memory"), ("mem_reservation", "reservations", "memory")] {
            let node = self.service.get(key);
            let mine = size(node).unwrap_or(0);
            if mine != 0 && present(kind) && mine != size(resource(kind, other)).unwrap_or(0) {
                self.differ(node, resource(kind, other), key, &format!("deploy.resources.{kind}.{other}"));
            }
        }
        for (key, other) in [("cpus", "cpus"), ("pids_limit", "pids")] {
            let node = self.service.get(key);
            let mine = number(node).unwrap_or(0.0);
            let theirs = number(resource("limits", other)).unwrap_or(0.0);
            if mine != 0.0 && present("limits") && (mine - theirs).abs() > f64::EPSILON {
                self.differ(node, resource("limits", other), key, &format!("deploy.resources.limits.{other}"));
            }
        }
    }

    fn differ(&mut self, node: Option<&Node>, other: Option<&Node>, key: &str, other_key: &str) {
        let Some(node) = node else { return };
        let mut diagnostic = node.error(format!("`{key}` and `{other_key}` of service `{}` differ", self.name));
        if let Some(other) = other {
            diagnostic = diagnostic.related(other.span, "the other one");
        }
        self.diagnostics.push(diagnostic.hint("keep one of them"));
    }

    fn mounts(&mut self) {
        let watch = self.service.get("develop").map(|develop| list(develop, "watch")).unwrap_or_default();
        for rule in watch {
            let action = rule.text_at("action").unwrap_or_default();
            if rule.text_at("target").is_none_or(str::is_empty)
                && matches!(action, "sync" | "sync+restart" | "sync+exec")
            {
                self.diagnostics.push(rule.error(format!("a watch rule with the action `{action}` needs a `target`")));
            }
        }
        let mut taken: HashMap<String, &Node> = HashMap::new();
        let temporary = list(self.service, "tmpfs")
            .iter()
            .filter_map(|node| Some((node.as_text()?.split(':').next()?.to_owned(), node)));
        let mounts =
            list(self.service, "volumes").iter().filter_map(|node| Some((node.text_at("target")?.to_owned(), node)));
        for (target, node) in temporary.chain(mounts) {
            match taken.get(&target) {
                Some(earlier) => self.diagnostics.push(
                    node.error(format!("`{target}` of service `{}` is mounted twice", self.name))
                        .related(earlier.span, "first here"),
                ),
                None => {
                    taken.insert(target, node);
                }
            }
        }
    }
}

fn cycle(services: &Map, enabled: &BTreeSet<String>) -> Option<Diagnostic> {
    let names = services.keys().filter(|key| enabled.contains(&*key.text)).map(|key| ServiceName::new(&*key.text));
    let mut graph = ServiceGraph::new(names);
    for (key, service) in services.iter().filter(|(key, _)| enabled.contains(&*key.text)) {
        for (dependency, _) in section(service, "depends_on") {
            graph.depend(&ServiceName::new(&*key.text), &ServiceName::new(&*dependency.text), Condition::Started);
        }
        let contexts = service.get("build").and_then(|build| build.get("additional_contexts")).and_then(Node::as_map);
        for context in contexts.into_iter().flat_map(Map::values) {
            if let Some(other) = context.as_text().and_then(|text| text.strip_prefix("service:")) {
                graph.depend(&ServiceName::new(&*key.text), &ServiceName::new(other), Condition::Started);
            }
        }
    }
    let cycle = graph.cycle()?;
    let first = services.get_key_value(cycle.first()?.as_str())?;
    let second = cycle.get(1)?.as_str();
    let at =
        section(first.1, "depends_on").find(|(key, _)| &*key.text == second).map_or(first.0.span, |(key, _)| key.span);
    let path = cycle.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(" → ");
    Some(
        Diagnostic::error(at, format!("services depend on each other in a circle: {path}"))
            .label("one of these dependencies has to go"),
    )
}

/// Whether a document's element says `external: true`.
pub fn is_external(element: &Value) -> bool {
    element.get("external").and_then(Value::as_bool) == Some(true)
}
