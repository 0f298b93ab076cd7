//! Guests from Python: what `componentize-py`, out of the package index, makes of the sources in `tests/it/guests/python`.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::SystemTime;

use serde_json::Value;

use super::places;

/// The tool, as the package index has it.
const TOOL: &str = "componentize-py==0.25.1";

/// A guest from Python, a component of 18 MB: the interpreter is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Python {
    /// Of the world `wasi:cli/command`.
    Command,
    /// Of the world `wasi:http/proxy`.
    Handler,
}

impl Python {
    /// Where it lies; made when it is asked for the first time, and when its source is newer. The tool is installed before,
    /// into an environment of its own. An error says what is missing.
    pub fn path(self) -> Result<PathBuf, Box<dyn Error>> {
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (name, world) = match self {
            Self::Command => ("command", "wasi:cli/command"),
            Self::Handler => ("handler", "wasi:http/proxy"),
        };
        let target = places::repository().join("target/guests/it/languages/release");
        let component = target.join(format!("python-{name}.wasm"));
        if places::prebuilt() {
            return Ok(component);
        }
        let source = places::repository().join("tests/it/guests/python").join(name).join("app.py");
        let tool = tool()?;
        let of = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
        let made = of(&component).unwrap_or(SystemTime::UNIX_EPOCH);
        if made < of(&source)? || made < of(&tool)? {
            // Elsewhere than among the sources: compiled files are left beside what is imported.
            let folder = target.with_file_name("python").join(name);
            fs::create_dir_all(&target)?;
            fs::create_dir_all(&folder)?;
            fs::copy(source, folder.join("app.py"))?;
            let (interfaces, version) = interfaces()?;
            // Under its own name only when it is whole.
            let draft = target.join(format!("python-{name}.{}", std::process::id()));
            let mut build = Command::new(tool);
            build.current_dir(folder).arg("-d").arg(interfaces).args(["-w", &format!("{world}@{version}")]);
            run(build.args(["componentize", "app", "-o"]).arg(&draft))?;
            fs::rename(draft, &component)?;
        }
        Ok(component)
    }
}

/// The tool, installed once for each version.
fn tool() -> Result<PathBuf, Box<dyn Error>> {
    let folder = places::repository().join("target/tools").join(TOOL.replace("==", "-"));
    let tool = folder.join("bin/componentize-py");
    if !tool.is_file() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", "--disable-pip-version-check", TOOL]))?;
    }
    Ok(tool)
}

/// The interfaces of WASI 0.2 and their version, as the crate of the host has them.
fn interfaces() -> Result<(PathBuf, String), Box<dyn Error>> {
    let mut cargo = Command::new(env!("CARGO"));
    // What other systems need alone was never fetched.
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    cargo.args(["metadata", "--format-version", "1", "--offline", "--filter-platform", &host]);
    cargo.current_dir(places::repository());
    let metadata: Value = serde_json::from_slice(&cargo.output()?.stdout)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let host = packages
        .filter(|package| package["name"] == "wasmtime-wasi-http")
        .find_map(|package| Some(Path::new(package["manifest_path"].as_str()?).parent()?.join("wit")));
    let folder = host.ok_or("the sources of wasmtime-wasi-http are not there")?;
    let text = fs::read_to_string(folder.join("deps/http.wit"))?;
    let version = text.lines().find_map(|line| line.strip_prefix("package wasi:http@")?.strip_suffix(';'));
    let version = version.ok_or("`http.wit` names no version")?.to_owned();
    Ok((folder, version))
}

fn run(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&said).trim_end()).into())
}
