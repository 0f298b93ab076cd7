//! How a run of guest code ended, in words and numbers people know: exit code, reason, the Wasm backtrace as lines.

use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

/// Exit code after a trap: 128 + SIGABRT, as `wasmtime run` gives.
pub const TRAPPED: i64 = 134;

/// How guest code ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It returned or called `exit`.
    Exited(i64),
    /// It trapped, or the host could not go on with it.
    Trapped(Trapped),
}

/// A trap, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trapped {
    /// One phrase: `out of bounds memory access`.
    pub reason: String,
    /// One line for each frame, innermost first.
    pub backtrace: Vec<String>,
}

impl Trapped {
    /// The lines a person reads in the log.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        std::iter::once(format!("wasm trap: {}", self.reason)).chain(self.backtrace.iter().cloned())
    }
}

impl Ended {
    /// Reads Wasmtime's error. Code above 255 is cut as a process's is.
    pub fn from_error(error: &wasmtime::Error) -> Self {
        if let Some(exit) = error.downcast_ref::<I32Exit>() {
            return Self::Exited(i64::from(exit.0 & 0xff));
        }
        Self::Trapped(Trapped { reason: reason(error), backtrace: backtrace(error) })
    }
}

fn reason(error: &wasmtime::Error) -> String {
    if let Some(trap) = error.downcast_ref::<Trap>() {
        let text = trap.to_string();
        return text.strip_prefix("wasm trap: ").unwrap_or(&text).to_owned();
    }
    // The outermost context is the backtrace; what went wrong stands below it.
    error.root_cause().to_string()
}

/// Wasmtime's text of a backtrace has names demangled and lines of source where the module carries them; its `Debug` adds frames of the host.
fn backtrace(error: &wasmtime::Error) -> Vec<String> {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return Vec::new() };
    let text = backtrace.to_string();
    text.lines().skip(1).map(|line| without_hash(&without_offset(line.trim_end())).to_owned()).collect()
}

/// The hash that Rust puts at the end of a symbol tells functions apart that share a name, but not to people.
fn without_hash(line: &str) -> &str {
    match line.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => name,
        _ => line,
    }
}

/// `    0:    0x1f - app!main` as `    0: app!main`: the offset into the binary says nothing to people.
fn without_offset(line: &str) -> String {
    if let Some((number, rest)) = line.split_once(": ")
        && let Some((offset, name)) = rest.split_once(" - ")
        && offset.trim_start().starts_with("0x")
    {
        return format!("{number}: {name}");
    }
    line.to_owned()
}

#[cfg(test)]
mod tests {
    use wasmtime::{Engine, Instance, Module, Store};

    use super::*;

    fn run(text: &str) -> Ended {
        let engine = Engine::default();
        let module = Module::new(&engine, wat::parse_str(text).unwrap()).unwrap();
        let mut store = Store::new(&engine, ());
        let instance = Instance::new(&mut store, &module, &[]).unwrap();
        let start = instance.get_typed_func::<(), ()>(&mut store, "_start").unwrap();
        Ended::from_error(&start.call(&mut store, ()).unwrap_err())
    }

    #[test]
    fn a_trap_names_functions() {
        let ended = run(r#"(module $app
            (func $core::panicking::panic unreachable)
            (func $_ZN3app4main17h0123456789abcdefE (export "_start") call 0))"#);
        let Ended::Trapped(trapped) = ended else { panic!("{ended:?}") };
        assert_eq!(
            trapped.lines().collect::<Vec<_>>(),
            [
                "wasm trap: wasm `unreachable` instruction executed",
                "    0: app!core::panicking::panic",
                "    1: app!app::main"
            ]
        );
    }

    #[test]
    fn endless_recursion_is_a_short_story() {
        let ended = run(r#"(module $app (func $again (export "_start") call $again))"#);
        let Ended::Trapped(trapped) = ended else { panic!("{ended:?}") };
        assert_eq!(trapped.reason, "call stack exhausted");
        assert!(trapped.backtrace.len() <= 40, "{}", trapped.backtrace.len());
    }

    #[test]
    fn an_exit_is_no_trap() {
        assert_eq!(Ended::from_error(&wasmtime::Error::from(I32Exit(7))), Ended::Exited(7));
        assert_eq!(Ended::from_error(&wasmtime::Error::from(I32Exit(-1))), Ended::Exited(255));
    }
}
