//! Compiles the agent (`src/net/agent/agent`) into a static executable, which the library embeds.
//!
//! The rustc that cargo uses does it, for the very target cargo builds: no further target, no C library, no crate.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FOLDER: &str = "src/net/agent/agent";
const SOURCE: &str = "src/net/agent/agent/main.rs";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={FOLDER}");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var("OUT_DIR")?).join("agent");
    let system = env::var("CARGO_CFG_TARGET_OS")?;
    let architecture = env::var("CARGO_CFG_TARGET_ARCH")?;
    if system != "linux" || !matches!(architecture.as_str(), "x86_64" | "aarch64") {
        // Wasm-only projects need no agent; one that does fails when it connects, and says so.
        println!(
            "cargo:warning=no agent for {architecture}-{system}: Wasm services cannot share a network with Linux services"
        );
        fs::write(&out, b"")?;
        return Ok(());
    }
    compile(&out)
}

fn compile(out: &Path) -> Result<(), Box<dyn Error>> {
    let target = env::var("TARGET")?;
    let mut rustc = Command::new(env::var_os("RUSTC").ok_or("cargo did not say which rustc it uses")?);
    rustc.args(["--crate-name", "agent", "--crate-type", "bin", "--edition", "2024", SOURCE, "--target", &target]);
    rustc.args([
        "-C",
        "panic=abort",
        "-C",
        "opt-level=z",
        "-C",
        "codegen-units=1",
        "-C",
        "lto=fat",
        "-C",
        "strip=symbols",
    ]);
    rustc.args(["-C", "relocation-model=static", "-C", "overflow-checks=off", "-C", "debug-assertions=off"]);
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-z,norelro"] {
        rustc.arg("-C").arg(format!("link-arg={argument}"));
    }
    if target.contains("musl") {
        // Its own start files would clash with ours.
        rustc.args(["-C", "link-self-contained=no"]);
    }
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={}", linker.display()));
    }
    rustc.arg("-o").arg(out);
    let status = rustc.status()?;
    if status.success() { Ok(()) } else { Err(format!("rustc could not compile {SOURCE}: {status}").into()) }
}
