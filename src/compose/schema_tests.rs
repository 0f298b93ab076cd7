//! `schemas/compose.schema.json`, which editors use, held against what the decoder knows, the schema compose publishes,
//! and the samples.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path as FilePath, PathBuf};

use serde_json::Value;

use super::spec::{self, Kind, Presence, Record};
use super::{merge, yaml};
use crate::diag::FileId;

fn schema() -> Value {
    serde_json::from_str(include_str!("../../schemas/compose.schema.json")).expect("the schema is JSON")
}

/// A compiled schema.
struct Validator {
    schemas: boon::Schemas,
    index: boon::SchemaIndex,
}

impl Validator {
    fn new(schema: Value) -> Self {
        let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
        compiler.add_resource("schema.json", schema).expect("its address is free");
        let index = compiler.compile("schema.json", &mut schemas).expect("the schema is valid");
        Self { schemas, index }
    }

    fn problem(&self, instance: &Value) -> Option<String> {
        self.schemas.validate(instance, self.index).err().map(|error| error.to_string())
    }
}

/// The documents of a file as a validator sees them: tags done, nothing interpolated or widened.
fn documents(text: &str) -> Vec<Value> {
    let mut documents = yaml::parse(FileId(0), text).unwrap_or_default();
    documents.iter_mut().for_each(merge::settle);
    documents.iter().map(super::node::Node::raw).collect()
}

fn repository() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

fn yaml_files(folder: &FilePath, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            yaml_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            found.push(path);
        }
    }
}

/// Why the two schemas differ over files of the corpus, and over which. The published one is that of docker compose
/// 2.40.3, which looks into few strings; a value of the wrong kind is refused later, by what reads it.
static DIFFERENCES: &[(&str, &[&str])] = &[
    (
        "a string that is no boolean is refused by compose too",
        &["w-type-init-string/compose.yaml", "w-type-privileged-string/compose.yaml"],
    ),
    (
        "a string that is no number is refused by compose too",
        &[
            "cgo-service-device-request-count-invalid-string-type/compose.yaml",
            "w-attr-bad-blkio/compose.yaml",
            "w-attr-bad-swappiness/compose.yaml",
            "w-attr-cpu-sched-strings/compose.yaml",
            "w-cpus-bad/compose.yaml",
            "w-hc-retries-bad/compose.yaml",
            "w-misc-all/compose.yaml",
            "w-secrets-mode-bad/compose.yaml",
            "w-ulimits-bad/compose.yaml",
        ],
    ),
    (
        "a string that is no duration is refused by compose too",
        &[
            "w-duration-bad-interval/compose.yaml",
            "w-duration-badunit/compose.yaml",
            "w-duration-nounit/compose.yaml",
            "w-duration-space/compose.yaml",
            "w-duration-word/compose.yaml",
        ],
    ),
    (
        "a string that is no size is refused by compose too",
        &[
            "w-attr-bad-mem-res/compose.yaml",
            "w-shm-bad/compose.yaml",
            "w-size-neg/compose.yaml",
            "w-size-unit/compose.yaml",
        ],
    ),
    ("a port without a target is refused by compose too", &["w-ports-long-no-target/compose.yaml"]),
    (
        "compose cuts off what is behind the point, and takes a size with one for 0; nobody means that",
        &["w-size-float-noint/compose.yaml", "w-type-pids-float/compose.yaml"],
    ),
];

