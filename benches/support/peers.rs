//! What wcompose is measured against, built once into `target/peers` by the ordinary package clients.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Wasmtime's own command line, of the version this crate is built with.
const WASMTIME: &str = "48.0.8";
/// What `serve` needs of it.
const FEATURES: &str = "run,serve,cranelift,pooling-allocator,parallel-compilation,component-model-async,backtrace";

/// `wasmtime`; takes minutes the first time.
pub fn wasmtime() -> Result<PathBuf, Box<dyn Error>> {
    let binary = folder().join("bin/wasmtime");
    if !binary.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["install", "--quiet", "--locked", "wasmtime-cli", "--version", WASMTIME, "--no-default-features"]);
        run(cargo.args(["--features", FEATURES, "--root"]).arg(folder()))?;
    }
    Ok(binary)
}

/// A C source of `benches/`, compiled by clang 19 with these flags into a file of that name.
pub fn compiled(source: &str, flags: &[&str], name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let (source, to) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("benches").join(source), folder().join(name));
    std::fs::create_dir_all(folder())?;
    run(Command::new("clang-19").args(flags).arg("-o").arg(&to).arg(source))?;
    Ok(to)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers")
}

fn run(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
}
