//! Pure: what of a project is watched, and what a change asks for.
//!
//! `develop.watch` is compose's (conformance/behaviour.md, 7). A Wasm service without it is watched by its module: that is a
//! file of the user's, and there is nothing else to do with a new one than to run it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::image::ignore::Rules;
use crate::image::kind::{is_path, wasm_sign};
use crate::model::{HostBuild, Project, Service, ServiceName};

/// What editors and version control write beside what people do.
const NEVER: &str = "\
**/.git\n**/.hg\n**/.svn\n**/.DS_Store\n**/.idea\n**/*___jb_old___\n**/*___jb_tmp___\n**/.#*\n**/#*#\n**/4913\n**/*~\n\
**/.*.swp\n**/.*.swx\n**/.*.swo\n**/.*.swn\n**/.*.kate-swp\n**/.goutputstream-*\n**/*-go-tmp-umask";

/// What builds leave beside their sources.
const BUILT: &str = "**/target\n**/node_modules\n**/__pycache__\n**/.venv\n**/zig-out\n**/zig-cache\n**/.zig-cache";

/// One thing that is watched.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Whose change it is.
    pub service: ServiceName,
    /// A folder with everything below it, or a file.
    pub path: PathBuf,
    /// What a change asks for.
    pub action: Action,
    /// Everything is copied once before.
    pub initial_sync: bool,
    ignored: Vec<Ignored>,
    included: Option<Rules>,
}

/// Patterns, and the folder they are relative to.
#[derive(Debug, Clone)]
struct Ignored {
    base: PathBuf,
    rules: Rules,
}

/// What a change asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The module is a new one.
    Reload,
    /// The service is to be built anew.
    Rebuild,
    /// The service is to be restarted.
    Restart,
    /// The files are to be copied into the container.
    Sync {
        /// To here.
        target: String,
        /// And then.
        then: Then,
    },
}

/// What follows a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    Nothing,
    /// A restart.
    Restart,
    /// A command in the container.
    Exec(Hook),
}

/// A command as `exec` of a rule declares it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hook {
    /// What, and its arguments.
    pub command: Vec<String>,
    /// As whom.
    pub user: Option<String>,
    /// With extra rights.
    pub privileged: bool,
    /// Where.
    pub working_dir: Option<String>,
    /// On top of the service's environment; without a value, a variable is taken away.
    pub environment: Vec<(String, Option<String>)>,
}

impl Rule {
    /// Whether a change of this path falls under the rule.
    pub fn covers(&self, path: &Path) -> bool {
        let Ok(inside) = path.strip_prefix(&self.path) else { return false };
        if inside.as_os_str().is_empty() {
            return true;
        }
        !self.leaves_out(path) && self.included.as_ref().is_none_or(|rules| rules.leave_out(&slashed(inside)))
    }

    /// Whether nothing at or below this path is of any interest, so that it need not be watched.
    pub fn leaves_out(&self, path: &Path) -> bool {
        self.ignored.iter().any(|Ignored { base, rules }| {
            path.strip_prefix(base)
                .is_ok_and(|inside| !inside.as_os_str().is_empty() && rules.leave_out(&slashed(inside)))
        })
    }

    /// Where a changed file goes in the container.
    pub fn target_of(&self, path: &Path) -> Option<String> {
        let Action::Sync { target, .. } = &self.action else { return None };
        let inside = path.strip_prefix(&self.path).ok()?;
        let target = target.trim_end_matches('/');
        Some(if inside.as_os_str().is_empty() { target.to_owned() } else { format!("{target}/{}", slashed(inside)) })
    }
}

/// What of these services is watched; of none named, of all. `read` gives the text of an ignore file, where there is one.
pub fn rules(project: &Project, services: &[ServiceName], read: impl Fn(&Path) -> Option<String>) -> Vec<Rule> {
    let wanted = project.services.values().filter(|service| services.is_empty() || services.contains(&service.name));
    wanted.flat_map(|service| of_service(service, &read)).collect()
}

fn of_service(service: &Service, read: &impl Fn(&Path) -> Option<String>) -> Vec<Rule> {
    if let Some(declared) = service.document.pointer("/develop/watch").and_then(Value::as_array) {
        return declared.iter().filter_map(|rule| declared_rule(service, rule, read)).collect();
    }
    let Some(module) = module(service) else { return Vec::new() };
    let build = service.wasm.as_ref().and_then(|wasm| wasm.build.as_ref());
    let mut rules = build.map(|build| source_rules(service, build, read)).unwrap_or_default();
    rules.push(Rule {
        service: service.name.clone(),
        path: module,
        action: Action::Reload,
        initial_sync: false,
        ignored: Vec::new(),
        included: None,
    });
    rules
}

