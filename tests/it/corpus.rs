//! The loader beside Docker Compose: projects with what it prints of them, and the config hashes it gives their services.
//!
//! Our own cases lie in `fixtures/loader`, whose README says what a case is. All of them, ours included, lie beside the
//! repository in `../shared/conformance/loader`; where they are missing only ours are run, loudly, unless
//! `WCOMPOSE_REQUIRE_CORPUS=1` requires them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, thread};

use serde_json::Value;

use super::support::engine::skip;
use super::support::{Outcome, places};

/// Cases we know not to pass, with the reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    (
        "cgo-reset-cycle-6",
        "takes `test` and `test.other` for one inside the other; compose-go has corrected that since",
    ),
    ("cgo-xservice", "drops networks whose name begins with `x-` from a service and then misses them"),
];

/// What describes a case and is no part of its project.
const META: &[&str] =
    &["args", "config-args", "env", "origin", "expected.json", "expected.txt", "expected.err", "expected.warn"];

/// Longer messages are not clear ones; warnings do not count.
const LONGEST_MESSAGE: usize = 12;

#[test]
fn every_project_loads_as_in_compose() {
    let mut cases = own_cases();
    let own: BTreeSet<String> = cases.iter().map(|case| name(case)).collect();
    cases.extend(all_cases().into_iter().flatten().filter(|case| !own.contains(&name(case))));
    let failed = check(&cases);
    assert!(failed.is_empty(), "{} of {} cases fail:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

#[test]
fn every_service_has_the_hash_compose_gives_it() {
    let golden: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_str(include_str!("fixtures/hashes.json"))
        .expect("a map of cases to maps of services to hashes");
    let cases: Vec<PathBuf> = all_cases()
        .unwrap_or_else(own_cases)
        .into_iter()
        .filter(|case| case.join("expected.json").is_file() && golden.contains_key(&name(case)))
        .collect();
    // Where projects lie is part of their hashes, so all runs use one folder, one after the other.
    let stage = Path::new("/tmp/wcompose-corpus");
    let Ok(lock) = fs::File::create(stage.with_extension("lock")) else {
        skip("another user's run holds the folder of the hashes");
        return;
    };
    lock.lock().expect("lock the folder of the hashes");
    let _ = fs::remove_dir_all(stage);
    let failed = each(&cases, |case| {
        let outcome = Staged::new(case, stage).run(&["config", "--hash", "*"]);
        let hashes = outcome.stdout.lines().filter_map(|line| line.split_once(' '));
        let hashes: BTreeMap<String, String> = hashes.map(|(name, hash)| (name.into(), hash.into())).collect();
        let wanted = &golden[&name(case)];
        let differ: Vec<_> = wanted.iter().filter(|(name, hash)| hashes.get(*name) != Some(hash)).collect();
        match differ.first() {
            None if hashes.len() == wanted.len() => None,
            _ => Some(format!("exit code {}, {} hashes differ: {differ:?}", outcome.code, differ.len())),
        }
    });
    let _ = fs::remove_dir_all(stage);
    assert!(failed.is_empty(), "{} cases fail:\n{}", failed.len(), failed.join("\n"));
    assert!(cases.len() > 300, "only {} cases have hashes", cases.len());
}

fn own_cases() -> Vec<PathBuf> {
    cases_in(&places::repository().join("tests/it/fixtures/loader"))
}

/// The cases beside the repository.
fn all_cases() -> Option<Vec<PathBuf>> {
    let folder = places::repository().join("../shared/conformance/loader");
    if folder.is_dir() {
        return Some(cases_in(&folder));
    }
    let required = env::var("WCOMPOSE_REQUIRE_CORPUS").as_deref() == Ok("1");
    assert!(!required, "there are no cases in {}", folder.display());
    skip(&format!("only our own cases are run, there is no {}", folder.display()));
    None
}

fn cases_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut cases: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    cases.retain(|case| ["json", "txt", "err"].iter().any(|kind| case.join(format!("expected.{kind}")).is_file()));
    cases.sort();
    assert!(!cases.is_empty(), "no cases in {}", folder.display());
    cases
}

fn name(case: &Path) -> String {
    case.file_name().expect("a case has a name").to_string_lossy().into_owned()
}

/// Runs cases, exceptions among them; what fails, or passes though it is an exception.
fn check(cases: &[PathBuf]) -> Vec<String> {
    each(cases, |case| {
        let top = tempfile::tempdir().expect("a temporary folder");
        let staged = Staged::new(case, &top.path().canonicalize().expect("it is there"));
        let more = words(&read(&case.join("config-args")));
        let arguments: Vec<&str> =
            ["config", "--format", "json"].into_iter().chain(more.iter().map(String::as_str)).collect();
        let verdict = staged.judge(case, &staged.run(&arguments));
        match EXCEPTIONS.iter().find(|(exception, _)| *exception == name(case)) {
            Some(_) if verdict.is_none() => Some("passes and is no exception any more".into()),
            Some(_) => None,
            None => verdict,
        }
    })
}

/// Asks a question about each case, several at a time; the answers, each with the name of its case.
fn each(cases: &[PathBuf], ask: impl Fn(&Path) -> Option<String> + Sync) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut answers = Vec::new();
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            answers.extend(ask(case).map(|answer| format!("{}: {answer}", name(case))));
        }
        answers
    };
    let mut answers: Vec<String> = thread::scope(|scope| {
        let workers: Vec<_> =
            (0..thread::available_parallelism().map_or(2, usize::from)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no worker panics")).collect()
    });
    answers.sort();
    answers
}

