//! `x-wasm.plug`: components joined into one before they start, each export of a plug put where an import asks for it.
//!
//! Plugs are taken in their order: each goes into what the ones before it made, so a plug may itself need a later one. What no
//! plug and not wcompose itself provides is found afterwards, by the look that every module gets.

use thiserror::Error;
use wac_graph::types::Package;
use wac_graph::{CompositionGraph, EncodeOptions};

/// Why components were not joined.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlugError {
    /// It is a core module, or no WebAssembly at all.
    #[error("`{0}` is no component, and only components can be plugged together")]
    NoComponent(String),
    /// The plug exports nothing that is imported.
    #[error("`{plug}` fits no import of `{socket}`: it exports {exports}, and what is imported there is {imports}")]
    Nothing {
        /// The plug.
        plug: String,
        /// What it was to be plugged into.
        socket: String,
        /// Names, for people.
        exports: String,
        /// Names, for people.
        imports: String,
    },
    /// The names fit, what is behind them does not.
    #[error("`{plug}` cannot be plugged into `{socket}`: {why}")]
    Failed {
        /// The plug.
        plug: String,
        /// What it was to be plugged into.
        socket: String,
        /// What the library says.
        why: String,
    },
}

/// A component and what people call it.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// For messages.
    pub name: &'a str,
    /// Its binary.
    pub bytes: &'a [u8],
}

/// Plugs one component into another.
pub fn plug(socket: Part<'_>, plug: Part<'_>) -> Result<Vec<u8>, PlugError> {
    let failed = |why: String| PlugError::Failed { plug: plug.name.to_owned(), socket: socket.name.to_owned(), why };
    let mut graph = CompositionGraph::new();
    let mut register = |key: &str, part: Part<'_>| {
        if !wasmparser::Parser::is_component(part.bytes) {
            return Err(PlugError::NoComponent(part.name.to_owned()));
        }
        let package = Package::from_bytes(key, None, part.bytes, graph.types_mut());
        let package = package.map_err(|error| failed(format!("{}: {error:#}", part.name)))?;
        graph.register_package(package).map_err(|error| failed(error.to_string()))
    };
    let inner = register("wcompose:socket", socket)?;
    let outer = register("wcompose:plug", plug)?;
    let exports = names(graph.types()[graph[outer].ty()].exports.keys());
    let imports = names(graph.types()[graph[inner].ty()].imports.keys());
    match wac_graph::plug(&mut graph, vec![outer], inner) {
        Ok(()) => {}
        Err(wac_graph::PlugError::NoPlugHappened) => {
            let (plug, socket) = (plug.name.to_owned(), socket.name.to_owned());
            return Err(PlugError::Nothing { plug, socket, exports, imports });
        }
        Err(wac_graph::PlugError::GraphError { source }) => return Err(failed(format!("{source:#}"))),
    }
    let options = EncodeOptions { define_components: true, validate: false, ..EncodeOptions::default() };
    graph.encode(options).map_err(|error| failed(error.to_string()))
}

/// The names that are not WASI's own, as those are wcompose's to provide.
fn names<'a>(all: impl Iterator<Item = &'a String>) -> String {
    let own: Vec<String> = all.filter(|name| !name.starts_with("wasi:")).map(|name| format!("`{name}`")).collect();
    if own.is_empty() { "nothing but WASI".to_owned() } else { own.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(text: &str) -> Vec<u8> {
        wat::parse_str(text).expect("the test's text is right")
    }

    const CHECK: &str = r#"(component
        (core module $m (func (export "check") (result i32) i32.const 7))
        (core instance $i (instantiate $m))
        (func $check (result u32) (canon lift (core func $i "check")))
        (instance $e (export "check" (func $check)))
        (export "acme:auth/checks@1.0.0" (instance $e)))"#;

    const APP: &str = r#"(component
        (import "acme:auth/checks@1.0.0" (instance $checks (export "check" (func (result u32)))))
        (instance $run)
        (export "wasi:cli/run@0.2.0" (instance $run)))"#;

    fn part<'a>(name: &'a str, bytes: &'a [u8]) -> Part<'a> {
        Part { name, bytes }
    }

    #[test]
    fn an_import_that_was_plugged_is_no_import_any_more() {
        let (app, check) = (component(APP), component(CHECK));
        let missing = super::super::module::inspect(&app, None).expect_err("nobody provides `acme:auth`");
        assert!(missing.to_string().contains("acme:auth/checks@1.0.0"), "{missing}");
        let joined = plug(part("app", &app), part("auth", &check)).expect("it fits");
        assert_eq!(super::super::module::inspect(&joined, None), Ok(crate::model::ModuleKind::Command));
    }

    #[test]
    fn a_plug_that_fits_nothing_is_told_with_what_there_is() {
        let (app, other) = (component(APP), component(&CHECK.replace("acme:auth/checks", "acme:auth/other")));
        let error = plug(part("app", &app), part("auth", &other)).expect_err("it does not fit");
        assert_eq!(
            error.to_string(),
            "`auth` fits no import of `app`: it exports `acme:auth/other@1.0.0`, and what is imported there is \
             `acme:auth/checks@1.0.0`"
        );
        let module = component("(module)");
        assert_eq!(plug(part("app", &app), part("core", &module)), Err(PlugError::NoComponent("core".into())));
    }
}
