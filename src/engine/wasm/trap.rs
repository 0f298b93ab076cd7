//! How a run of guest code ended, in words and numbers people know: exit code, reason, the Wasm backtrace as lines.

use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::limits;

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
        let text = text.strip_prefix("wasm trap: ").unwrap_or(&text);
        return match trap {
            Trap::StackOverflow => format!("{text}: its calls may take {} KiB of Wasm stack", limits::STACK / 1024),
            Trap::OutOfFuel => format!("{text}: it has used up what `x-wasm.fuel` gives it"),
            _ => text.to_owned(),
        };
    }
    // The outermost context is the backtrace; what went wrong stands below it.
    error.root_cause().to_string()
}

/// Wasmtime's text of a backtrace has names demangled and lines of source where the module carries them; its `Debug` adds
/// frames of the host.
fn backtrace(error: &wasmtime::Error) -> Vec<String> {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return Vec::new() };
    let text = backtrace.to_string();
    let lines: Vec<_> = text.lines().skip(1).map(|line| readable(line.trim_end())).collect();
    own_part(&lines).to_vec()
}

/// What a Rust guest's own code did: without the panic machinery above it and the start-up below it, as Rust's own backtraces.
fn own_part(lines: &[String]) -> &[String] {
    let has = |line: &String, name: &str| line.contains(name);
    // A frame is followed by lines that say where it is; the next frame starts with its number.
    let next_frame = |after: usize| {
        let starts = |line: &String| line.trim_start().starts_with(|first: char| first.is_ascii_digit());
        lines[after + 1..].iter().position(starts).map_or(lines.len(), |further| after + 1 + further)
    };
    let panicked = lines.iter().rposition(|line| has(line, "rust_begin_unwind"));
    let start = panicked.map_or(0, next_frame);
    let end = lines[start..].iter().position(|line| has(line, "__rust_begin_short_backtrace"));
    let end = end.map_or(lines.len(), |end| start + end);
    if start < end { &lines[start..end] } else { lines }
}

/// A line without what says nothing to people: the offset into the binary (`0x1f - `), the crate hashes of Rust's
/// symbols (`std[d123b7a1a2ed1472]::`, `::h0123456789abcdef`).
fn readable(line: &str) -> String {
    let mut text = match line.split_once(": ").and_then(|(number, rest)| Some((number, rest.split_once(" - ")?))) {
        Some((number, (offset, name))) if offset.trim_start().starts_with("0x") => format!("{number}: {name}"),
        _ => line.to_owned(),
    };
    let is_hash = |hash: &str| hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some((name, hash)) = text.rsplit_once("::h")
        && is_hash(hash)
    {
        text.truncate(name.len());
    }
    let mut from = 0;
    while let Some(open) = text[from..].find('[').map(|open| from + open) {
        if text.get(open + 1..open + 17).is_some_and(is_hash) && text[open + 17..].starts_with(']') {
            text.replace_range(open..open + 18, "");
        } else {
            from = open + 1;
        }
    }
    text
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
    fn a_panic_is_told_from_where_it_was_called() {
        let lines = [
            "    0: abort",
            "    1: __rustc[b7974e8690430dd9]::rust_begin_unwind",
            "                    at /rustc/library/std/src/panicking.rs:689:5",
            "    2: core[6d9e98711c484d2e]::panicking::panic_fmt",
            "    3: app::main",
            "                    at src/main.rs:3:5",
            "    4: call_once<fn(), ()>",
            "                - __rust_begin_short_backtrace<fn(), ()>",
            "    5: std::rt::lang_start",
        ]
        .map(readable);
        assert_eq!(own_part(&lines)[0], "    2: core::panicking::panic_fmt");
        assert_eq!(own_part(&lines)[2], "                    at src/main.rs:3:5");
        assert_eq!(own_part(&lines).len(), 4);
        assert_eq!(own_part(&lines[4..6]), &lines[4..6]);
    }

    #[test]
    fn endless_recursion_is_a_short_story() {
        let ended = run(r#"(module $app (func $again (export "_start") call $again))"#);
        let Ended::Trapped(trapped) = ended else { panic!("{ended:?}") };
        assert!(trapped.reason.starts_with("call stack exhausted"), "{}", trapped.reason);
        assert!(trapped.backtrace.len() <= 40, "{}", trapped.backtrace.len());
    }

    #[test]
    fn an_exit_is_no_trap() {
        assert_eq!(Ended::from_error(&wasmtime::Error::from(I32Exit(7))), Ended::Exited(7));
        assert_eq!(Ended::from_error(&wasmtime::Error::from(I32Exit(-1))), Ended::Exited(255));
    }
}
