//! From exec to the first byte of an answer, compiled code cached: a tiny component, and one of Python with 18 MB. Beside it the
//! exec of `wcompose version`, which is what starting the binary costs. Run by `benches/run`.

#[path = "support/figure.rs"]
mod figure;
#[expect(dead_code, reason = "the benchmarks use a part of it")]
#[path = "support/load.rs"]
mod load;
#[expect(dead_code, reason = "the benchmarks use a part of what the scenarios use")]
#[path = "../tests/it/support/mod.rs"]
mod support;

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use figure::Figure;
use rustix::process::Signal;
use support::project::free_port;
use support::python::Python;
use support::{Guest, Project, now};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    first_byte("exec to first byte, tiny component", &Guest::Relay.path(), "aim: 10 ms")?;
    match Python::Handler.path() {
        Ok(python) => first_byte("exec to first byte, Python component", &python, "aim: 60 ms"),
        Err(error) => Ok(writeln!(io::stdout(), "no Python component: {error}")?),
    }
}

fn first_byte(what: &str, component: &Path, note: &str) -> Outcome {
    let port = free_port();
    let project =
        Project::wasm("services: { web: { image: ./web.wasm, ports: [\"${PORT}:8080\"] } }").with("PORT", port);
    fs::copy(component, project.folder().join("web.wasm"))?;
    let mut figure = Figure::new(what, "wcompose version");
    for turn in 0..21 {
        let start = now();
        let running = project.start(&["up"]);
        load::first_byte(port, "/say/hi")?;
        let first = start.elapsed();
        running.signal(Signal::INT);
        running.end();

        let start = now();
        // Waited for by the system: a polled end would be the poll's, not the program's.
        let version = project.command(&["version"]).output()?;
        assert!(version.status.success(), "`version` works");
        // The first turn warms the caches.
        if turn > 0 {
            figure.take(first, start.elapsed());
        }
    }
    figure.print(note);
    Ok(())
}
