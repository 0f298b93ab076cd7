//! Defaults, absolute paths, names and environment: what the files leave to be worked out.
//!
//! [`defaults`], [`paths`] and [`environment`] see one model, an included one with its own folder and variables;
//! [`normalize`] sees them joined. The rules are tables of path patterns where they concern single values.

use std::path::Path as FilePath;
use std::sync::LazyLock;

use super::files::{self, Files};
use super::interpolate::Environment;
use super::node::{Data, Key, Map, Node};
use super::rules::{Place, Rules};
use super::{remote, values};

/// What stands where nothing is said.
static DEFAULTS: LazyLock<Rules<fn(&mut Node)>> = LazyLock::new(|| {
    Rules::new(&[
        ("services.*.build", (|node| node.default_key("context", text("."))) as fn(&mut Node)),
        ("services.*.depends_on.*", |node| node.default_key("required", Data::Bool(true))),
        ("services.*.deploy.resources.reservations.devices.[]", device_count),
        ("services.*.env_file.[]", |node| node.default_key("required", Data::Bool(true))),
        ("services.*.gpus.[]", device_count),
        ("services.*.ports.[]", |node| {
            node.default_key("mode", text("ingress"));
            node.default_key("protocol", text("tcp"));
        }),
        ("services.*.secrets.[]", |node| {
            let source = node.text_at("source").unwrap_or_default().to_owned();
            node.default_key("target", Data::Text(format!("/run/secrets/{source}")));
        }),
    ])
});

/// Fills in what compose fills in for every model.
pub fn defaults(root: &mut Node) {
    visit(root, DEFAULTS.root(), &mut |node, fill| fill(node));
}

fn device_count(node: &mut Node) {
    if node.get("count").is_none() && node.get("device_ids").is_none() {
        node.default_key("count", text("all"));
    }
}

fn text(text: &str) -> Data {
    Data::Text(text.to_owned())
}

/// How a path is made absolute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// A path of this machine.
    Local,
    /// As `Local`, but a Windows path stays, as the engine may run there.
    Host,
    /// As `Local`, but a URL or `service:` stays.
    Context,
    /// As `Local`, and links are followed.
    Real,
    /// As `Local`, but a remote compose file stays.
    Compose,
    /// The `source` of a mount that is a bind mount, as `Host`.
    BindMount,
    /// The `device` of a volume that is a bind mount, as `Host`.
    BindVolume,
}

static PATHS: LazyLock<Rules<Rule>> = LazyLock::new(|| {
    Rules::new(&[
        ("services.*.build.context", Rule::Context),
        ("services.*.build.additional_contexts.*", Rule::Context),
        ("services.*.build.ssh.*", Rule::Host),
        ("services.*.env_file.[].path", Rule::Local),
        ("services.*.label_file.[]", Rule::Local),
        ("services.*.extends.file", Rule::Compose),
        ("services.*.develop.watch.[].path", Rule::Real),
        ("services.*.volumes.[]", Rule::BindMount),
        ("services.*.x-wasm.module", Rule::Local),
        ("services.*.x-wasm.plug.[]", Rule::Local),
        ("services.*.x-wasm.build.output", Rule::Local),
        ("services.*.x-wasm.build.working_dir", Rule::Local),
        ("services.*.x-wasm.build.watch.[]", Rule::Local),
        ("configs.*.file", Rule::Host),
        ("secrets.*.file", Rule::Host),
        ("volumes.*", Rule::BindVolume),
    ])
});

/// Makes relative paths absolute, `~` standing for `home`.
pub fn paths(root: &mut Node, folder: &FilePath, home: Option<&FilePath>, files: &dyn Files) {
    visit(root, PATHS.root(), &mut |node, rule| rule.apply(node, folder, home, files));
}

