//! The command line of `run` as a compose document: merged over the files, every value means there what it would mean in
//! a file. Pure but for reading `--env-from-file`.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli::args::Run;
use crate::cli::outcome::Failure;
use crate::model::Service;

/// What is said of a service.
pub fn of_service(service: &Service, args: &Run, command: &[String], tty: bool) -> Result<String, Failure> {
    let mut keys = common(args)?;
    if !command.is_empty() {
        keys.push(over("command", &texts(command)));
    } else if args.entrypoint.is_some() {
        // The service's command was meant for its own entrypoint.
        keys.push(over("command", &json!([])));
    }
    let mut ports: Vec<Value> = texts(&args.publish);
    if args.service_ports {
        ports.extend(service.document.get("ports").and_then(Value::as_array).into_iter().flatten().cloned());
    }
    keys.push(over("ports", &json!(ports)));
    keys.push(reset("container_name"));
    keys.push(over("restart", &json!("no")));
    keys.push(over("scale", &json!(1)));
    if service.document.get("deploy").is_some() {
        keys.push(format!("\"deploy\": {{{}, {}}}", reset("replicas"), reset("restart_policy")));
    }
    keys.push(over("stdin_open", &json!(args.interactive && !args.detach)));
    keys.push(over("tty", &json!(tty)));
    Ok(document(service.name.as_str(), &keys))
}

/// What `--image` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file, by its absolute path.
    File(String),
    /// An image.
    Image(String),
}

/// A whole project of one Wasm image or file.
pub fn alone(source: &Source, args: &Run) -> Result<String, Failure> {
    let mut keys = common(args)?;
    match source {
        Source::File(path) => keys.push(format!("\"x-wasm\": {{\"module\": {}}}", text(path))),
        Source::Image(image) => {
            keys.push(format!("\"image\": {}", text(image)));
            keys.push("\"platform\": \"wasi/wasm\"".to_owned());
        }
    }
    if !args.words.is_empty() {
        keys.push(over("command", &texts(&args.words)));
    }
    if !args.publish.is_empty() {
        keys.push(over("ports", &texts(&args.publish)));
    }
    Ok(document("run", &keys))
}

/// What both say alike.
fn common(args: &Run) -> Result<Vec<String>, Failure> {
    let mut keys = Vec::new();
    let mut environment = serde_json::Map::new();
    for file in &args.env_from_file {
        let read = std::fs::read_to_string(file);
        let read = read.map_err(|error| Failure::new(format!("read `{file}`: {error}"), []))?;
        let lines = read.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.for_each(|line| put(&mut environment, line));
    }
    args.env.iter().for_each(|entry| put(&mut environment, entry));
    if !environment.is_empty() {
        keys.push(format!("\"environment\": {}", Value::Object(environment)));
    }
    if !args.volumes.is_empty() {
        let volumes: Vec<Value> = args.volumes.iter().map(|volume| text(&from_here(volume))).collect();
        keys.push(format!("\"volumes\": {}", json!(volumes)));
    }
    if let Some(entrypoint) = &args.entrypoint {
        keys.push(over("entrypoint", &text(entrypoint)));
    }
    for (key, value) in [("user", &args.user), ("working_dir", &args.workdir)] {
        keys.extend(value.as_ref().map(|value| over(key, &text(value))));
    }
    for (key, values) in [("labels", &args.labels), ("cap_add", &args.cap_add), ("cap_drop", &args.cap_drop)] {
        if !values.is_empty() {
            keys.push(format!("\"{key}\": {}", json!(texts(values))));
        }
    }
    Ok(keys)
}

/// `KEY=VALUE`; a bare name takes its value from here.
fn put(environment: &mut serde_json::Map<String, Value>, entry: &str) {
    match entry.split_once('=') {
        Some((name, value)) => environment.insert(name.to_owned(), text(value)),
        None => match std::env::var(entry) {
            Ok(value) => environment.insert(entry.to_owned(), text(&value)),
            Err(_) => environment.insert(entry.to_owned(), Value::Null),
        },
    };
}

/// A relative folder of the command line is relative to where the command is, not to the file.
fn from_here(volume: &str) -> String {
    let (source, rest) = volume.split_once(':').map_or((volume, ""), |(source, rest)| (source, rest));
    if rest.is_empty() || !(source == "." || source == ".." || source.starts_with("./") || source.starts_with("../")) {
        return volume.to_owned();
    }
    let source = std::path::absolute(Path::new(source)).map_or(source.to_owned(), |path| path.display().to_string());
    format!("{source}:{rest}")
}

/// Text that nothing is put into: what a shell did not expand stays as it is.
fn text(value: &str) -> Value {
    Value::String(value.replace('$', "$$"))
}

fn texts(values: &[String]) -> Vec<Value> {
    values.iter().map(|value| text(value)).collect()
}

fn over(key: &str, value: &(impl serde::Serialize + ?Sized)) -> String {
    format!("\"{key}\": !override {}", json!(value))
}

fn reset(key: &str) -> String {
    format!("\"{key}\": !reset null")
}

fn document(service: &str, keys: &[String]) -> String {
    format!("{{\"services\": {{{}: {{{}}}}}}}\n", json!(service), keys.join(", "))
}
