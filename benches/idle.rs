//! Many Wasm services that wait: how long `up -d` takes, and what each costs in memory, for 250, 500 and 1000 of them. Run by
//! `benches/run`.

#[expect(dead_code, reason = "the benchmarks use a part of it")]
#[path = "support/load.rs"]
mod load;
#[expect(dead_code, reason = "the benchmarks use a part of what the scenarios use")]
#[path = "../tests/it/support/mod.rs"]
mod support;

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::thread;
use std::time::Duration;

use support::{Guest, Project, now};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    for (services, note) in [(250, "linear"), (500, "linear"), (1000, "aim: 2 s, 1 MB each")] {
        let mut times = Vec::new();
        let (mut memory, mut cpu) = (0, 0.0);
        for turn in 0..4 {
            let project = Project::wasm(&compose(services)).guest(Guest::PeerModule);
            let start = now();
            project.up();
            // The first turn warms the caches.
            if turn > 0 {
                times.push(start.elapsed());
            }
            let supervisor = u32::try_from(*project.supervisors().first().ok_or("no supervisor runs")?)?;
            let running = project.ps().values().filter(|row| row.state == "running").count();
            assert_eq!(running, services, "every service runs");
            memory = load::memory(supervisor)?;
            let before = load::computed(supervisor)?;
            thread::sleep(Duration::from_secs(2));
            cpu = (load::computed(supervisor)? - before).as_secs_f64() / 2.0;
            project.run(&["down", "-t", "0"]).well();
        }
        times.sort_unstable();
        let line = format!(
            "{services} idle services: up in {:.2} s, {:.0} kB each, {:.1} % of a core; {note}\n",
            times[times.len() / 2].as_secs_f64(),
            memory as f64 / 1000.0 / services as f64,
            cpu * 100.0
        );
        io::stdout().write_all(line.as_bytes())?;
    }
    Ok(())
}

fn compose(services: usize) -> String {
    let mut text = String::from("services:\n");
    for number in 0..services {
        let _ = writeln!(text, "  s{number}: {{ image: ./module.wasm, command: [sleep, \"100000\"] }}");
    }
    text
}