#[test]
fn it_agrees_with_the_published_schema() {
    let shared = repository().join("../shared/conformance");
    let folders = [shared.join("loader"), repository().join("tests/it/fixtures/loader")];
    let corpus = folders.iter().find(|folder| folder.is_dir());
    let (Some(corpus), Ok(published)) = (corpus, fs::read_to_string(shared.join("compose-spec.json"))) else {
        // Not through `eprintln!`: the test harness would keep it to itself.
        let why = b"SKIPPED it_agrees_with_the_published_schema: there is no ../shared/conformance\n";
        std::io::stderr().write_all(why).expect("standard error takes a line");
        return;
    };
    let ours = Validator::new(schema());
    let published: Value = serde_json::from_str(&published).expect("the published schema is JSON");
    let copied: Vec<_> = descriptions(&schema()).intersection(&descriptions(&published)).cloned().collect();
    assert_eq!(copied, [""; 0], "these descriptions are not ours");
    let published = Validator::new(published);
    let mut files = Vec::new();
    yaml_files(corpus, &mut files);
    assert!(files.len() > 500, "{} has too few files", corpus.display());
    let difference = |document: &Value| match (ours.problem(document), published.problem(document)) {
        (None, Some(problem)) => Some(format!("the published one refuses: {problem}")),
        (Some(problem), None) => Some(format!("ours refuses: {problem}")),
        _ => None,
    };
    let listed: Vec<_> = DIFFERENCES.iter().flat_map(|(_, files)| *files).map(FilePath::new).collect();
    let mut faults = Vec::new();
    for file in &files {
        let name = file.strip_prefix(corpus).expect("it was found beneath it");
        let text = fs::read_to_string(file).unwrap_or_default();
        match (documents(&text).iter().find_map(difference), listed.contains(&name)) {
            (Some(problem), false) => faults.push(format!("{} differs and is not listed: {problem}", name.display())),
            (None, true) => faults.push(format!("{} is listed and does not differ", name.display())),
            _ => {}
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What the schema knows beside the tables, and why. A place stands for all below it.
static BESIDE: &[(&str, &str)] = &[
    ("services.*.x-wasm", "an extension; its keys are held against the table of their own"),
    ("networks.*.external.name", "the old form, widened before the tables are asked"),
    ("networks.*.external x-", "the old form"),
    ("volumes.*.external.name", "the old form"),
    ("volumes.*.external x-", "the old form"),
    ("secrets.*.external.name", "the old form"),
    ("secrets.*.external x-", "the old form"),
    ("configs.*.external.name", "the old form"),
    ("configs.*.external x-", "the old form"),
    ("services.*.pull_policy = ", "its words are read with those of `every_…`"),
    ("services.*.gpus = ", "the short form"),
];

#[test]
fn it_has_the_words_of_the_decoder() {
    let schema = schema();
    let (mut written, mut known) = (BTreeSet::new(), BTreeSet::new());
    words_of_schema(&schema, &schema, "", &mut written);
    words_of_record(&spec::FILE, "", &mut known);
    words_of_record(&spec::INCLUDE, "include.[]", &mut known);
    let beside = |word: &str| BESIDE.iter().any(|(place, _)| word.starts_with(place));
    for (place, _) in BESIDE {
        assert!(written.iter().any(|word| word.starts_with(place)), "`{place}` is not in the schema");
    }
    written.retain(|word| !beside(word));
    assert_eq!(written.difference(&known).collect::<Vec<_>>(), [""; 0], "only the schema has these");
    assert_eq!(known.difference(&written).collect::<Vec<_>>(), [""; 0], "only the decoder has these");

    let (mut written, mut known) = (BTreeSet::new(), BTreeSet::new());
    words_of_schema(&schema, &schema["definitions"]["x-wasm"], "x-wasm", &mut written);
    words_of_record(&spec::WASM, "x-wasm", &mut known);
    assert_eq!(written, known);
}

fn below(path: &str, part: &str) -> String {
    if path.is_empty() { part.to_owned() } else { format!("{path}.{part}") }
}

/// Keys, words, what has to be there and where `x-` may stand, a line each.
fn words_of_record(record: &'static Record, path: &str, words: &mut BTreeSet<String>) {
    if record.extensions {
        words.insert(format!("{path} x-"));
    }
    for field in record.fields {
        let path = below(path, field.name);
        if field.presence == Presence::Required {
            words.insert(format!("{path} required"));
        }
        words_of_kind(&field.kind, &path, words);
        words.insert(path);
    }
}

fn words_of_kind(kind: &'static Kind, path: &str, words: &mut BTreeSet<String>) {
    match kind {
        Kind::Record(record) | Kind::Nullable(record) => words_of_record(record, path, words),
        Kind::List(kind) | Kind::Set(kind) => words_of_kind(kind, &below(path, "[]"), words),
        Kind::Map(_, kind) => words_of_kind(kind, &below(path, "*"), words),
        Kind::EnvFile => words_of_record(&spec::ENV_FILE, path, words),
        Kind::Ulimit => {
            words.insert(format!("{path} x-"));
            for key in ["soft", "hard"] {
                words.insert(below(path, key));
                words.insert(format!("{} required", below(path, key)));
            }
        }
        Kind::Choice(choices) => {
            let choices: BTreeSet<_> = choices.iter().copied().collect();
            words.insert(format!("{path} = {choices:?}"));
        }
        _ => {}
    }
}

/// A schema and all it refers to or is any of.
fn forms<'s>(root: &'s Value, schema: &'s Value) -> Vec<&'s Value> {
    let mut forms = vec![schema];
    if let Some(name) = schema["$ref"].as_str() {
        let definition = root.pointer(name.trim_start_matches('#')).expect("it refers to a definition");
        forms.extend(self::forms(root, definition));
    }
    forms.extend(schema["anyOf"].as_array().into_iter().flatten().flat_map(|schema| self::forms(root, schema)));
    forms
}

fn words_of_schema<'s>(root: &'s Value, schema: &'s Value, path: &str, words: &mut BTreeSet<String>) {
    for form in forms(root, schema) {
        for (name, property) in form["properties"].as_object().into_iter().flatten() {
            let path = below(path, name);
            words_of_schema(root, property, &path, words);
            words.insert(path);
        }
        for name in form["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            words.insert(format!("{} required", below(path, name)));
        }
        for (pattern, property) in form["patternProperties"].as_object().into_iter().flatten() {
            if pattern == "^x-" {
                words.insert(format!("{path} x-"));
            } else {
                words_of_schema(root, property, &below(path, "*"), words);
            }
        }
        for (key, part) in [("additionalProperties", "*"), ("items", "[]")] {
            if let Some(inner) = form.get(key) {
                words_of_schema(root, inner, &below(path, part), words);
            }
        }
        if let Some(choices) = form["enum"].as_array() {
            let choices: BTreeSet<_> = choices.iter().filter_map(Value::as_str).collect();
            words.insert(format!("{path} = {choices:?}"));
        }
    }
}

/// Calls `visit` with every schema in a schema and the place it stands at.
fn each<'s>(schema: &'s Value, place: &str, visit: &mut dyn FnMut(&'s Value, &str)) {
    visit(schema, place);
    for key in ["properties", "patternProperties", "definitions"] {
        for (name, inner) in schema[key].as_object().into_iter().flatten() {
            each(inner, &format!("{place}/{key}/{name}"), visit);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(key) {
            each(inner, &format!("{place}/{key}"), visit);
        }
    }
    for inner in schema["anyOf"].as_array().into_iter().flatten() {
        each(inner, &format!("{place}/anyOf"), visit);
    }
}

/// All that is said about keys, in either schema.
fn descriptions(schema: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    match schema {
        Value::Object(object) => {
            found.extend(object.get("description").and_then(Value::as_str).map(str::to_owned));
            found.extend(object.values().flat_map(descriptions));
        }
        Value::Array(list) => found.extend(list.iter().flat_map(descriptions)),
        _ => {}
    }
    found
}

#[test]
fn every_key_is_described_and_every_definition_is_used() {
    let schema = schema();
    let (mut silent, mut used) = (Vec::new(), BTreeSet::new());
    each(&schema, "#", &mut |schema, place| {
        let key = place.rsplit('/').nth(1) == Some("properties") || place.rsplit('/').nth(1) == Some("definitions");
        let said = schema["description"].as_str().is_some_and(|text| text.ends_with('.') && text.len() > 5);
        if key && !said {
            silent.push(place.to_owned());
        }
        used.extend(schema["$ref"].as_str());
    });
    assert_eq!(silent, [""; 0], "these have no description");
    let definitions = schema["definitions"].as_object().expect("there are definitions");
    let defined: BTreeSet<_> = definitions.keys().map(|name| format!("#/definitions/{name}")).collect();
    assert_eq!(defined, used.into_iter().map(str::to_owned).collect());
}

#[test]
fn samples_validate() {
    let ours = Validator::new(schema());
    let mut files = Vec::new();
    yaml_files(&repository().join("samples"), &mut files);
    files.retain(|file| file.ends_with("compose.yaml"));
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let documents = documents(&fs::read_to_string(&file).expect("a sample can be read"));
        assert_eq!(documents.len(), 1);
        assert_eq!(ours.problem(&documents[0]), None, "{}", file.display());
    }
}

#[test]
fn what_is_right_validates_and_what_is_wrong_does_not() {
    let ours = Validator::new(schema());
    for right in [
        "image: ./app.wasm\n    x-wasm:",
        "x-wasm: {build: {command: make app, output: a.wasm}}",
        "image: ./a.wasm\n    x-wasm: {build: {command: [zig, build], working_dir: a, environment: {A: 1}, watch: [b]}}",
        "x-wasm: {module: app.wat, http: {ports: [80], reuse: true}, egress: ['*'], healthcheck: {http: /}}",
        "ports: ['80', 80, '1-2:3-4/udp', {target: 80}]\n    tty: ${TTY}\n    mem_limit: 1.5 GiB",
        "depends_on: {b: {condition: $WHEN, required: $NEEDED}}\n    stop_grace_period: 1h30m",
        "pull_policy: every_12h\n    healthcheck: {test: x, interval: 1.5s}\n    x-mine: {a: 1}",
        "environment: [A=1, B]\n    labels: {a: 1, b: true, c: }\n    command:\n    volumes: !reset null",
        "gpus: all\n    ulimits: {nofile: {soft: 1, hard: 2}}\n    deploy:\n    develop:",
        "build: {no_cache_filter: base}\n    pre_start: [{}, {image: i, per_replica: true}]",
    ] {
        let documents = documents(&format!("services:\n  a:\n    {right}\n"));
        assert_eq!(ours.problem(&documents[0]), None, "{right}");
    }
    for (wrong, place) in [
        ("imgae: x", "'imgae' not allowed"),
        ("x-wasm: {egres: []}", "'egres' not allowed"),
        ("x-wasm: {build: {output: a.wasm}}", "missing properties 'command'"),
        ("x-wasm: {http: {ports: [0]}}", "/x-wasm/http/ports/0"),
        ("ports: 80", "/ports"),
        ("ports: [{published: 80}]", "missing properties 'target'"),
        ("tty: maybe", "/tty"),
        ("mem_limit: 5 apples", "/mem_limit"),
        ("stop_grace_period: 5", "/stop_grace_period"),
        ("stop_grace_period: '5'", "/stop_grace_period"),
        ("cgroup: mine", "/cgroup"),
        ("pull_policy: sometimes", "/pull_policy"),
        ("depends_on: {b: {}}", "missing properties 'condition'"),
        ("depends_on: [b, b]", "/depends_on"),
        ("build: {no_cache_filter: {}}", "/build/no_cache_filter"),
        ("post_start: [{command: a, image: b}]", "'image' not allowed"),
        ("volumes: [{type: bind, sorce: x}]", "'sorce' not allowed"),
        ("deploy: {replicas: some}", "/deploy/replicas"),
        ("environment: {A: [1]}", "/environment/A"),
    ] {
        let documents = documents(&format!("services:\n  a:\n    {wrong}\n"));
        let problem = ours.problem(&documents[0]).unwrap_or_else(|| panic!("{wrong} validates"));
        assert!(problem.contains(place), "{problem}");
    }
}
