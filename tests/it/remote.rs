//! Remote compose files: fetched from real repositories and registries, kept, and refused when they cannot be trusted.

use std::fs;

use serde_json::Value;

use crate::support::project::free_port;
use crate::support::remotes::{Layer, Readers, Registry, Repositories};
use crate::support::{Guest, Outcome, Project};

/// A project with a cache of its own.
fn project(compose: &str) -> Project {
    let project = Project::wasm(compose);
    let cache = project.root().join("cache").display().to_string();
    project.with("WCOMPOSE_CACHE_DIR", cache)
}

/// `config` as JSON.
#[track_caller]
fn config(project: &Project, arguments: &[&str]) -> Value {
    let arguments: Vec<_> = arguments.iter().chain(&["config", "--format", "json"]).copied().collect();
    serde_json::from_str(&project.run(&arguments).well().stdout).expect("it is JSON")
}

/// `config` must say no: nothing on standard output, exit code 1.
#[track_caller]
fn refused(project: &Project, arguments: &[&str], words: &[&str]) -> Outcome {
    let arguments: Vec<_> = arguments.iter().chain(&["config"]).copied().collect();
    let outcome = project.run(&arguments).refused(words);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""), "{outcome}");
    outcome
}

/// The folder of a repository's commit or an artifact in the cache.
fn kept(project: &Project, kind: &str, digest: &str) -> String {
    project.root().join("cache/remote").join(kind).join(digest).display().to_string()
}

const FILE: &str = "file+yaml";

#[test]
fn an_included_repository_counts_from_its_own_folder() {
    let Some(repositories) = Repositories::serve() else { return };
    let base = repositories.commit("base", &[("base.yaml", "services: { base: { image: base, build: . } }")]);
    let nested = repositories.address("base");
    let app = format!(
        "include: ['{nested}#:base.yaml', ./more.yaml]\n\
         services: {{ app: {{ image: 'app:$TAG', volumes: ['./data:/data'] }} }}"
    );
    let first = repositories.commit(
        "app",
        &[
            ("sub/compose.yml", &app),
            ("sub/more.yaml", "services: { more: { image: more } }"),
            ("sub/.env", "TAG=theirs\n"),
        ],
    );
    repositories.git("app", &["tag", "--annotate", "--message=first", "v1"]);
    repositories.commit("app", &[("sub/compose.yml", "services: { later: { image: later } }")]);

    let address = repositories.address("app");
    let project = project(&format!(
        "include: ['{address}#v1:sub']\n\
         services: {{ own: {{ extends: {{ file: '{address}#main:sub/more.yaml', service: more }} }} }}"
    ));
    let config = config(&project, &[]);
    let services = config["services"].as_object().expect("services");
    let mut names: Vec<_> = services.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["app", "base", "more", "own"]);
    assert_eq!(services["app"]["image"], "app:theirs");
    assert_eq!(services["app"]["volumes"][0]["source"], kept(&project, "git", &first) + "/sub/data");
    assert_eq!(services["base"]["build"]["context"], kept(&project, "git", &base));
    assert_eq!(services["own"]["image"], "more");
}

#[test]
fn a_repository_runs_as_a_project_of_this_folder() {
    let Some(repositories) = Repositories::serve() else { return };
    let folder = repositories.folder("app");
    repositories.commit("app", &[("other.yaml", "services: { one: { image: ./absent.wasm } }")]);
    fs::copy(Guest::Peer.path(), folder.join("peer.wasm")).expect("the guest is built");
    let compose = "services: { one: { image: ./peer.wasm, command: [serve, \"80\"], labels: { whose: \"$WHOSE\" } } }";
    repositories.commit("app", &[("compose.yaml", compose), (".env", "WHOSE=theirs\n")]);

    let project = project("").with("COMPOSE_FILE", repositories.address("app"));
    project.write(".env", "WHOSE=mine\n");
    let read = config(&project, &[]);
    assert_eq!(
        (&read["name"], &read["services"]["one"]["labels"]["whose"]),
        (&project.name.clone().into(), &"mine".into())
    );
    project.up();
    project.becomes("one", "running");
}

#[test]
fn a_commit_that_was_fetched_needs_no_network() {
    let Some(repositories) = Repositories::serve() else { return };
    let commit = repositories.commit("app", &[("compose.yaml", "services: { one: { image: one } }")]);
    repositories.commit("app", &[("compose.yaml", "services: { two: { image: two } }")]);
    let address = repositories.address("app");
    let project = project("");
    let (pinned, branch) = (format!("{address}#{commit}"), format!("{address}#main"));
    assert_eq!(config(&project, &["-f", &pinned])["services"]["one"]["image"], "one");
    assert_eq!(config(&project, &["-f", &branch])["services"]["two"]["image"], "two");
    refused(&project, &["-f", &format!("{address}?commit={commit}#main")], &["it is at commit", &commit]);
    drop(repositories);
    assert_eq!(config(&project, &["-f", &pinned])["services"]["one"]["image"], "one");
    refused(&project, &["-f", &branch], &[&branch, "Connection refused", "hint"]);
}