/// What `x-wasm.build` is made from: what it names, else its folder without what builds leave there.
fn source_rules(service: &Service, build: &HostBuild, read: &impl Fn(&Path) -> Option<String>) -> Vec<Rule> {
    let folder = &build.working_dir;
    let own = read(&folder.join(".gitignore")).map(|text| anchored(&text)).unwrap_or_default();
    let paths = if build.watch.is_empty() { std::slice::from_ref(folder) } else { &build.watch };
    let rule = |path: &PathBuf| {
        let mut ignored = vec![
            Ignored { base: path.clone(), rules: Rules::parse(NEVER) },
            Ignored { base: folder.clone(), rules: Rules::parse(&own) },
        ];
        if build.watch.is_empty() {
            ignored.push(Ignored { base: path.clone(), rules: Rules::parse(BUILT) });
        }
        if let (Some(above), Some(name)) = (build.output.parent(), build.output.file_name()) {
            let rules = Rules::parse(&name.to_string_lossy());
            ignored.push(Ignored { base: above.to_owned(), rules });
        }
        let action = Action::Rebuild;
        Rule { service: service.name.clone(), path: path.clone(), action, initial_sync: false, ignored, included: None }
    };
    paths.iter().map(rule).collect()
}

/// Patterns of a `.gitignore` in the words of a `.dockerignore`: without a slash inside they hold at any depth.
fn anchored(text: &str) -> String {
    let line = |line: &str| {
        let (not, pattern) = line.strip_prefix('!').map_or(("", line), |rest| ("!", rest));
        let is_deep = !pattern.trim_end_matches('/').contains('/');
        if line.starts_with('#') || pattern.is_empty() || !is_deep {
            line.to_owned()
        } else {
            format!("{not}**/{pattern}")
        }
    };
    text.lines().map(|text| line(text.trim())).collect::<Vec<_>>().join("\n")
}

fn declared_rule(service: &Service, rule: &Value, read: &impl Fn(&Path) -> Option<String>) -> Option<Rule> {
    let text = |key: &str| rule.get(key).and_then(Value::as_str);
    let patterns = |key: &str| {
        let list = rule.get(key).and_then(Value::as_array)?;
        let lines: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
        (!lines.is_empty()).then(|| Rules::parse(&lines.join("\n")))
    };
    let path = PathBuf::from(text("path")?);
    let target = || text("target").unwrap_or_default().to_owned();
    // The loader lets no other action pass.
    let action = match text("action")? {
        "rebuild" => Action::Rebuild,
        "restart" => Action::Restart,
        "sync" => Action::Sync { target: target(), then: Then::Nothing },
        "sync+restart" => Action::Sync { target: target(), then: Then::Restart },
        "sync+exec" => {
            Action::Sync { target: target(), then: Then::Exec(hook(rule.get("exec").unwrap_or(&Value::Null))) }
        }
        _ => return None,
    };
    let mut ignored = vec![Ignored { base: path.clone(), rules: Rules::parse(NEVER) }];
    ignored.extend(patterns("ignore").map(|rules| Ignored { base: path.clone(), rules }));
    if let Some(context) = service.build.as_ref().map(|build| PathBuf::from(&build.context))
        && let Some(rules) = read(&context.join(".dockerignore"))
    {
        ignored.push(Ignored { base: context, rules: Rules::parse(&rules) });
    }
    let initial_sync = rule.get("initial_sync").or_else(|| rule.get("x-initialSync")).is_some_and(|flag| flag == true);
    Some(Rule { service: service.name.clone(), path, action, initial_sync, ignored, included: patterns("include") })
}

