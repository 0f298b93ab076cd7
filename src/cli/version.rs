//! `wcompose version`.

use std::process::ExitCode;

use super::args::Version;
use super::outcome::{Failure, Outcome};
use super::output::out;

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Prints the version in the form asked for.
pub fn version(args: &Version) -> Outcome {
    match (args.short, args.format.as_str()) {
        (true, _) => out(VERSION),
        (false, "json") => out(&serde_json::json!({ "version": VERSION }).to_string()),
        (false, "pretty") => out(&format!("wcompose version {VERSION}")),
        (false, other) => {
            return Err(Failure::new(format!("unknown format `{other}`"), ["use `pretty` or `json`".to_owned()]));
        }
    }
    Ok(ExitCode::SUCCESS)
}
