//! What Wasm costs that computes: kernels in C as a guest under wcompose and as a native program, from one source by one compiler,
//! in turns. Run by `benches/run`; needs clang 19 and the C library of WASI, as the tests do.

#[path = "support/figure.rs"]
mod figure;
#[expect(dead_code, reason = "the benchmarks use a part of it")]
#[path = "support/peers.rs"]
mod peers;
#[expect(dead_code, reason = "the benchmarks use a part of what the scenarios use")]
#[path = "../tests/it/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::process::Command;
use std::time::Duration;

use figure::{Figure, median};
use support::Project;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Rounds of each; a kernel tells the fastest of a few runs in each round.
const ROUNDS: usize = 5;

fn main() -> Outcome {
    // Each as its target has it by default, vectors of 128 bits included: SSE2 there, `simd128` here.
    let native = peers::compiled("kernels/kernels.c", &["-O3"], "kernels")?;
    let guest = peers::compiled("kernels/kernels.c", &["-O3", "--target=wasm32-wasi", "-msimd128"], "kernels.wasm")?;
    let project = Project::wasm("services: { job: { image: ./kernels.wasm } }");
    fs::copy(guest, project.folder().join("kernels.wasm"))?;

    let mut figures: BTreeMap<String, (Figure, Vec<f64>)> = BTreeMap::new();
    for round in 0..=ROUNDS {
        project.up();
        project.becomes("job", "exited");
        let ours = times(&project.logs("job"));
        project.run(&["down"]).well();
        let output = Command::new(&native).output()?;
        let theirs = times(&String::from_utf8_lossy(&output.stdout));
        // The first round warms the caches.
        for (name, ours) in ours.into_iter().filter(|_| round > 0) {
            let theirs = *theirs.get(&name).ok_or("the native program has no such kernel")?;
            let (figure, ratios) = figures
                .entry(name.clone())
                .or_insert_with(|| (Figure::new(format!("kernel, {name}"), "native"), Vec::new()));
            figure.take(ours, theirs);
            ratios.push(theirs.as_secs_f64() / ours.as_secs_f64());
        }
    }
    let mut logarithms = 0.0;
    for (figure, ratios) in figures.values() {
        figure.print("reported");
        logarithms += median(ratios.iter().copied()).ln();
    }
    let mean = (logarithms / figures.len() as f64).exp();
    let line = format!("{} kernels, geometric mean: {:.0} % of native speed; aim: 80 %\n", figures.len(), mean * 100.0);
    Ok(io::stdout().write_all(line.as_bytes())?)
}

fn times(text: &str) -> BTreeMap<String, Duration> {
    let parted = text.lines().filter_map(|line| line.split_once(' '));
    parted.filter_map(|(name, nanos)| Some((name.to_owned(), Duration::from_nanos(nanos.parse().ok()?)))).collect()
}
