//! Manifests as text, applications out.

use std::collections::BTreeMap;

use super::*;

const APP: &str = r#"
spin_manifest_version = 2
[application]
name = "greeter"
[variables]
who = { default = "world" }
token = { required = true, secret = true }
[[trigger.http]]
route = "/..."
component = "hello"
[[trigger.http]]
route = "cart/:id/"
component = { source = "cart.wasm", key_value_stores = ["default"] }
executor = { type = "http" }
[[trigger.http]]
route = { private = true }
component = "hidden"
[[trigger.http]]
route = "/again"
component = "hello"
[component.hello]
source = "app.wasm"
environment = { MODE = "{{fast}}" }
files = [{ source = "assets", destination = "/static" }, "one.txt", "img/**/*.png"]
exclude_files = ["img/*.secret.png"]
allowed_outbound_hosts = ["https://api.example.com", "redis://{{ who }}", "http://*.example.com:8080", "http://self", "https://*", "*://10.0.0.0/8:*"]
[component.hello.variables]
greeting = "hello {{ who }}!"
"#;

fn nothing(_: &str) -> Option<String> {
    None
}

fn route(pattern: &str, component: usize) -> Route {
    Route { pattern: pattern.into(), component }
}

#[test]
fn a_manifest_is_an_application() {
    let app = manifest(APP, &nothing).unwrap();
    assert_eq!(app.base, "/");
    assert_eq!(app.routes, [route("/...", 0), route("/cart/:id", 1), route("/again", 0)]);
    let [hello, cart] = app.components.as_slice() else { panic!("{:?}", app.components) };
    assert_eq!((hello.name.as_str(), hello.source.as_str()), ("hello", "app.wasm"));
    assert_eq!(hello.environment["MODE"], "{{fast}}");
    assert_eq!(hello.settings.variables["greeting"], "hello world!");
    let hosts = ["api.example.com:443", "world:6379", "*.example.com:8080", "*:443", "10.0.0.0/8"];
    assert_eq!(hello.settings.hosts, hosts);
    assert!(hello.settings.stores.is_empty());
    assert_eq!(
        hello.files,
        [
            Mounted::Placed { source: "assets".into(), target: "/static".into() },
            Mounted::Matching("one.txt".into()),
            Mounted::Matching("img/**/*.png".into()),
        ]
    );
    assert_eq!(hello.excluded, ["img/*.secret.png"]);
    assert_eq!((cart.name.as_str(), cart.source.as_str()), ("inline-1", "cart.wasm"));
    assert_eq!(cart.settings, AppSettings { stores: vec!["default".into()], ..AppSettings::default() });
}

#[test]
fn variables_come_from_outside_before_their_defaults() {
    let given = |name: &str| (name == "SPIN_VARIABLE_WHO").then(|| "you".to_owned());
    let app = manifest(APP, &given).unwrap();
    assert_eq!(app.components[0].settings.variables, BTreeMap::from([("greeting".into(), "hello you!".into())]));
    let needy = APP.replace("hello {{ who }}!", "{{ token }}");
    let error = manifest(&needy, &nothing).unwrap_err().to_string();
    assert!(error.contains("`token`") && error.contains("SPIN_VARIABLE_TOKEN"), "{error}");
    let given = |name: &str| (name == "SPIN_VARIABLE_TOKEN").then(|| "abc".to_owned());
    assert_eq!(manifest(&needy, &given).unwrap().components[0].settings.variables["greeting"], "abc");
}

