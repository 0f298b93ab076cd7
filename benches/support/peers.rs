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

/// A `wasi:http` component of Python, 18 MB: made by componentize-py, once.
pub fn python() -> Result<PathBuf, Box<dyn Error>> {
    let (folder, component) = (folder().join("python"), folder().join("python/app.wasm"));
    if !component.exists() {
        std::fs::create_dir_all(&folder)?;
        run(Command::new("python3").args(["-m", "venv"]).arg(folder.join("venv")))?;
        run(Command::new(folder.join("venv/bin/pip")).args(["install", "--quiet", "componentize-py==0.25.1"]))?;
        std::fs::write(folder.join("app.py"), PYTHON)?;
        let tool = folder.join("venv/bin/componentize-py");
        let mut build = Command::new(tool);
        build.current_dir(&folder).arg("-d").arg(wit()?).args(["-w", "wasi:http/proxy@0.2.12", "componentize", "app"]);
        run(build.args(["-o", "app.wasm"]))?;
    }
    Ok(component)
}

/// The interfaces of `wasi:http`, as the crate of the host has them.
fn wit() -> Result<PathBuf, Box<dyn Error>> {
    let output = Command::new(env!("CARGO")).args(["metadata", "--format-version", "1", "--offline"]).output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let host = packages
        .filter(|package| package["name"] == "wasmtime-wasi-http")
        .find_map(|package| Some(Path::new(package["manifest_path"].as_str()?).parent()?.join("wit")));
    host.ok_or_else(|| "the sources of wasmtime-wasi-http are not there".into())
}

/// Answers every request with three bytes.
const PYTHON: &str = r#"from wit_world import exports
from wit_world.imports.types import Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam
from componentize_py_types import Ok


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, out: ResponseOutparam):
        response = OutgoingResponse(Fields.from_list([]))
        body = response.body()
        ResponseOutparam.set(out, Ok(response))
        with body.write() as stream:
            stream.blocking_write_and_flush(b"hi\n")
        OutgoingBody.finish(body, None)
"#;

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
