//! Cases through the whole loader: files in memory → document, model or messages.

mod bounds;
mod messages;

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::Value;

use super::{Fetched, LoadError, Loaded, Memory, Options, Remote, RemoteState, load, model, print, remote};
use crate::diag::{Colour, Severity, render};
use crate::model::{Condition, FileContent, HostPort, MountSource, NetworkKey, Project, ServiceName};

fn options() -> Options {
    Options { directory: "/srv/demo".into(), ..Options::default() }
}

fn load_files(options: &Options, files: &[(&str, &str)]) -> Result<Loaded, LoadError> {
    let files = files.iter().map(|(name, text)| (PathBuf::from("/srv/demo").join(name), *text));
    load(options, &Memory::new(files))
}

fn project(files: &[(&str, &str)]) -> Project {
    match load_files(&options(), files) {
        Ok(loaded) => loaded.project,
        Err(error) => panic!("{}", render(&error.diagnostics, &error.sources, Colour::Never)),
    }
}

fn messages(files: &[(&str, &str)]) -> String {
    match load_files(&options(), files) {
        Ok(loaded) => render(&loaded.warnings, &loaded.sources, Colour::Never),
        Err(error) => render(&error.diagnostics, &error.sources, Colour::Never),
    }
}

#[test]
fn an_unknown_key_is_shown_with_a_suggestion() {
    insta::assert_snapshot!(messages(&[("compose.yaml", "services:\n  web:\n    imgae: nginx\n    image: a\n")]), @r"
    error: unknown key `imgae` in service `web`
     --> compose.yaml:3:5
      |
    3 |     imgae: nginx
      |     ^^^^^ not a key of the compose specification
    hint: did you mean `image`?
    ");
}

#[test]
fn a_cycle_is_shown_as_a_path() {
    let text = "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [c]}\n  c: {image: x, depends_on: [a]}\n";
    insta::assert_snapshot!(messages(&[("compose.yaml", text)]), @r"
    error: services depend on each other in a circle: a → b → c → a
     --> compose.yaml:2:30
      |
    2 |   a: {image: x, depends_on: [b]}
      |                              ^ one of these dependencies has to go
    ");
}

#[test]
fn a_value_from_a_variable_names_it_and_hides_secrets() {
    let text = "services:\n  web:\n    image: a\n    ports: [\"${PORT}:80\"]\n    tty: ${API_TOKEN}\n";
    let all = messages(&[("compose.yaml", text), (".env", "PORT=abc\nAPI_TOKEN=hunter2\n")]);
    assert!(all.contains("compose.yaml:4:13"), "{all}");
    assert!(all.contains("the variable `PORT` is `abc`"), "{all}");
    assert!(all.contains("compose.yaml:5:10"), "{all}");
    let error =
        load_files(&options(), &[("compose.yaml", text), (".env", "PORT=1\nAPI_TOKEN=hunter2\n")]).expect_err("bad");
    assert!(error.diagnostics[0].hints.contains(&"the variable `API_TOKEN` is set (not shown)".to_owned()));
}

#[test]
fn all_problems_are_found_at_once() {
    let text = "services:\n  web:\n    image: a\n    depends_on: [dbx]\n    networks: [front]\n    secrets: [s]\n    env_file: no.env\n  db: {image: b}\n";
    let error = load_files(&options(), &[("compose.yaml", text)]).expect_err("bad");
    let lines: Vec<_> =
        error.diagnostics.iter().map(|d| error.sources.location(d.span.expect("a place")).line).collect();
    assert_eq!(lines, [4, 5, 6, 7]);
}

#[test]
fn the_typed_model_says_what_the_file_says() {
    let project = project(&[
        (
            "compose.yaml",
            r#"
services:
  web:
    image: ./app.wasm
    platform: wasi/wasm
    runtime: io.containerd.wasmedge.v1
    command: [serve, "--port=80"]
    env_file: web.env
    environment: {A: own, FROM_HOST: }
    ports: ["127.0.0.1:8080-8081:80-81", "9000:90/udp"]
    expose: [70, "71-72/udp"]
    volumes: ["./data:/data:ro", "store:/store", "/anon"]
    networks: {default: {aliases: [www]}}
    depends_on: {db: {condition: service_healthy}}
    secrets: [key]
    restart: on-failure:3
    stop_grace_period: 1m
    mem_limit: 64m
    healthcheck: {test: curl -f localhost, interval: 2s}
    x-wasm: {http: {ports: [80], reuse: true}, egress: ["*.example.com:443"], healthcheck: {http: /ready}}
  db: {image: "postgres:16-alpine", container_name: thedb}
  tool: {image: t, profiles: [debug]}
volumes: {store: {}, unused: {}}
secrets: {key: {environment: FROM_HOST}}
"#,
        ),
        ("web.env", "A=file\nB=2\nFROM_HOST=${FROM_HOST:-unset}\n"),
    ]);
    let web = &project.services["web"];
    assert_eq!(web.image.as_deref(), Some("/srv/demo/app.wasm"));
    assert_eq!(project.document["services"]["web"]["image"], "./app.wasm");
    let environment: Vec<_> = web.environment.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    assert_eq!(environment, [("A", Some("own")), ("B", Some("2")), ("FROM_HOST", None)]);
    let ports: Vec<_> = web.ports.iter().map(|port| (port.target, port.published, port.protocol.to_string())).collect();
    let published = |port| Some(HostPort { start: port, end: port });
    assert_eq!(
        ports,
        [(80, published(8080), "tcp".into()), (81, published(8081), "tcp".into()), (90, published(9000), "udp".into())]
    );
    assert_eq!(web.expose.iter().map(ToString::to_string).collect::<Vec<_>>(), ["70/tcp", "71/udp", "72/udp"]);
    assert!(
        matches!(&web.mounts[0].source, MountSource::Bind { path, create: true, .. } if path == &PathBuf::from("/srv/demo/data"))
    );
    assert!(matches!(&web.mounts[1].source, MountSource::Volume { key, .. } if key.as_str() == "store"));
    assert!(matches!(web.mounts[2].source, MountSource::Anonymous { .. }));
    assert_eq!(web.networks[&NetworkKey::new("default")].aliases, ["www"]);
    assert_eq!(web.depends_on[&ServiceName::new("db")].condition, Condition::Healthy);
    assert_eq!(web.secrets[0].target, "/run/secrets/key");
    assert_eq!(web.restart.to_string(), "on-failure:3");
    assert_eq!(web.memory.map(|bytes| bytes.0), Some(64 << 20));
    let wasm = web.wasm.as_ref().expect("it is there");
    assert_eq!((wasm.http_ports.as_slice(), wasm.http_reuse), (&[80][..], true));
    assert_eq!(wasm.health_http.as_deref(), Some("/ready"));
    assert!(project.disabled.contains_key("tool") && !project.services.contains_key("tool"));
    assert_eq!(project.volumes.keys().map(|key| key.as_str()).collect::<Vec<_>>(), ["store"]);
    assert_eq!(project.secrets["key"], FileContent::Environment { name: "FROM_HOST".into(), value: None });
    assert_eq!(project.name.as_str(), "demo");
}

#[test]
fn the_two_hashes_see_different_files() {
    let files = [
        ("compose.yaml", "services: {a: {image: x, env_file: a.env, label_file: a.label}}"),
        ("a.label", "L=${HOME}1\n"),
    ];
    assert!(load_files(&options(), &files).is_err());
    let without = super::Without { environment_files: true, ..Default::default() };
    let unread = load_files(&Options { without, ..options() }, &files).expect("valid").project;
    let document = &unread.services["a"].document;
    assert_eq!((&document["env_file"][0], document.get("label_file")), (&Value::from("/srv/demo/a.env"), None));
    let read = project(&[files[0], files[1], ("a.env", "E=1\n")]);
    let document = &read.services["a"].document;
    assert_eq!((document.get("env_file"), &document["label_file"][0]), (None, &Value::from("/srv/demo/a.label")));
    assert_eq!(read.document["services"]["a"].get("label_file"), None);
    assert_eq!(read.services["a"].labels["L"], "1");
}

/// A service with one attribute as the document has it, or the message.
fn attribute(text: &str) -> String {
    let file = format!("services: {{a: {{image: x, {text}}}}}");
    match load_files(&options(), &[("compose.yaml", &file)]) {
        Ok(loaded) => {
            let name = text.split(':').next().expect("a key");
            loaded.project.document["services"]["a"][name].to_string()
        }
        Err(error) => error.diagnostics[0].message.clone(),
    }
}

#[test]
fn numbers_are_as_compose_takes_them() {
    for (text, wanted) in [
        ("cpu_shares: 1.5", "1"),
        ("scale: 1.5", "`services.a.scale` must be a whole number"),
        ("deploy: {resources: {limits: {pids: 2.0}}}", r#"{"resources":{"limits":{"pids":2}},"placement":{}}"#),
        (
            "networks: {default: {priority: '1'}}",
            "`services.a.networks.default.priority` must be a whole number, without quotes",
        ),
        ("expose: [1.5]", "`services.a.expose[]` must be a string or a whole number"),
        ("group_add: [12, a]", r#"["12","a"]"#),
        ("labels: {a: 1234567.5, b: 0.00001}", r#"{"a":"1.2345675e+06","b":"1e-05"}"#),
        ("mem_limit: 0", "null"),
        ("mem_swappiness: 1.5", "`services.a.mem_swappiness` must be a whole number of bytes"),
        ("blkio_config: {device_read_bps: [{rate: 0}]}", r#"{"device_read_bps":[{"Path":"","Rate":"0"}]}"#),
        ("blkio_config: {weight_device: [{path: /d}]}", r#"{"weight_device":[{"Path":"/d","Weight":0}]}"#),
        ("post_start: [{command: x, environment: ['A =1']}]", "the name of the variable `A ` ends with a space"),
    ] {
        assert_eq!(attribute(text), wanted, "{text}");
    }
}

#[test]
fn a_file_may_include_what_is_merged_before_it_but_not_itself() {
    let files = [("a.yaml", "services: {a: {image: x}}"), ("b.yaml", "include: [a.yaml]")];
    let both = Options { files: vec!["a.yaml".into(), "b.yaml".into()], ..options() };
    assert!(load_files(&both, &files).is_ok());
    let circle = [("compose.yaml", "include: [b.yaml]"), ("b.yaml", "include: [compose.yaml]")];
    assert!(messages(&circle).contains("compose.yaml → b.yaml → compose.yaml"), "{}", messages(&circle));
    let beside =
        [("compose.yaml", "include: [{path: [b.yaml, compose.yaml]}]"), ("b.yaml", "services: {a: {image: x}}")];
    assert!(messages(&beside).contains("include each other in a circle"), "{}", messages(&beside));
}

#[test]
fn what_compose_takes_and_what_not() {
    for (text, wanted) in [
        ("services: {a: {image: x}}\nname: ${NONE}", "the project has no name"),
        ("services: !reset {}", "the compose file is empty"),
        ("{}", "the compose file is empty"),
        ("services: {a: {image: x}}\nversion:", "`version` must be a string"),
        ("services: {a: {image: x}}\nconfigs: {c: }", "`configs.c` must be a mapping"),
        ("services: {a: {image: x, environment: {'A ': 1}}}", ""),
        ("services: {a: {image: x, environment: ['A =1']}}", "the name of the variable `A ` ends with a space"),
        ("services: {a: {image: x, post_start: [{command: x, environment: [A=1, A=1]}]}}", "`A=1` is listed twice"),
        ("services: {a: {image: x}}\nvolumes: {v: {labels: [a=1, a=1]}}", "`a=1` is listed twice"),
        ("services: {a: {image: x}}\nvolumes: {v: {labels: [a=1, a=2]}}", ""),
        ("services: {a: {image: x, labels: [a=1, a=1]}}", ""),
        ("services: {a: {build: {ssh: {k: }}}}", ""),
        ("services: {a: {build: {ssh: [k]}}}", "the SSH key `k` has no path"),
        ("services: {a: {build: {secrets: [{target: t}]}}}", "this use of a secret names no `source`"),
        (
            "services: {a: {image: x, logging: {options: {a: true}}}}",
            "`services.a.logging.options.a` must be a string or a number",
        ),
        ("services: {a: {image: x, extends: {service: b, file: }}, b: {image: y}}", ""),
        ("services: {a: {image: x, extends: !reset b}}", ""),
        (
            "services: {a: {image: x, container_name: cc}, b: {image: x, container_name: cc}}",
            "the string `cc` is the `container_name` of another service already",
        ),
        (
            "services: {a: {image: x, ports: ['::1:1:1']}}",
            "`::1:1:1` is not a port: `::1` needs brackets around it: `[::1]`",
        ),
        ("services: {a: {image: x, pull_policy: ''}}", "`` is not a pull policy"),
        (
            "services: {a: {image: x, depends_on: [b]}, b: {image: y, profiles: [p]}}",
            "service `a` depends on `b`, which no active profile enables",
        ),
    ] {
        for enable in [vec![], vec!["b".to_owned()]] {
            let found = match load_files(&Options { enable, ..options() }, &[("compose.yaml", text)]) {
                Ok(_) => String::new(),
                Err(error) => error
                    .diagnostics
                    .iter()
                    .find(|found| found.severity == Severity::Error)
                    .expect("one")
                    .message
                    .clone(),
            };
            assert_eq!(found, wanted, "{text}");
        }
    }
}

#[test]
fn names_and_resources_are_as_the_flags_say() {
    let text = "services: {a: {build: .}}\nvolumes: {unused: }";
    let load = |options: Options| load_files(&options, &[("compose.yaml", text)]).expect("a sound project").project;
    let plain = load(options());
    assert_eq!((plain.image_of(&ServiceName::new("a")), plain.volumes.len()), ("demo-a".to_owned(), 0));
    let flagged = load(Options { compatibility: true, all_resources: true, ..options() });
    assert_eq!((flagged.image_of(&ServiceName::new("a")), flagged.volumes.len()), ("demo_a".to_owned(), 1));
    let environment = BTreeMap::from([("COMPOSE_COMPATIBILITY".to_owned(), " Y".to_owned())]);
    assert_eq!(load(Options { environment, ..options() }).separator, '_');
}

#[test]
fn the_default_platform_is_that_of_what_is_built() {
    let environment = BTreeMap::from([("DOCKER_DEFAULT_PLATFORM".to_owned(), "linux/arm64".to_owned())]);
    let text = "services: {a: {build: .}, b: {build: ., platform: linux/amd64}, c: {image: x}, d: {build: {platforms: [linux/amd64]}}}";
    let options = Options { environment, ..options() };
    let project = load_files(&options, &[("compose.yaml", text)]).expect("a sound project").project;
    let platforms: Vec<_> = project.services.values().map(|service| service.document["platform"].as_str()).collect();
    assert_eq!(platforms, [Some("linux/arm64"), Some("linux/amd64"), None, None]);
    assert_eq!(project.document["services"]["a"].get("platform"), None);
}

#[test]
fn variables_that_say_nothing_are_refused() {
    for (name, value, wanted) in [
        ("COMPOSE_DISABLE_ENV_FILE", "yes", "`COMPOSE_DISABLE_ENV_FILE` is `yes`, which is neither true nor false"),
        ("COMPOSE_FILE", "", "`COMPOSE_FILE` is set, but names no file"),
    ] {
        let environment = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let text = "services: {a: {image: x}}";
        let error = load_files(&Options { environment, ..options() }, &[("compose.yaml", text)]).expect_err("bad");
        assert_eq!(error.diagnostics[0].message, wanted);
    }
}

#[test]
fn yaml_leaves_out_what_says_nothing() {
    let mut project = project(&[("compose.yaml", "services: {a: {image: x, deploy: {replicas: 1}}}")]);
    let document = print::select(&mut project, &[]).expect("no service is named");
    let json = print::document(document.clone(), print::Format::Json, print::Dollars::Escape);
    assert!(json.contains("\"ipam\": {}") && json.contains("\"placement\": {}"), "{json}");
    let yaml = print::document(document, print::Format::Yaml, print::Dollars::Escape);
    assert!(!yaml.contains("ipam") && yaml.contains("    deploy:\n      replicas: 1\n    image: x"), "{yaml}");
}

#[test]
fn a_file_that_is_extended_need_not_say_what_is_waited_for() {
    let base = "services: {b: {image: x, depends_on: {c: {}}}}";
    let text = "services: {a: {extends: {file: b.yaml, service: b}}, c: {image: x}}";
    let project = project(&[("compose.yaml", text), ("b.yaml", base)]);
    assert_eq!(project.services["a"].depends_on[&ServiceName::new("c")].condition, Condition::Started);
    assert!(messages(&[("compose.yaml", base)]).contains("`condition` is missing"));
}

#[test]
fn a_host_port_in_quotes_is_another_one() {
    for (ports, count) in [("{target: 80, published: 80}, '80:80'", 2), ("'80:80', {target: 80, published: '80'}", 1)] {
        let text = format!("services: {{a: {{image: x, ports: [{ports}]}}}}");
        assert_eq!(project(&[("compose.yaml", &text)]).services["a"].ports.len(), count, "{ports}");
    }
}

#[test]
fn without_interpolation_values_are_as_written() {
    for (over, wanted) in [
        (
            "",
            r#"{"build":{"context":"/srv/demo","args":["A=$X"],"dockerfile":"Dockerfile"},"environment":["A=2","B"],"extra_hosts":{"h":"1.1.1.1"},"labels":{"l":1.5,"n":null},"tmpfs":"/t","image":"x","entrypoint":null,"networks":{"default":null}}"#,
        ),
        (
            "services: {a: {build: {args: {A: 1, C: }}, environment: {A: , B: true}, extra_hosts: ['h=1.1.1.1', i=2], labels: [n=2], tmpfs: [/u]}}",
            r#"{"build":{"context":"/srv/demo","args":["A=1"],"dockerfile":"Dockerfile"},"environment":["A","B=true"],"extra_hosts":["h=1.1.1.1","i=2"],"labels":["l=1.5","n=2"],"tmpfs":["/t","/u"],"image":"x","entrypoint":null,"networks":{"default":null}}"#,
        ),
    ] {
        let base = "services: {a: {image: x, build: {args: [A=$X, D]}, environment: [A=1, B, A=2], extra_hosts: {h: 1.1.1.1}, labels: {n: , l: 1.5}, tmpfs: /t, entrypoint: []}}";
        let files = [("a.yaml", base), ("b.yaml", if over.is_empty() { "x-none: 1" } else { over })];
        let files = files.map(|(name, text)| (PathBuf::from("/srv/demo").join(name), text));
        let both = Options { files: vec!["a.yaml".into(), "b.yaml".into()], ..options() };
        let model = model(&both, &Memory::new(files)).expect("a sound project");
        let wanted: Value = serde_json::from_str(wanted).expect("JSON");
        assert_eq!(model.document["services"]["a"], wanted);
    }
}

#[test]
fn a_project_has_a_name_even_when_it_is_not_normalized() {
    let without = super::Without { normalization: true, ..Default::default() };
    let text = "services: {a: {image: x, networks: [n]}}\nnetworks: {n: }";
    let document =
        load_files(&Options { without, ..options() }, &[("compose.yaml", text)]).expect("valid").project.document;
    assert_eq!(
        (&document["name"], document["networks"]["n"].to_string()),
        (&Value::from("demo"), r#"{"ipam":{}}"#.into())
    );
}

#[test]
fn unknown_keys_of_x_wasm_are_errors() {
    insta::assert_snapshot!(messages(&[("compose.yaml", "services:\n  a:\n    image: x\n    x-wasm: {egres: []}\n")]), @r"
    error: unknown key `egres` in `services.a.x-wasm`
     --> compose.yaml:4:14
      |
    4 |     x-wasm: {egres: []}
      |              ^^^^^ not a key of `x-wasm`
    hint: did you mean `egress`?
    ");
}

#[test]
fn later_files_override() {
    let mut options = options();
    options.files = vec!["compose.yaml".into(), "-".into()];
    options.stdin =
        Some("services: {web: {ports: !override [\"1:2\"], environment: [B=2], image: !reset null, build: .}}".into());
    let base = "services: {web: {image: a, ports: [\"80:80\"], environment: {A: 1}}}";
    let loaded = load_files(&options, &[("compose.yaml", base)]).expect("valid");
    let web = &loaded.project.services["web"];
    assert_eq!((web.image.as_deref(), web.ports.len(), web.ports[0].target), (None, 1, 2));
    assert_eq!(web.environment.keys().collect::<Vec<_>>(), ["A", "B"]);
    assert_eq!(web.build.as_ref().map(|build| build.context.as_str()), Some("/srv/demo"));
}

/// Keys and forms of the specification that are newer than docker compose 2.40.3.
#[test]
fn newer_keys_are_read_in_all_their_forms() {
    let cases = [
        ("build: {context: /b, no_cache_filter: base}", "{}", "build/no_cache_filter", r#"["base"]"#),
        (
            "build: {no_cache_filter: [a, b]}",
            "build: {no_cache_filter: c}",
            "build/no_cache_filter",
            r#"["a","b","c"]"#,
        ),
        ("image: a\n    pre_start: [{}]", "{}", "pre_start", r#"[{"command":null,"image":"a"}]"#),
        (
            "image: a\n    pre_start: [{command: \"x 'y z'\", per_replica: \"${YES}\", privileged: true, image: i}]",
            "pre_start: [{command: [z], environment: [A=1, B], user: u, working_dir: /w, x-mine: 1, per_replica: false}]",
            "pre_start",
            r#"[{"command":["x","y z"],"image":"i","privileged":true,"per_replica":true},
                {"command":["z"],"image":"a","user":"u","working_dir":"/w","environment":{"A":"1","B":null},"x-mine":1}]"#,
        ),
        ("build: .\n    pre_start: [{command: x}]", "{}", "pre_start", r#"[{"command":["x"]}]"#),
        (
            "image: a\n    depends_on: {b: {condition: service_started, required: \"${NO}\"}}",
            "{}",
            "depends_on/b",
            r#"{"condition":"service_started","required":false}"#,
        ),
    ];
    let environment = BTreeMap::from([("YES", "true"), ("NO", "false")].map(|(a, b)| (a.to_owned(), b.to_owned())));
    let options = Options { environment, ..options() };
    for (service, over, key, expected) in cases {
        let file = |service: &str| format!("services:\n  a:\n    {service}\n");
        let (text, over) = (file(service) + "  b: {image: b}\n", file(over));
        let files = [("compose.yaml", text.as_str()), ("compose.override.yaml", over.as_str())];
        let loaded = load_files(&options, &files)
            .unwrap_or_else(|error| panic!("{}", render(&error.diagnostics, &error.sources, Colour::Never)));
        let expected: Value = serde_json::from_str(expected).unwrap();
        let value = loaded.project.document.pointer(&format!("/services/a/{key}"));
        assert_eq!(value, Some(&expected), "{service}");
    }
}

#[test]
fn what_newer_keys_do_not_take_is_refused() {
    for (service, message) in [
        ("build: {no_cache_filter: {a: b}}", "`services.a.build.no_cache_filter` must be a list"),
        ("pre_start: {command: x}", "`services.a.pre_start` must be a list"),
        ("pre_start: [{command: x, imgae: y}]", "unknown key `imgae` in `services.a.pre_start[]`"),
        ("post_start: [{command: x, image: y}]", "unknown key `image` in `services.a.post_start[]`"),
        ("depends_on: {b: {condition: service_started, required: \"true\"}}", "must be `true` or `false`"),
    ] {
        let all = messages(&[(
            "compose.yaml",
            &format!("services:\n  a:\n    image: a\n    {service}\n  b: {{image: b}}\n"),
        )]);
        assert!(all.contains(message), "{all}");
    }
}

#[test]
fn what_config_prints_loads_to_the_same() {
    let text = "services: {web: {image: a, command: echo $$HOME, labels: {a: $$x}, pre_start: [{}], build: {no_cache_filter: b}}}";
    let files = [("compose.yaml", text)];
    let first = project(&files).document;
    for format in [print::Format::Yaml, print::Format::Json] {
        let text = print::document(first.clone(), format, print::Dollars::Escape);
        assert_eq!(project(&[("compose.yaml", &text)]).document, first);
    }
}

#[test]
fn yaml_is_text_where_the_project_has_text() {
    let text = "services: {web: {image: a, restart: 'no', labels: {on: '1_000', d: '2024-01-02', t: '1:20', p: x}, blkio_config: {weight_device: [{path: /d, weight: 3}]}}}";
    let first = project(&[("compose.yaml", text)]).document;
    let yaml = print::document(first.clone(), print::Format::Yaml, print::Dollars::Escape);
    for line in ["restart: \"no\"", "\"on\": \"1_000\"", "d: \"2024-01-02\"", "t: \"1:20\"", "p: x", "- path: /d"] {
        assert!(yaml.contains(line), "{line} is not in {yaml}");
    }
    assert_eq!(project(&[("compose.yaml", &yaml)]).document, first);
}

proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(text in "(services:\n)?([ a-z:\\[\\]{}&*!\"'$|>#~<-]|\n){0,120}") {
        let _ = load_files(&options(), &[("compose.yaml", &text)]);
    }

    #[test]
    fn no_value_makes_the_loader_panic(
        key in "(ports|volumes|build|environment|depends_on|networks|command|healthcheck|deploy|extends|secrets|x-wasm|gpus|devices)",
        value in "[a-z0-9:/.\\-\\[\\]{},$ ]{0,40}",
    ) {
        let text = format!("services:\n  web:\n    image: a\n    {key}: {value}\n");
        let environment = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let _ = load_files(&Options { environment, ..options() }, &[("compose.yaml", &text)]);
    }
}

fn address(text: &str) -> Remote {
    remote::parse(text).expect(text).expect(text)
}

fn fetched(file: &str, root: &str) -> RemoteState {
    RemoteState::Present(Fetched { file: file.into(), root: root.into() })
}

const APP: &str = "https://example.com/app.git#v1:sub";
const BASE: &str = "https://example.com/base.git";

#[test]
fn remote_files_that_nobody_fetched_are_named_all_at_once() {
    let text = format!(
        "include: ['{APP}', 'oci://example.com/a']\nservices:\n  web: {{image: x, depends_on: [db]}}\n  \
         api: {{extends: {{file: '{BASE}', service: api}}}}\n"
    );
    let error = load_files(&options(), &[("compose.yaml", &text)]).expect_err("they are not there");
    let mut remotes = error.remotes;
    remotes.sort();
    assert_eq!(remotes, [address(APP), address(BASE), address("oci://example.com/a")]);
    assert!(error.diagnostics.is_empty(), "{:?}", error.diagnostics);

    let files = [APP, "other.yaml", "oci://x"].map(str::to_owned).to_vec();
    let error = load_files(&Options { files, ..options() }, &[("other.yaml", "services: {}")]).expect_err("nor these");
    assert_eq!(error.remotes, [address(APP), address("oci://x")]);
    assert!(!error.is_no_file());
}

#[test]
fn a_remote_file_counts_from_its_own_folder() {
    let text = format!(
        "include: ['{APP}']\nservices:\n  api: {{extends: {{file: '{BASE}', service: api}}, build: {{context: .}}}}\n"
    );
    let base = format!("services:\n  api: {{build: ., extends: {{file: '{APP}', service: web}}, env_file: [a.env]}}\n");
    let files = Memory::new([
        ("/srv/demo/compose.yaml", text.as_str()),
        ("/srv/demo/.env", "WHERE=here\n"),
        ("/cache/app/sub/compose.yaml", "services: {web: {image: 'x:$WHERE', volumes: ['./data:/data']}}\n"),
        ("/cache/app/sub/.env", "WHERE=there\nTAG=there\n"),
        ("/cache/base/deep/base.yaml", base.as_str()),
        ("/cache/base/a.env", "A=1\n"),
    ])
    .remotes([
        (address(APP), fetched("/cache/app/sub/compose.yaml", "/cache/app")),
        (address(BASE), fetched("/cache/base/deep/base.yaml", "/cache/base")),
    ]);
    let project = load(&options(), &files).map_err(|error| error.diagnostics).expect("it loads").project;
    assert_eq!(project.document["services"]["web"]["volumes"][0]["source"], "/cache/app/sub/data");
    assert_eq!(project.document["services"]["web"]["image"], "x:here");
    // As in compose: what is extended counts from the root of its repository.
    assert_eq!(project.document["services"]["api"]["volumes"][0]["source"], "/cache/app/data");
    assert_eq!(project.document["services"]["api"]["environment"]["A"], "1");

    let options = Options { files: vec!["demo.yaml".into(), APP.into()], ..options() };
    let files = Memory::new([
        ("/srv/demo/demo.yaml", "services: {demo: {build: .}}\n"),
        ("/srv/demo/.env", "WHERE=here\n"),
        ("/cache/app/sub/compose.yaml", "services: {web: {image: 'x:$WHERE', build: ./b}}\n"),
        ("/cache/app/sub/.env", "WHERE=there\n"),
    ])
    .remotes([(address(APP), fetched("/cache/app/sub/compose.yaml", "/cache/app"))]);
    let project = load(&options, &files).map_err(|error| error.diagnostics).expect("it loads").project;
    assert_eq!((project.name.as_str(), project.directory.to_str()), ("demo", Some("/cache/app/sub")));
    assert_eq!(project.document["services"]["demo"]["build"]["context"], "/cache/app/sub");
    assert_eq!(project.document["services"]["web"]["image"], "x:here");
}

#[test]
fn compose_file_takes_a_remote_file() {
    let load_as = |variables: &[(&str, &str)]| {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        load_files(&Options { environment, ..options() }, &[("a.yaml", "services: {}")]).expect_err("not there").remotes
    };
    assert_eq!(load_as(&[("COMPOSE_FILE", APP)]), [address(APP)]);
    let listed = format!("a.yaml,{APP}");
    assert_eq!(load_as(&[("COMPOSE_FILE", &listed), ("COMPOSE_PATH_SEPARATOR", ",")]), [address(APP)]);
}

#[test]
fn a_remote_file_that_cannot_be_had_is_reported_where_it_is_named() {
    let files = [("/srv/demo/compose.yaml", format!("include:\n  - '{APP}'\n  - https://example.com/a.yaml\n"))];
    let failed = RemoteState::Failed("the host does not answer".into(), "look at the network".into());
    let files = Memory::new(files).remotes([(address(APP), failed)]);
    let error = load(&options(), &files).expect_err("it is not there");
    assert!(error.remotes.is_empty());
    insta::assert_snapshot!(render(&error.diagnostics, &error.sources, Colour::Never), @r"
    error: cannot fetch the compose file `https://example.com/app.git#v1:sub`: the host does not answer
     --> compose.yaml:2:5
      |
    2 |   - 'https://example.com/app.git#v1:sub'
      |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    hint: look at the network

    error: `https://example.com/a.yaml` is no compose file: a git repository on the web ends in `.git`, and nothing else is fetched from there
     --> compose.yaml:3:5
      |
    3 |   - https://example.com/a.yaml
      |     ^^^^^^^^^^^^^^^^^^^^^^^^^^
    ");
    let error = load(&Options { files: vec![APP.into()], ..options() }, &files).expect_err("it is not there");
    insta::assert_snapshot!(render(&error.diagnostics, &error.sources, Colour::Never), @r"
    error: cannot fetch the compose file `https://example.com/app.git#v1:sub`: the host does not answer
    hint: look at the network
    ");
}

/// The inputs that once failed a fuzzer, by the same road.
#[path = "../../fuzz/src/targets.rs"]
mod fuzz;

#[test]
fn what_once_failed_a_fuzzer_does_not_again() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions");
    let inputs = |target| {
        let inputs = std::fs::read_dir(folder.join(target)).expect("a folder of inputs");
        let inputs: Vec<_> =
            inputs.map(|entry| std::fs::read(entry.expect("an input").path()).expect("bytes")).collect();
        assert!(!inputs.is_empty(), "no inputs of {target}");
        inputs
    };
    inputs("project").iter().for_each(|input| fuzz::project(input));
    inputs("interpolation").iter().for_each(|input| fuzz::interpolation(input));
    inputs("dotenv").iter().for_each(|input| fuzz::dotenv(input));
}