impl Rule {
    fn apply(self, node: &mut Node, folder: &FilePath, home: Option<&FilePath>, files: &dyn Files) {
        match self {
            Self::BindMount => {
                if node.text_at("type") == Some("bind")
                    && let Some(source) = node.get_mut("source")
                {
                    Self::Host.apply(source, folder, home, files);
                }
                return;
            }
            Self::BindVolume => {
                if node.text_at("driver") == Some("local")
                    && let Some(options) = node.get_mut("driver_opts")
                    && options.text_at("o") == Some("bind")
                    && let Some(device) = options.get_mut("device")
                {
                    Self::Host.apply(device, folder, home, files);
                }
                return;
            }
            Self::Local | Self::Host | Self::Context | Self::Real | Self::Compose => {}
        }
        let Data::Text(text) = &mut node.data else { return };
        let remotes = ["https://", "http://", "git://", "ssh://", "github.com/", "git@", "service:"];
        let stays = match self {
            Self::Context => text.contains("://") || remotes.iter().any(|prefix| text.starts_with(prefix)),
            Self::Host => is_windows_absolute(text),
            Self::Local | Self::Real | Self::BindMount | Self::BindVolume => false,
            Self::Compose => !matches!(remote::parse(text), Ok(None)),
        };
        if stays || text.is_empty() && self != Self::Host {
            return;
        }
        let expanded = expand_home(text, home);
        if !expanded.starts_with('/') {
            *text = files::join(folder, &expanded).display().to_string();
        } else {
            *text = expanded;
        }
        if self == Self::Real {
            *text = files.real(FilePath::new(text)).display().to_string();
        }
    }
}

/// `~/x` → the home folder's `x`.
pub fn expand_home(path: &str, home: Option<&FilePath>) -> String {
    match (path.strip_prefix('~'), home) {
        (Some(rest), Some(home)) => files::join(home, rest.trim_start_matches('/')).display().to_string(),
        _ => path.to_owned(),
    }
}

fn is_windows_absolute(path: &str) -> bool {
    let mut characters = path.chars();
    match (characters.next(), characters.next(), characters.next()) {
        (Some('\\'), Some('\\'), _) => true,
        (Some(drive), Some(':'), Some('\\' | '/')) => drive.is_ascii_alphabetic(),
        _ => false,
    }
}

/// Where the value of a config's or secret's variable is kept until it is decoded; never printed.
pub const RESOLVED: &str = "x-#value";

/// Gives variables without a value the one they have in the environment.
pub fn environment(root: &mut Node, environment: &Environment) {
    for service in root.get_mut("services").and_then(Node::as_map_mut).into_iter().flat_map(Map::values_mut) {
        if let Some(variables) = service.get_mut("environment") {
            fill(variables, environment);
        }
    }
    for section in ["configs", "secrets"] {
        for entry in root.get_mut(section).and_then(Node::as_map_mut).into_iter().flat_map(Map::values_mut) {
            let value = entry.text_at("environment").and_then(|name| environment.get(name)).cloned();
            if let Some(value) = value {
                entry.default_key(RESOLVED, Data::Text(value));
            }
        }
    }
}

fn fill(variables: &mut Node, environment: &Environment) {
    for (key, node) in variables.as_map_mut().into_iter().flatten() {
        if node.is_null()
            && let Some(value) = environment.get(&*key.text)
        {
            node.data = Data::Text(value.clone());
        }
    }
}

/// Fills in names, networks and dependencies that follow from others.
pub fn normalize(root: &mut Node, name: &str, environment: &Environment) {
    let span = root.span;
    let mut default_used = false;
    if let Some(services) = root.get_mut("services").and_then(Node::as_map_mut) {
        for service in services.values_mut().filter(|service| service.as_map().is_some()) {
            default_used |= normalize_network(service);
            normalize_service(service, environment);
        }
    }
    if let Some(map) = root.as_map_mut() {
        map.insert(Key::new("name", span), Node::text(span, name));
        if default_used {
            let networks = map.entry(Key::new("networks", span)).or_insert_with(|| Node::map(span, []));
            networks.default_key("default", Data::Null);
        }
    }
    for section in ["networks", "volumes", "configs", "secrets"] {
        let Some(entries) = root.get_mut(section).and_then(Node::as_map_mut) else { continue };
        for (key, entry) in entries {
            if entry.is_null() {
                entry.data = Data::Map(Map::default());
            }
            let external = matches!(entry.get("external").map(|node| &node.data), Some(Data::Bool(true)))
                || entry.text_at("external").and_then(values::boolean) == Some(true);
            let full = if external { key.text.to_string() } else { format!("{name}_{}", key.text) };
            entry.default_key("name", Data::Text(full));
        }
    }
}

/// What even a project that was not normalized has: a name, and mappings where networks and volumes say nothing.
pub fn complete(root: &mut Node, name: &str) {
    let span = root.span;
    if let Some(map) = root.as_map_mut() {
        map.insert(Key::new("name", span), Node::text(span, name));
    }
    for section in ["networks", "volumes"] {
        for entry in root.get_mut(section).and_then(Node::as_map_mut).into_iter().flat_map(Map::values_mut) {
            if entry.is_null() {
                entry.data = Data::Map(Map::default());
            }
        }
    }
}

