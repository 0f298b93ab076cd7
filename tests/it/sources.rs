//! Where the modules of Wasm services come from: registries, saved images, builds, commands of this machine.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::support::layout::{CONFIG, LAYER, MANIFEST, digest, layer, layout};
use crate::support::project::free_port;
use crate::support::remotes::{Breaking, Layer, Readers, Registry};
use crate::support::tokens::{IDENTITY, Tokens};
use crate::support::{Engine, Guest, Project};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";

/// A service that says what its arguments are, from an image.
const JOB: &str = "services: {job: {image: \"${IMAGE}\", platform: wasi/wasm, command: [args]}}";

fn module() -> Vec<u8> {
    fs::read(Guest::PeerModule.path()).expect("the guest is built")
}

/// An image of Wasm on scratch: its parts, its manifest.
pub fn image(bytes: &[u8]) -> (Vec<Vec<u8>>, Value) {
    image_with(bytes, &[])
}

/// The same with variables.
pub fn image_with(bytes: &[u8], environment: &[&str]) -> (Vec<Vec<u8>>, Value) {
    let layer = layer(&[("app.wasm", bytes)]);
    let config = json!({
        "os": "wasi", "architecture": "wasm", "config": { "Entrypoint": ["/app.wasm"], "Env": environment },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": { "mediaType": CONFIG, "digest": digest(&config), "size": config.len() },
        "layers": [{ "mediaType": LAYER, "digest": digest(&layer), "size": layer.len() }],
    });
    (vec![config, layer], manifest)
}

/// A Wasm artifact: its parts, its manifest.
fn artifact(bytes: &[u8], config_type: &str, layer_type: &str) -> (Vec<Vec<u8>>, Value) {
    let config = json!({ "os": "wasip1", "architecture": "wasm" }).to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": { "mediaType": config_type, "digest": digest(&config), "size": config.len() },
        "layers": [{ "mediaType": layer_type, "digest": digest(bytes), "size": bytes.len() }],
    });
    (vec![config, bytes.to_vec()], manifest)
}

fn job(image: &str) -> Project {
    Project::wasm(JOB).with("IMAGE", image)
}

#[track_caller]
fn runs(project: &Project, program: &str) {
    project.up();
    project.becomes("job", "exited");
    assert_eq!(project.logs("job").trim_end(), format!("{program}\nargs"));
    project.run(&["down"]).well();
}

#[test]
fn a_registry_gives_images_and_artifacts_without_an_engine() {
    let Some(registry) = Registry::serve(Readers::Anybody) else { return };
    let bytes = module();
    for (name, (parts, manifest), program) in [
        ("image", image(&bytes), "/app.wasm"),
        ("artifact", artifact(&bytes, WASM_CONFIG, "application/wasm"), ""),
        ("older", artifact(&bytes, WASM_CONFIG, "application/vnd.wasm.content.layer.v1+wasm"), ""),
        ("component", artifact(&bytes, CONFIG, "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm"), ""),
        ("plain", artifact(&bytes, WASM_CONFIG, "application/vnd.oci.image.layer.v1.tar"), ""),
    ] {
        parts.iter().for_each(|part| drop(registry.blob(name, part)));
        registry.tag(name, &manifest);
        let project = job(&format!("{}/{name}:1", registry.name()));
        project.up();
        project.becomes("job", "exited");
        let logs = project.logs("job");
        assert!(logs.trim_end().ends_with("args") && logs.starts_with(program), "{name}: {logs}");
    }
}