fn hook(declared: &Value) -> Hook {
    let text = |key: &str| declared.get(key).and_then(Value::as_str).map(str::to_owned);
    let words = declared.get("command").and_then(Value::as_array).into_iter().flatten();
    let environment = declared.get("environment").and_then(Value::as_object).into_iter().flatten();
    Hook {
        command: words.filter_map(|word| word.as_str().map(str::to_owned)).collect(),
        user: text("user"),
        privileged: declared.get("privileged").is_some_and(|flag| flag == true),
        working_dir: text("working_dir"),
        environment: environment.map(|(name, value)| (name.clone(), scalar(value))).collect(),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// The module of a Wasm service that is a file of the user's.
fn module(service: &Service) -> Option<PathBuf> {
    wasm_sign(service)?;
    let wasm = service.wasm.as_ref();
    let option = wasm.and_then(|wasm| wasm.build.as_ref().map(|build| build.output.clone()).or(wasm.module.clone()));
    option.or_else(|| service.image.as_ref().filter(|image| is_path(image)).map(PathBuf::from))
}

fn slashed(path: &Path) -> String {
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::WasmOptions;

    fn rule(rule: Value) -> Rule {
        let service = Service { document: json!({ "develop": { "watch": [rule] } }), ..Service::named("web") };
        of_service(&service, &|_| None).remove(0)
    }

    #[test]
    fn a_wasm_service_is_watched_by_its_module_unless_it_says_otherwise() {
        let module = Service { image: Some("/p/app.wasm".into()), ..Service::named("web") };
        let rules = of_service(&module, &|_| None);
        assert_eq!((rules[0].path.as_path(), &rules[0].action), (Path::new("/p/app.wasm"), &Action::Reload));
        let option = WasmOptions { module: Some("/p/other.wasm".into()), ..WasmOptions::default() };
        let service = Service { wasm: Some(option), ..module.clone() };
        assert_eq!(of_service(&service, &|_| None)[0].path, Path::new("/p/other.wasm"));

        let declared = json!({ "develop": { "watch": [{ "path": "/p/src", "action": "rebuild" }] } });
        let service = Service { document: declared, ..module };
        assert_eq!(of_service(&service, &|_| None)[0].action, Action::Rebuild);
        let linux = Service { image: Some("nginx".into()), ..Service::named("proxy") };
        assert!(of_service(&linux, &|_| None).is_empty());
    }

    #[test]
    fn a_module_that_is_built_is_watched_by_its_sources() {
        let build = HostBuild {
            command: vec!["make".into()],
            output: "/p/api/app.wasm".into(),
            working_dir: "/p/api".into(),
            ..HostBuild::default()
        };
        let of = |build: HostBuild| {
            let wasm = Some(WasmOptions { build: Some(build), ..WasmOptions::default() });
            let read =
                |path: &Path| (path == Path::new("/p/api/.gitignore")).then(|| "gen\n/top\n!gen/keep".to_owned());
            of_service(&Service { wasm, ..Service::named("api") }, &read)
        };
        let rules = of(build.clone());
        assert_eq!((&rules[0].action, &rules[1].action), (&Action::Rebuild, &Action::Reload));
        assert_eq!(rules[1].path, Path::new("/p/api/app.wasm"));
        for (path, covered) in [
            ("src/main.rs", true),
            ("app.wasm", false),
            ("target/release/app.wasm", false),
            ("deep/target/x", false),
            ("deep/gen/x", false),
            ("top/x", false),
            ("deep/top/x", true),
            ("src/.main.rs.swp", false),
        ] {
            assert_eq!(rules[0].covers(&Path::new("/p/api").join(path)), covered, "{path}");
        }
        let rules = of(HostBuild { watch: vec!["/p/api/src".into(), "/p/shared".into()], ..build });
        assert_eq!(rules.len(), 3);
        assert!(rules[1].covers(Path::new("/p/shared/target/x")), "what is named is meant");
    }

    #[test]
    fn actions_are_composes() {
        let action = |text: &str| {
            let environment = json!({ "A": "1", "B": null });
            let exec = json!({ "command": ["make", "all"], "user": "me", "environment": environment });
            rule(json!({ "path": "/p", "action": text, "target": "/app/", "exec": exec })).action
        };
        let sync = |then| Action::Sync { target: "/app/".into(), then };
        assert_eq!(action("restart"), Action::Restart);
        assert_eq!(action("sync"), sync(Then::Nothing));
        assert_eq!(action("sync+restart"), sync(Then::Restart));
        let hook = Hook {
            command: vec!["make".into(), "all".into()],
            user: Some("me".into()),
            environment: vec![("A".into(), Some("1".into())), ("B".into(), None)],
            ..Hook::default()
        };
        assert_eq!(action("sync+exec"), sync(Then::Exec(hook)));
    }

    #[test]
    fn what_is_ignored_or_not_included_is_not_covered() {
        let plain = rule(json!({ "path": "/p/src", "action": "sync", "target": "/app", "ignore": ["gen/", "*.log"] }));
        let covered = |rule: &Rule, path: &str| rule.covers(Path::new(path));
        for path in ["/p/src/a.js", "/p/src/deep/a.log", "/p/src"] {
            assert!(covered(&plain, path), "{path}");
        }
        for path in
            ["/p/src/gen/a.js", "/p/src/a.log", "/p/other", "/p/src/.git/index", "/p/src/x/.a.js.swp", "/p/src/a.js~"]
        {
            assert!(!covered(&plain, path), "{path}");
        }
        assert!(plain.leaves_out(Path::new("/p/src/gen")) && !plain.leaves_out(Path::new("/p/src/deep")));
        assert_eq!(plain.target_of(Path::new("/p/src/x/a.js")).as_deref(), Some("/app/x/a.js"));

        let only = rule(json!({ "path": "/p/src", "action": "restart", "include": ["**/*.go"] }));
        assert!(covered(&only, "/p/src/x/a.go") && !covered(&only, "/p/src/x/a.js"));
    }

    #[test]
    fn the_contexts_ignore_file_counts() {
        let build = crate::model::Build { context: "/p".into(), ..Default::default() };
        let document = json!({ "develop": { "watch": [{ "path": "/p/src", "action": "rebuild" }] } });
        let service = Service { build: Some(build), document, ..Service::named("web") };
        let read = |path: &Path| (path == Path::new("/p/.dockerignore")).then(|| "src/target".to_owned());
        let rules = of_service(&service, &read);
        assert!(!rules[0].covers(Path::new("/p/src/target/x")) && rules[0].covers(Path::new("/p/src/main.rs")));
    }
}