#[test]
fn the_first_version_is_read_as_well() {
    let app = manifest(
        "spin_version = \"1\"\nname = \"x\"\ntrigger = { type = \"http\", base = \"/api/\" }\n[[component]]\nid = \"a\"\n\
         source = \"a.wasm\"\nallowed_http_hosts = [\"example.com\", \"insecure:allow-all\"]\n[component.trigger]\n\
         route = \"/...\"\n[component.config]\nk = \"v\"\n[[component]]\nid = \"b\"\nsource = \"b.wasm\"\n\
         [component.trigger]\nroute = \"/b\"\n",
        &nothing,
    )
    .unwrap();
    assert_eq!((app.base.as_str(), app.components.len()), ("/api", 2));
    assert_eq!(app.routes, [route("/...", 0), route("/b", 1)]);
    let first = &app.components[0];
    assert_eq!((first.source.as_str(), first.settings.variables["k"].as_str()), ("a.wasm", "v"));
    assert_eq!(first.settings.hosts, ["example.com:80", "example.com:443", "*"]);
}

#[test]
fn the_locked_form_is_read() {
    let app = locked(
        br#"{"spin_lock_version": 1, "variables": {"who": {"default": "you"}},
            "triggers": [{"id": "t", "trigger_type": "http", "trigger_config": {"component": "a", "route": "/..."}}],
            "components": [{"id": "a", "metadata": {"allowed_outbound_hosts": ["*://*:*"], "key_value_stores": ["s"]},
                "source": {"content_type": "application/wasm", "digest": "sha256:00"}, "env": {"E": "e"},
                "files": [{"digest": "sha256:11", "path": "/x"}, {"inline": "aGk=", "digest": "sha256:22", "path": "y"}],
                "config": {"k": "{{who}}"}}]}"#,
        &nothing,
    )
    .unwrap();
    let [part] = app.components.as_slice() else { panic!("{:?}", app.components) };
    assert_eq!((part.source.as_str(), part.environment["E"].as_str()), ("sha256:00", "e"));
    assert_eq!((part.settings.variables["k"].as_str(), &part.settings.hosts[..]), ("you", &["*".to_owned()][..]));
    assert_eq!(part.settings.stores, ["s"]);
    assert_eq!(
        part.files,
        [
            Mounted::Stored { digest: "sha256:11".into(), target: "/x".into() },
            Mounted::Inline { content: "aGk=".into(), target: "y".into() },
        ]
    );
}

#[test]
fn what_a_service_cannot_be_is_told() {
    for (from, to, words) in [
        ("route = \"/...\"", "route = \"/.../x\"", "route `/.../x`"),
        ("route = \"/...\"", "route = \"/:/x\"", "route `/:/x`"),
        ("route = \"/again\"", "executor = { type = \"wagi\" }\nroute = \"/again\"", "Wagi"),
        ("route = \"/again\"", "static_response = { status_code = 204 }\nroute = \"/again\"", "static_response"),
        ("[[trigger.http]]\nroute = \"/again\"", "[[trigger.redis]]\nchannel = \"c\"", "started by `redis`"),
        ("\"http://self\"", "\"http://cart.spin.internal\"", "`cart.spin.internal`"),
        ("\"http://self\"", "\"http://localhost:8000..9000\"", "localhost:8000..9000"),
        ("\"http://self\"", "\"https://example.com/path\"", "example.com/path"),
        ("\"http://self\"", "\"example.com\"", "`example.com`"),
        ("source = \"app.wasm\"", "source = { url = \"https://example.com\" }", "no path"),
        ("component = \"hello\"", "component = \"other\"", "no component `other`"),
        ("{{ who }}!", "{{ whom }}!", "no variable `whom`"),
        ("[component.hello]", "[component.hello.dependencies]\n\"a:b/c\" = \"1\"\n[component.hello]", "x-wasm.plug"),
        ("[application]", "[application", "damaged"),
    ] {
        let changed = APP.replacen(from, to, 1);
        assert_ne!(changed, APP);
        let error = manifest(&changed, &nothing).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let private =
        "[[trigger.http]]\nroute = { private = true }\ncomponent = \"a\"\n[component.a]\nsource = \"a.wasm\"\n";
    assert!(manifest(private, &nothing).unwrap_err().to_string().contains("no route"));
}