#[test]
fn an_index_gives_its_wasm_and_what_was_pulled_needs_no_registry() {
    let Some(registry) = Registry::serve(Readers::Anybody) else { return };
    let (parts, manifest) = image(&module());
    parts.iter().for_each(|part| drop(registry.blob("app", part)));
    let wasm = registry.manifest("app", &manifest);
    let entry = |digest: &str, os: &str, architecture: &str| json!({ "mediaType": MANIFEST, "digest": digest, "size": 1, "platform": { "os": os, "architecture": architecture } });
    // Nothing is behind the other one: whoever takes it fails.
    let gone = digest(b"gone");
    let entries = [entry(&gone, "linux", "amd64"), entry(&wasm, "wasm32", "wasi"), entry(&gone, "unknown", "unknown")];
    registry.tag("app", &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries }));
    let reference = format!("{}/app:1", registry.name());
    let project = job(&reference);
    project.run(&["pull", "-q"]).well();
    drop(registry);
    runs(&project, "/app.wasm");

    project.edit("platform:", "pull_policy: always, platform:");
    project.run(&["up", "-d"]).refused(&["service `job`", &reference, "does not answer"]);
    project.edit("always", "never");
    runs(&project, "/app.wasm");

    project.up();
    project.becomes("job", "exited");
    let listed = project.run(&["images", "--format", "json"]).well();
    let rows: Value = serde_json::from_str(&listed.stdout).expect("it is JSON");
    let expected = json!([{
        "ID": digest(&module()),
        "ContainerName": format!("{}-job-1", project.name),
        "Repository": reference.trim_end_matches(":1"),
        "Tag": "1",
        "Platform": "wasi/wasm",
        "Size": module().len(),
        "LastTagTime": null,
    }]);
    assert_eq!(rows, expected);
}

#[test]
fn credentials_of_the_docker_configuration_are_used_both_ways() {
    let Some(registry) = Registry::serve(Readers::Known) else { return };
    let reference = format!("{}/mine:1", registry.name());
    let made = "services: {job: {image: \"${IMAGE}\", x-wasm: {module: ./module.wasm}}}";
    let project = Project::wasm(made).guest(Guest::PeerModule).with("IMAGE", &reference);
    project.run(&["push"]).refused(&["service `job`", &reference, "docker login"]);
    let log_in = |project: &Project| {
        let config = json!({ "auths": { (registry.name()): { "auth": "bWU6c2VjcmV0" } } }).to_string();
        fs::create_dir(project.root().join("home/.docker")).expect("a writable folder");
        fs::write(project.root().join("home/.docker/config.json"), config).expect("a writable folder");
    };
    log_in(&project);
    project.run(&["push"]).well();
    let manifest: Value = serde_json::from_slice(&registry.content(&registry.tagged("mine", "1"))).expect("a manifest");
    assert_eq!(manifest["config"]["mediaType"], WASM_CONFIG);
    assert_eq!(manifest["layers"][0]["digest"], digest(&module()));

    let stranger = job(&reference);
    stranger.run(&["pull"]).refused(&["service `job`", &reference, "docker login"]);
    log_in(&stranger);
    stranger.up();
    stranger.becomes("job", "exited");
    assert!(stranger.logs("job").trim_end().ends_with("args"));
}

#[test]
fn an_identity_token_of_a_credential_helper_is_traded_for_tokens() {
    let tokens = Tokens::serve();
    let Some(registry) = Registry::guarded(&tokens) else { return };
    let reference = format!("{}/mine:1", registry.name());
    let made = "services: {job: {image: \"${IMAGE}\", x-wasm: {module: ./module.wasm}}}";
    let project = Project::wasm(made).guest(Guest::PeerModule).with("IMAGE", &reference);
    project.run(&["push"]).refused(&["service `job`", &reference, "docker login"]);
    let log_in = |project: Project, secret: &str| {
        let (home, helper) = (project.root().join("home/.docker"), project.root().join("home/docker-credential-it"));
        fs::create_dir_all(&home).expect("a writable folder");
        let config = json!({ "credHelpers": { (registry.name()): "it" } }).to_string();
        fs::write(home.join("config.json"), config).expect("a writable folder");
        let answer = json!({ "ServerURL": registry.name(), "Username": "<token>", "Secret": secret });
        fs::write(&helper, format!("#!/bin/sh\ncat > /dev/null\necho '{answer}'\n")).expect("a writable folder");
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("a file of ours");
        let path = format!("{}:{}", project.root().join("home").display(), std::env::var("PATH").unwrap_or_default());
        project.with("PATH", path)
    };
    let project = log_in(project, IDENTITY);
    project.run(&["push"]).well();
    assert!(tokens.traded().contains(&"repository:mine:pull,push".to_owned()), "{:?}", tokens.traded());
    let project = log_in(job(&reference), IDENTITY);
    project.up();
    project.becomes("job", "exited");
    assert!(project.logs("job").trim_end().ends_with("args"));
    assert!(tokens.traded().contains(&"repository:mine:pull".to_owned()), "{:?}", tokens.traded());

    log_in(job(&reference), "another").run(&["pull"]).refused(&["worth nothing", "docker login"]);
}