#[test]
fn what_a_repository_lacks_is_named() {
    let Some(repositories) = Repositories::serve() else { return };
    repositories.commit("app", &[("sub/app.yaml", "services: {}")]);
    let address = repositories.address("app");
    let project = project("");
    for (rest, words) in [
        ("#nope", &["no branch or tag `nope`", "ls-remote"][..]),
        ("#main:nope", &["it has no `nope`"]),
        ("#main:sub", &["no compose file in its folder `sub`", "compose.yaml"]),
        ("#0000000000000000000000000000000000000001", &["not our ref"]),
    ] {
        refused(&project, &["-f", &format!("{address}{rest}")], words);
    }
    refused(&project, &["-f", &repositories.address("absent")], &["absent", "not exported"]);
}

#[test]
fn a_remote_file_that_does_not_answer_is_named_where_it_stands() {
    let port = free_port();
    let project = project(&format!(
        "include:\n  - git://127.0.0.1:{port}/app.git#main\n  - oci://127.0.0.1:{port}/app:1\nservices: {{}}\n"
    ));
    let words = ["compose.yaml:2:5", "git://127.0.0.1:", "Connection refused", "hint: check the address", "oci://"];
    refused(&project, &[], &words);
    let address = format!("https://127.0.0.1:{port}/app.git");
    refused(&project, &["-f", &address], &[&address, "Connection refused"]);
}

#[test]
fn composes_switches_turn_remote_files_off() {
    let file = |address: &str| project(&format!("include: ['{address}']\n"));
    let project = file("git://127.0.0.1/app.git").with("COMPOSE_EXPERIMENTAL_GIT_REMOTE", "false");
    refused(&project, &[], &["COMPOSE_EXPERIMENTAL_GIT_REMOTE is `false`", "unset"]);
    let project = file("oci://127.0.0.1/app").with("COMPOSE_EXPERIMENTAL_OCI_REMOTE", "maybe");
    refused(&project, &[], &["COMPOSE_EXPERIMENTAL_OCI_REMOTE is `maybe`", "neither true nor false"]);
}

#[test]
fn a_repository_whose_links_lead_out_is_refused() {
    let Some(repositories) = Repositories::serve() else { return };
    let compose = ("compose.yaml", "services: { one: { image: one, env_file: [secret] } }");
    repositories.commit("absolute", &[compose, ("secret", "-> /etc/hostname")]);
    repositories.commit("relative", &[compose, ("a/b", "-> ../../../../x"), ("secret", "A=1\n")]);
    repositories.commit("inside", &[compose, ("a/b", "-> ../secret"), ("secret", "A=1\n")]);
    let project = project("");
    for (name, link) in [("absolute", "secret"), ("relative", "a/b")] {
        refused(&project, &["-f", &repositories.address(name)], &[&format!("its `{link}` is a link that leads out")]);
    }
    let read = config(&project, &["-f", &repositories.address("inside")]);
    assert_eq!(read["services"]["one"]["environment"]["A"], "1");
}

#[test]
fn an_artifact_is_read_as_it_was_published() {
    let Some(registry) = Registry::serve(Readers::Anybody) else { return };
    let first = "services:\n  web: {image: web, env_file: [a.env], volumes: ['./data:/data']}\n  \
                 api: {extends: {file: base.yaml, service: base}}\n";
    let layers = [
        Layer { kind: FILE, annotations: &[("file", "compose.yaml")], content: first },
        Layer { kind: FILE, annotations: &[("file", "over.yaml")], content: "services: { web: { image: over } }\n" },
        Layer {
            kind: FILE,
            annotations: &[("file", "base.yaml"), ("extends", "true")],
            content: "services: { base: { image: base } }\n",
        },
        Layer { kind: "envfile", annotations: &[("envfile", "a.env")], content: "A=1\n" },
    ];
    let digest = registry.publish("me/app", &layers);
    let project = project("");
    let name = registry.name();
    let by_tag = format!("oci://{name}/me/app:1");
    let read = config(&project, &["-f", &by_tag]);
    let web = &read["services"]["web"];
    assert_eq!((&web["image"], &web["environment"]["A"]), (&"over".into(), &"1".into()));
    assert_eq!(read["services"]["api"]["image"], "base");
    let folder = kept(&project, "oci", digest.trim_start_matches("sha256:"));
    assert_eq!(web["volumes"][0]["source"], folder + "/data");

    let by_digest = format!("oci://{name}/me/app@{digest}");
    let other = format!("oci://{name}/me/app@sha256:{}", "0".repeat(64));
    refused(&project, &["-f", &other], &["has no", &"0".repeat(64)]);
    drop(registry);
    assert_eq!(config(&project, &["-f", &by_digest]), read);
    refused(&project, &["-f", &by_tag], &["the registry does not answer", "Connection refused", "hint"]);
}

