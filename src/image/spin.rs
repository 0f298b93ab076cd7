//! Spin applications: what `spin.toml` (versions 1 and 2, <https://spinframework.dev/manifest-reference>) and the locked form
//! in registries say, as far as one service can be it: components behind HTTP. Pure: text in, data out.
//!
//! Variables are filled in, outbound hosts get the form of `x-wasm.egress`. What a component imports is not looked at here:
//! a module that needs Spin's own interfaces is refused like any other.

mod hosts;
mod locked;
mod manifest;
mod variables;

#[cfg(test)]
mod tests;

use indexmap::IndexMap;
use serde_json::Value;
use thiserror::Error;

pub use self::locked::locked;
pub use self::manifest::manifest;
pub use self::variables::VARIABLE;
use crate::model::application::{AppSettings, Route};

/// An application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// Before each route, as [`crate::model::application::Application::base`].
    pub base: String,
    /// The components that have a route.
    pub components: Vec<Part>,
    /// The routes to them, by their place in `components`.
    pub routes: Vec<Route>,
}

/// A component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name: letters, digits, `-` and `_`.
    pub name: String,
    /// Its module: a path below the manifest (`spin.toml`), or a digest (in a registry).
    pub source: String,
    /// Its environment.
    pub environment: IndexMap<String, String>,
    /// What else it is given.
    pub settings: AppSettings,
    /// Files it sees.
    pub files: Vec<Mounted>,
    /// Patterns of files it does not see after all.
    pub excluded: Vec<String>,
}

/// Files that a component sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mounted {
    /// A file or folder below the manifest, else what fits this pattern, each at its own path.
    Matching(String),
    /// A file or a folder below the manifest, at another path.
    Placed {
        /// Below the manifest.
        source: String,
        /// Where the component sees it.
        target: String,
    },
    /// What a registry has under this digest.
    Stored {
        /// The digest.
        digest: String,
        /// Where the component sees it.
        target: String,
    },
    /// A small file that the application itself holds.
    Inline {
        /// In base64.
        content: String,
        /// Where the component sees it.
        target: String,
    },
}

/// Why an application cannot be a service.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpinError {
    /// The manifest cannot be read.
    #[error("its Spin manifest is damaged: {0}")]
    Malformed(String),
    /// It is made in a way that a service is not.
    #[error("it is a Spin application that {0}")]
    Unsupported(String),
}

/// Puts an application together. Each trigger has its kind; `part` reads the component of the one at that place.
fn assemble(
    base: Option<&Value>,
    triggers: &[(String, &Value)],
    part: impl Fn(usize) -> Result<Part, SpinError>,
) -> Result<App, SpinError> {
    let base = base.and_then(Value::as_str).unwrap_or_default();
    let mut app = App { base: slashed(base), components: Vec::new(), routes: Vec::new() };
    if let Some((kind, _)) = triggers.iter().find(|(kind, _)| kind != "http") {
        return Err(unsupported(format!("is started by `{kind}`; a service starts by HTTP (`[[trigger.http]]`) only")));
    }
    for (at, (_, trigger)) in triggers.iter().enumerate() {
        let Some(pattern) = route(trigger)? else { continue };
        if trigger.pointer("/executor/type").and_then(Value::as_str) == Some("wagi") {
            return Err(unsupported(format!(
                "answers `{pattern}` by Wagi, a form of CGI: build that component for `wasi:http`"
            )));
        }
        for (key, what) in [
            ("static_response", "without a component (`static_response`)"),
            ("components", "by further components (`components`)"),
            ("dependencies", "through further components (`dependencies`)"),
        ] {
            if trigger.get(key).is_some_and(|value| value.as_object().is_none_or(|table| !table.is_empty())) {
                return Err(unsupported(format!("answers `{pattern}` {what}")));
            }
        }
        let part = part(at)?;
        let known = app.components.iter().position(|known| known.name == part.name);
        let component = known.unwrap_or_else(|| {
            app.components.push(part);
            app.components.len() - 1
        });
        app.routes.push(Route { pattern, component });
    }
    if app.routes.is_empty() { Err(unsupported("has no route that can be asked")) } else { Ok(app) }
}

/// The route of a trigger; none where it is private.
fn route(trigger: &Value) -> Result<Option<String>, SpinError> {
    let pattern = match trigger.get("route") {
        Some(Value::String(pattern)) => slashed(pattern),
        Some(private) if private.get("private").and_then(Value::as_bool) == Some(true) => return Ok(None),
        _ => return Err(malformed("a trigger of `http` has no `route`")),
    };
    let named = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    };
    let mut segments = pattern.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let sound = match segment {
            "..." | "*" => segments.peek().is_none(),
            segment => segment.strip_prefix(':').is_none_or(named),
        };
        if !sound {
            return Err(malformed(format!(
                "the route `{pattern}` is none: `:name` stands for a segment, `...` for its end"
            )));
        }
    }
    Ok(Some(pattern))
}

/// With a slash at the beginning and, beside that, none at the end.
fn slashed(path: &str) -> String {
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// Whether a component is called so.
fn check_name(name: &str) -> Result<(), SpinError> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !name.is_empty() && name.bytes().all(sound) {
        Ok(())
    } else {
        Err(malformed(format!("`{name}` is no name of a component")))
    }
}

fn check_alone(name: &str, component: &Value) -> Result<(), SpinError> {
    match component.get("dependencies").and_then(Value::as_object) {
        Some(needed) if !needed.is_empty() => Err(unsupported(format!(
            "composes `{name}` of several components: compose them before, or use `x-wasm.plug`"
        ))),
        _ => Ok(()),
    }
}

/// A list of texts; what is none is left out.
fn texts(list: Option<&Value>) -> impl Iterator<Item = &str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// A table of texts, as written.
fn table(table: Option<&Value>) -> impl Iterator<Item = (&String, &str)> {
    let entries = table.and_then(Value::as_object).into_iter().flatten();
    entries.map(|(name, value)| (name, value.as_str().unwrap_or_default()))
}

fn malformed(why: impl ToString) -> SpinError {
    SpinError::Malformed(why.to_string())
}

fn unsupported(what: impl Into<String>) -> SpinError {
    SpinError::Unsupported(what.into())
}