#[test]
fn a_manifest_without_end_is_not_read_to_its_end() {
    let mut long = br#"{"schemaVersion":2,"layers":[],"x":""#.to_vec();
    long.resize(5 << 20, b'x');
    let registry = Breaking::serve(BTreeMap::from([("manifests/1".into(), (MANIFEST, long))]), 0);
    let project = job(&format!("{}/app:1", registry.name()));
    project.run(&["up", "-d"]).refused(&["service `job`", "larger than 4194304 bytes"]);
}

#[test]
fn what_is_not_what_its_digest_says_is_refused_and_not_kept() {
    let Some(registry) = Registry::serve(Readers::Anybody) else { return };
    let bytes = module();
    let (parts, manifest) = artifact(&bytes, WASM_CONFIG, "application/wasm");
    parts.iter().for_each(|part| drop(registry.blob("app", part)));
    let whole = registry.tag("app", &manifest);
    let mut other = bytes.clone();
    *other.last_mut().expect("a module has bytes") ^= 1;
    registry.tamper(&bytes, &other);
    let project = job(&format!("{}/app:1", registry.name()));
    project.run(&["up", "-d"]).refused(&["service `job`", "digest"]);
    let blobs = project.root().join("data/content/blobs/sha256");
    let kept: Vec<_> =
        fs::read_dir(blobs).expect("the configuration is kept").flatten().map(|blob| blob.file_name()).collect();
    assert_eq!(kept, [digest(&parts[0]).trim_start_matches("sha256:")]);

    // By digest, another manifest is refused as well.
    registry.tamper(manifest.to_string(), manifest.to_string().replace("wasm.config", "wasm.cONFIG"));
    let project = job(&format!("{}/app@{whole}", registry.name()));
    project.run(&["up", "-d"]).refused(&["service `job`"]);
    assert!(project.ps().is_empty());
}

#[test]
fn a_registry_that_breaks_off_is_asked_again_but_not_for_ever() {
    let bytes = module();
    let (parts, manifest) = artifact(&bytes, WASM_CONFIG, "application/wasm");
    let served = || {
        let mut served: BTreeMap<String, (&'static str, Vec<u8>)> = parts
            .iter()
            .map(|part| (format!("blobs/{}", digest(part)), ("application/octet-stream", part.clone())))
            .collect();
        served.insert("manifests/1".into(), (MANIFEST, manifest.to_string().into_bytes()));
        served
    };
    let twice = Breaking::serve(served(), 2);
    let project = job(&format!("{}/app:1", twice.name()));
    project.up();
    project.becomes("job", "exited");
    let always = Breaking::serve(served(), usize::MAX);
    let project = job(&format!("{}/app:1", always.name()));
    project.run(&["up", "-d"]).refused(&["service `job`", "broke off"]);
}

#[test]
fn an_image_of_linux_is_no_module() {
    let Some(registry) = Registry::serve(Readers::Anybody) else { return };
    let entry = json!({ "mediaType": MANIFEST, "digest": digest(b"x"), "size": 1, "platform": { "os": "linux", "architecture": "amd64" } });
    let other = json!({ "mediaType": MANIFEST, "digest": digest(b"x"), "size": 1, "platform": { "os": "linux", "architecture": "arm64" } });
    registry.tag("app", &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry, other] }));
    let project = job(&format!("{}/app:1", registry.name()));
    project.run(&["up", "-d"]).refused(&["nothing for WebAssembly", "linux/amd64", "linux/arm64"]);
    project.run(&["pull"]).refused(&["nothing for WebAssembly"]);
    project.run(&["pull", "--ignore-pull-failures"]).well();
}

