//! What each fuzzer does with its input. Also run, over the inputs that once failed, by the loader's own tests.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::compose::print::{self, Dollars, Format};
use crate::compose::{LoadError, Loaded, Memory, Options, load};
use crate::diag::{Colour, json, render};

/// Parts of an input: the byte that no text of a file may have stands between them.
const BETWEEN: char = '\u{1f}';

fn parts<const N: usize>(data: &[u8]) -> Option<[&str; N]> {
    let mut parts = str::from_utf8(data).ok()?.split(BETWEEN);
    Some(std::array::from_fn(|_| parts.next().unwrap_or_default()))
}

fn options() -> Options {
    Options {
        directory: "/srv/demo".into(),
        environment: BTreeMap::from([("HOME".to_owned(), "/home/user".to_owned()), ("SET".into(), "value".into())]),
        ..Options::default()
    }
}

fn project_of(options: &Options, files: &[(&str, &str)]) -> Result<Loaded, LoadError> {
    let files = files.iter().filter(|(_, text)| !text.is_empty());
    load(options, &Memory::new(files.map(|(name, text)| (PathBuf::from("/srv/demo").join(name), *text))))
}

/// A failed load tells why, as text and as data, and points into its texts.
fn told(error: &LoadError) {
    assert!(!error.diagnostics.is_empty() || !error.remotes.is_empty(), "a failure without a word");
    let text = render(&error.diagnostics, &error.sources, Colour::Never);
    assert!(error.diagnostics.is_empty() || text.contains("error: "), "{text}");
    let data = json(&error.diagnostics, &error.sources);
    assert!(data.ends_with("}\n") && data.lines().count() == 1, "{data}");
}

/// Files → project: a compose file, an override, a file to include or extend, and `.env`.
pub fn project(data: &[u8]) {
    let Some([compose, over, other, env]) = parts::<4>(data) else { return };
    let files = [
        ("compose.yaml", compose),
        ("compose.override.yaml", over),
        ("other.yaml", other),
        (".env", env),
        ("a.env", env),
    ];
    let loaded = match project_of(&options(), &files) {
        Ok(loaded) => loaded,
        Err(error) => return told(&error),
    };
    render(&loaded.warnings, &loaded.sources, Colour::Never);
    // What `config` prints is a compose file. Compose does not take back all that it prints, `memswap_limit: "-1"` for one.
    let text = print::document(loaded.project.document, Format::Yaml, Dollars::Escape);
    if let Err(error) = project_of(&options(), &[("compose.yaml", &text)]) {
        told(&error);
    }
}

/// A text with variables, and the values of two of them.
pub fn interpolation(data: &[u8]) {
    let Some([text, first, second]) = parts::<3>(data) else { return };
    let mut options = options();
    options.environment.insert("A".into(), first.into());
    options.environment.insert("B".into(), second.into());
    let label = serde_json::Value::String(text.to_owned());
    let compose = format!("services:\n  web:\n    image: x\n    labels:\n      label: {label}\n");
    match project_of(&options, &[("compose.yaml", &compose)]) {
        Ok(loaded) => {
            let value = &loaded.project.services["web"].labels["label"];
            assert!(text.contains('$') || value == text, "{text:?} became {value:?}");
        }
        Err(error) => told(&error),
    }
}

/// The files of variables: `.env`, an `env_file`, and one of format `raw`.
pub fn dotenv(data: &[u8]) {
    let Some([env, file, raw]) = parts::<3>(data) else { return };
    let compose = "services: {web: {image: x, env_file: [a.env, {path: raw.env, format: raw, required: false}]}}";
    let files = [("compose.yaml", compose), (".env", env), ("a.env", file), ("raw.env", raw)];
    match project_of(&options(), &files) {
        Ok(loaded) => {
            let names = loaded.project.services["web"].environment.keys();
            assert!(names.into_iter().all(|name| !name.contains('=')), "a name with a `=`");
        }
        Err(error) => told(&error),
    }
}