/// Joins a service to the default network when it names none; says whether it uses it.
fn normalize_network(service: &mut Node) -> bool {
    if service.get("provider").is_some() || service.get("network_mode").is_some() {
        return false;
    }
    let span = service.span;
    match service.get_mut("networks").and_then(Node::as_map_mut) {
        Some(networks) if !networks.is_empty() => networks.contains_key("default"),
        _ => {
            let default = Node::map(span, [("default", Node::new(span, Data::Null))]);
            if let Some(map) = service.as_map_mut() {
                map.insert(Key::new("networks", span), default);
            }
            true
        }
    }
}

fn normalize_service(service: &mut Node, environment: &Environment) {
    if service.text_at("pull_policy") == Some("if_not_present")
        && let Some(policy) = service.get_mut("pull_policy")
    {
        policy.data = text("missing");
    }
    if let Some(build) = service.get_mut("build") {
        build.default_key("context", text("."));
        if build.get("dockerfile_inline").is_none() {
            build.default_key("dockerfile", text("Dockerfile"));
        }
        if let Some(arguments) = build.get_mut("args") {
            fill(arguments, environment);
            match &mut arguments.data {
                Data::Map(map) => map.retain(|_, node| !node.is_null()),
                Data::List(list) => list.retain(|node| node.as_text().is_some_and(|text| text.contains('='))),
                _ => {}
            }
        }
    }
    if let Some(variables) = service.get_mut("environment") {
        fill(variables, environment);
    }
    if let Some(image) = service.text_at("image").filter(|image| !image.is_empty()).map(text)
        && let Some(Data::List(hooks)) = service.get_mut("pre_start").map(|node| &mut node.data)
    {
        hooks.iter_mut().for_each(|hook| hook.default_key("image", image.clone()));
    }
    if let Some(Data::List(mounts)) = service.get_mut("volumes").map(|node| &mut node.data) {
        for target in mounts.iter_mut().filter_map(|mount| mount.get_mut("target")) {
            if let Data::Text(text) = &mut target.data {
                *text = values::clean(text);
            }
        }
    }
    if let Some(scale) = service.get("scale").cloned()
        && let Some(deploy) = service.get_mut("deploy")
    {
        deploy.default_key("replicas", scale.data);
    }
    for (name, place, restart) in implied_dependencies(service) {
        let span = service.span;
        let Some(map) = service.as_map_mut() else { return };
        let dependencies = map.entry(Key::new("depends_on", span)).or_insert_with(|| Node::map(span, []));
        let dependency = Node::map(
            place.span,
            [
                ("condition", place.at(text("service_started"))),
                ("restart", place.at(Data::Bool(restart))),
                ("required", place.at(Data::Bool(true))),
            ],
        );
        if let Some(map) = dependencies.as_map_mut()
            && !map.contains_key(&*name)
        {
            map.insert(Key::new(name, place.span), dependency);
        }
    }
}

/// Services another service is tied to without saying `depends_on`, and whether it restarts with them.
fn implied_dependencies(service: &Node) -> Vec<(String, Node, bool)> {
    let texts = |key: &str| service.get(key).and_then(Node::as_list).unwrap_or_default().to_vec();
    let mut implied = Vec::new();
    for link in texts("links") {
        if let Some(text) = link.as_text() {
            let name = match text.split(':').collect::<Vec<_>>().as_slice() {
                [name, _] => (*name).to_owned(),
                _ => text.to_owned(),
            };
            implied.push((name, link, true));
        }
    }
    for key in ["network_mode", "ipc", "pid", "uts", "cgroup"] {
        if let Some(node) = service.get(key)
            && let Some(name) = node.as_text().and_then(|text| text.strip_prefix("service:"))
        {
            implied.push((name.to_owned(), node.clone(), true));
        }
    }
    for source in texts("volumes_from") {
        if let Some(text) = source.as_text()
            && !text.starts_with("container:")
        {
            let name = text.split(':').next().unwrap_or(text).to_owned();
            implied.push((name, source, false));
        }
    }
    implied
}

/// Calls `act` for every node that a rule is about, outer ones first.
fn visit<R: Copy>(node: &mut Node, place: Place<'_, R>, act: &mut dyn FnMut(&mut Node, R)) {
    if let Some(rule) = place.rule() {
        act(node, rule);
    }
    match &mut node.data {
        Data::Map(map) => {
            for (key, node) in map {
                if let Some(place) = place.key(&key.text) {
                    visit(node, place, act);
                }
            }
        }
        Data::List(list) => {
            if let Some(place) = place.element() {
                list.iter_mut().for_each(|node| visit(node, place, act));
            }
        }
        _ => {}
    }
}