#[test]
fn saved_images_and_layout_folders_run() {
    let project = job("./layout");
    let folder = project.folder().join("layout");
    layout_of(&project, &module());
    runs(&project, "/app.wasm");

    let mut saved = tar::Builder::new(Vec::new());
    saved.append_dir_all(".", &folder).expect("an archive in memory");
    fs::write(project.folder().join("saved.tar"), saved.into_inner().expect("an archive in memory"))
        .expect("a writable folder");
    let project = project.with("IMAGE", "./saved.tar");
    runs(&project, "/app.wasm");
}

#[test]
fn x_wasm_build_makes_the_module_on_the_first_up_and_with_build() {
    let project = Project::wasm(
        "services:\n  job:\n    command: [args]\n    x-wasm:\n      build: {command: \"echo made >> made; cp module.wasm out.wasm\", output: ./out.wasm}\n",
    )
    .guest(Guest::PeerModule);
    let made = || fs::read_to_string(project.folder().join("made")).unwrap_or_default().lines().count();
    project.run(&["--dry-run", "up"]).well();
    assert_eq!(made(), 0);
    project.up();
    project.becomes("job", "exited");
    project.up();
    assert_eq!(made(), 1, "what is there is not built");
    project.run(&["up", "-d", "--build"]).well();
    assert_eq!(made(), 2);
    project.edit("cp module", "echo a detail; false && cp module");
    let refused = project.run(&["up", "-d", "--build"]).refused(&["service `job`", "exit code 1", "a detail"]);
    assert!(refused.stderr.contains("last output of the command"), "{refused}");
    project.edit("echo made >> made;", "no-such-compiler;");
    project.run(&["up", "-d", "--build"]).refused(&["no-such-compiler"]);
}

#[test]
fn a_remote_compose_file_runs_no_command_here() {
    let Some(registry) = Registry::serve(Readers::Anybody) else { return };
    let content = "services: {job: {x-wasm: {build: {command: touch /tmp/wc-was-here, output: ./x.wasm}}}}";
    let layer = Layer { kind: "file+yaml", annotations: &[("file", "compose.yaml")], content };
    registry.publish("project", &[layer]);
    let project = Project::wasm("");
    let file = format!("oci://{}/project:1", registry.name());
    project.run(&["-f", &file, "up", "-d"]).refused(&["service `job`", "remote compose file"]);
    assert!(!fs::exists("/tmp/wc-was-here").expect("the folder is there"));
}

#[test]
fn pull_tells_what_it_leaves_alone() {
    let project = Project::wasm(
        "services:\n  a: {image: ./module.wasm}\n  b: {image: \"127.0.0.1:1/x\", platform: wasi/wasm, pull_policy: never}\n  c: {x-wasm: {module: ./module.wasm}}\n",
    )
    .guest(Guest::PeerModule);
    let told = project.run(&["--progress", "plain", "pull"]).well();
    for line in ["a  Skipped - No image to be pulled", "b  Skipped", "c  Skipped - No image to be pulled"] {
        assert!(told.stderr.contains(line), "{told}");
    }
    project.run(&["pull", "--policy", "sometimes"]).refused(&["sometimes"]);
    project.run(&["pull", "nobody"]).refused(&["nobody"]);
    project.run(&["push", "a"]).well();
}

#[test]
fn what_an_engine_built_for_linux_is_pushed_as_wasm() {
    let Some(engine) = Engine::answering() else { return };
    let Some(registry) = Registry::serve(Readers::Anybody) else { return };
    let reference = format!("{}/built:1", registry.name());
    let project = Project::on(
        &engine,
        "services:\n  job:\n    image: ${IMAGE}\n    build: {context: ., platforms: [wasi/wasm], tags: [\"${IMAGE}-too\"]}\n    command: [args]\n",
    )
    .guest(Guest::PeerModule)
    .with("IMAGE", &reference);
    project.write("Dockerfile", "FROM scratch\nCOPY module.wasm /app.wasm\nENTRYPOINT [\"/app.wasm\"]\n");
    project.up();
    project.becomes("job", "exited");
    project.run(&["push"]).well();
    for tag in ["1", "1-too"] {
        let manifest: Value =
            serde_json::from_slice(&registry.content(&registry.tagged("built", tag))).expect("a manifest");
        let config = manifest["config"]["digest"].as_str().expect("a digest");
        let config: Value = serde_json::from_slice(&registry.content(config)).expect("a configuration");
        assert_eq!((&config["os"], &config["architecture"]), (&json!("wasi"), &json!("wasm")));
    }
    runs(&job(&reference), "/app.wasm");
    engine.call("DELETE", &format!("/images/{reference}?force=1"));
    engine.call("DELETE", &format!("/images/{reference}-too?force=1"));
}