#[test]
fn images_are_pinned_to_what_their_tags_stand_for() {
    let Some(registry) = Registry::serve(Readers::Anybody) else { return };
    let content = "services: { one: { image: one } }\n";
    let digest = registry.publish("me/app", &[Layer { kind: FILE, annotations: &[("file", "compose.yaml")], content }]);
    let image = format!("{}/me/app:1", registry.name());
    let project = project(&format!(
        "services:\n  web: {{ image: '{image}', ports: ['80'] }}\n  guest: {{ image: ./guest.wasm }}\n"
    ));
    let pinned = |flag| -> Value {
        serde_json::from_str(&project.run(&["config", "--format", "json", flag]).well().stdout).expect("it is JSON")
    };
    let web = &pinned("--resolve-image-digests")["services"]["web"];
    assert_eq!((&web["image"], &web["ports"][0]["target"]), (&format!("{image}@{digest}").into(), &80.into()));
    let lock = serde_json::json!({
        "services": { "guest": { "image": "./guest.wasm" }, "web": { "image": format!("{image}@{digest}") } },
    });
    assert_eq!(pinned("--lock-image-digests"), lock);

    drop(registry);
    let gone = project.run(&["config", "--resolve-image-digests"]).refused(&[&format!("digest of `{image}`"), "hint"]);
    assert_eq!((gone.code, gone.stdout.as_str()), (1, ""), "{gone}");
}

#[test]
fn a_registry_is_shown_the_users_credentials() {
    let Some(registry) = Registry::serve(Readers::Known) else { return };
    let content = "services: { one: { image: one } }\n";
    registry.publish("app", &[Layer { kind: FILE, annotations: &[("file", "compose.yaml")], content }]);
    let name = registry.name();
    let compose = format!("include: ['oci://{name}/app:1']\n");
    let with_config = |config: String| {
        let project = project(&compose);
        fs::create_dir(project.root().join("home/.docker")).expect("a writable folder");
        fs::write(project.root().join("home/.docker/config.json"), config).expect("a writable folder");
        project
    };
    refused(
        &with_config("{}".into()),
        &[],
        &["compose.yaml:1:11", "does not let you", &format!("docker login {name}")],
    );
    let wrong = format!(r#"{{"auths": {{"{name}": {{"username": "me", "password": "wrong"}}}}}}"#);
    refused(&with_config(wrong), &[], &["does not let you"]);
    let right = format!(r#"{{"auths": {{"{name}": {{"auth": "bWU6c2VjcmV0"}}}}}}"#);
    assert_eq!(config(&with_config(right), &[])["services"]["one"]["image"], "one");

    let project = with_config(r#"{"credsStore": "it"}"#.into());
    let helper = project.root().join("home/docker-credential-it");
    let script = "#!/bin/sh\nread server\necho \"{\\\"ServerURL\\\":\\\"$server\\\",\\\"Username\\\":\\\"me\\\",\\\"Secret\\\":\\\"secret\\\"}\"\n";
    fs::write(&helper, script).expect("a writable folder");
    fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
    let path = format!("{}:{}", project.root().join("home").display(), std::env::var("PATH").unwrap_or_default());
    let project = project.with("PATH", path);
    assert_eq!(config(&project, &[])["services"]["one"]["image"], "one");
}

#[test]
fn an_artifact_that_was_tampered_with_is_refused() {
    let Some(registry) = Registry::serve(Readers::Anybody) else { return };
    let (content, other) = ("services: { one: { image: good } }\n", "services: { one: { image: evil } }\n");
    let publish =
        || registry.publish("app", &[Layer { kind: FILE, annotations: &[("file", "compose.yaml")], content }]);
    publish();
    registry.tamper(content, other);
    let project = project("");
    let address = format!("oci://{}/app:1", registry.name());
    refused(&project, &["-f", &address], &["is not what its digest says"]);
    publish();
    assert_eq!(config(&project, &["-f", &address])["services"]["one"]["image"], "good");
}

#[test]
fn an_artifact_that_reaches_out_of_its_folder_is_refused() {
    let Some(registry) = Registry::serve(Readers::Anybody) else { return };
    let compose = Layer { kind: FILE, annotations: &[("file", "compose.yaml")], content: "services: {}\n" };
    let project = project("");
    for (name, file) in [("up", "../x"), ("slash", "a/b"), ("back", "a\\b"), ("dots", "..")] {
        let annotations = [("envfile", file)];
        registry.publish(name, &[compose, Layer { kind: "envfile", annotations: &annotations, content: "A=1\n" }]);
        refused(&project, &["-f", &format!("oci://{}/{name}:1", registry.name())], &["outside of it"]);
    }
    let plain = Layer { kind: "other", annotations: &[], content: "x" };
    registry.publish("other", &[plain]);
    refused(&project, &["-f", &format!("oci://{}/other:1", registry.name())], &["is no compose project"]);
}