/// A case, copied to where it is run.
struct Staged {
    top: PathBuf,
    root: PathBuf,
    home: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Staged {
    fn new(case: &Path, top: &Path) -> Self {
        let (root, home) = (top.join(name(case)), top.join(".home"));
        fs::create_dir_all(&home).expect("make the home folder");
        copy(case, &root, META);
        let place = |text: &str| text.replace("${CASE}", &root.display().to_string());
        Self {
            arguments: words(&read(&case.join("args"))).iter().map(|word| place(word)).collect(),
            environment: read(&case.join("env"))
                .lines()
                .filter_map(|line| line.split_once('='))
                .map(|(name, value)| (name.to_owned(), place(value)))
                .collect(),
            top: top.to_owned(),
            root,
            home,
        }
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        let output = Command::new(places::wcompose())
            .args(&self.arguments)
            .args(arguments)
            .current_dir(&self.root)
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.home)
            .envs(self.environment.iter().cloned())
            .output()
            .expect("the binary runs");
        Outcome {
            code: output.status.code().unwrap_or(128),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Nothing when the outcome is the expected one, else why it is not.
    fn judge(&self, case: &Path, outcome: &Outcome) -> Option<String> {
        let Outcome { code, stdout, stderr } = outcome;
        if *code >= 100 || stderr.contains("panicked at") {
            return Some(format!("crashed: {outcome}"));
        }
        let message = stderr.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("warning"));
        if case.join("expected.err").is_file() {
            return match message.count() {
                _ if *code == 0 => Some("is taken and must be refused".into()),
                0 => Some("is refused without a message".into()),
                lines if lines > LONGEST_MESSAGE => Some(format!("is refused with a message of {lines} lines")),
                _ if !stdout.trim().is_empty() => Some("is refused and yet printed".into()),
                _ => None,
            };
        }
        if *code != 0 {
            return Some(format!("is refused: {}", message.collect::<Vec<_>>().join(" ")));
        }
        if case.join("expected.txt").is_file() {
            let wanted = read(&case.join("expected.txt"));
            let lines = |text: &str| -> Vec<String> {
                let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
                let mut lines: Vec<_> = lines.map(str::to_owned).collect();
                lines.sort();
                lines
            };
            let got = lines(&self.with_placeholders(stdout));
            return (lines(&wanted) != got).then(|| format!("prints {got:?}"));
        }
        let wanted: Value = serde_json::from_str(&read(&case.join("expected.json"))).expect("JSON is expected");
        match serde_json::from_str::<Value>(stdout) {
            Ok(got) => difference(&wanted, &self.value(got), "document"),
            Err(error) => Some(format!("prints no JSON: {error}")),
        }
    }

    fn with_placeholders(&self, text: &str) -> String {
        let places = [(&self.root, "${CASE}"), (&self.home, "${HOME}"), (&self.top, "${PARENT}")];
        places.iter().fold(text.to_owned(), |text, (path, mark)| text.replace(&path.display().to_string(), mark))
    }

    fn value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.with_placeholders(&text)),
            Value::Array(list) => list.into_iter().map(|value| self.value(value)).collect(),
            Value::Object(map) => {
                map.into_iter().map(|(key, value)| (self.with_placeholders(&key), self.value(value))).collect()
            }
            other => other,
        }
    }
}

/// The first place where two values differ. Keys have no order; `1` and `1.0` are the same.
fn difference(wanted: &Value, got: &Value, path: &str) -> Option<String> {
    match (wanted, got) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            keys.into_iter().find_map(|key| match (a.get(key), b.get(key)) {
                (Some(a), Some(b)) => difference(a, b, &format!("{path}.{key}")),
                (wanted, got) => Some(format!("{path}.{key}: {wanted:?} is wanted, {got:?} printed")),
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(at, (a, b))| difference(a, b, &format!("{path}[{at}]")))
        }
        (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => None,
        _ => (wanted != got).then(|| format!("{path}: {wanted} is wanted, {got} printed")),
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn copy(from: &Path, to: &Path, without: &[&str]) {
    fs::create_dir_all(to).expect("make a folder");
    for entry in fs::read_dir(from).expect("list a folder") {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).expect("readable");
        let target = to.join(&name);
        if without.iter().any(|file| name == *file) {
            continue;
        }
        if path.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&path).expect("a link"), target).expect("make a link");
        } else if path.is_dir() {
            copy(&path, &target, &[]);
        } else {
            fs::copy(&path, target).expect("copy a file");
        }
    }
}

/// The words of a command line, in quotes or not.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}