/// Writes an OCI layout with an image of Wasm on scratch.
pub fn layout_of(project: &Project, bytes: &[u8]) {
    let (mut parts, _) = image(bytes);
    let (config, files) = (parts.remove(0), parts.remove(0));
    layout(project, config, CONFIG, vec![(LAYER, files)]);
}

#[test]
fn a_multi_stage_build_with_rust_runs() {
    let Some(engine) = Engine::with_images(&["rust:1.75"]) else { return };
    let port = free_port();
    let project = Project::on(
        &engine,
        "services:\n  app:\n    build: {context: ., target: final, args: {GREETING: hello}, platforms: [wasi/wasm]}\n    runtime: io.containerd.wasmedge.v1\n    ports: [\"${PORT}:8080\"]\n",
    )
    .with("PORT", port);
    project.write(
        "Dockerfile",
        "FROM rust:1.75 AS build\nRUN rustup target add wasm32-wasi\nWORKDIR /src\nCOPY main.rs .\nARG GREETING\n\
         RUN GREETING=$GREETING rustc --target wasm32-wasi -O -o app.wasm main.rs\n\
         FROM scratch AS final\nCOPY --from=build /src/app.wasm /app.wasm\nENTRYPOINT [\"/app.wasm\"]\n\
         FROM scratch AS other\n",
    );
    project.write(
        "main.rs",
        "fn main() { println!(\"{} from {:?}\", env!(\"GREETING\"), std::env::args().collect::<Vec<_>>()) }\n",
    );
    project.up();
    project.becomes("app", "exited");
    assert_eq!(project.logs("app").trim_end(), "hello from [\"/app.wasm\"]");
}

#[test]
fn a_build_that_needs_buildkit_gets_it_and_its_secrets() {
    let Some(engine) = Engine::with_images(&["busybox"]) else { return };
    let project = Project::on(
        &engine,
        "services:\n  job:\n    build: {context: ., platforms: [wasi/wasm], secrets: [token, {source: file, target: other}]}\n    command: [read, /said]\n\
         secrets: {token: {environment: TOKEN}, file: {file: ./file}}\n",
    )
    .guest(Guest::PeerModule)
    .with("TOKEN", "abc123");
    project.write("file", "from a file");
    project.write(
        "Dockerfile",
        "FROM busybox AS build\nRUN --mount=type=secret,id=token --mount=type=secret,id=other \
         cat /run/secrets/token /run/secrets/other > /said\n\
         FROM scratch\nCOPY --from=build /said /said\nCOPY module.wasm /app.wasm\nENTRYPOINT [\"/app.wasm\"]\n",
    );
    project.up();
    project.becomes("job", "exited");
    assert_eq!(project.logs("job").trim_end(), "abc123from a file");

    // Without secrets, the classic builder is asked first, and refuses.
    project.edit(", secrets: [token, {source: file, target: other}]", "");
    project.write(
        "Dockerfile",
        "FROM busybox AS build\nRUN --mount=type=cache,target=/cache echo cached > /said\n\
         FROM scratch\nCOPY --from=build /said /said\nCOPY module.wasm /app.wasm\nENTRYPOINT [\"/app.wasm\"]\n",
    );
    project.run(&["up", "-d", "--build"]).well();
    project.becomes("job", "exited");
    assert_eq!(project.logs("job").trim_end(), "cached");

    project.write("Dockerfile", "FROM busybox\nRUN --mount=type=cache,target=/cache echo said so; exit 3\n");
    project.run(&["up", "-d", "--build"]).refused(&["service `job`", "said so", "exit code: 3"]);
}
