//! The real Docker engine, for tests: required with `WCOMPOSE_REQUIRE_ENGINE=1`, skipped loudly where none answers.

use std::process::{Command, Output};
use std::sync::Arc;

use super::docker::Docker;
use crate::net::directory::Directory;

/// Connects to it; nothing when none answers and none is required.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
pub async fn connect(directory: Arc<Directory>) -> Option<Arc<Docker>> {
    match Docker::connect(None, directory).await {
        Ok(docker) => Some(docker),
        Err(error) => {
            assert!(std::env::var_os("WCOMPOSE_REQUIRE_ENGINE").is_none(), "an engine is required: {error}");
            eprintln!("SKIPPED, no engine: {error}");
            None
        }
    }
}

/// The engine's own command line: a second opinion.
pub fn docker(arguments: &[&str]) -> Output {
    Command::new("docker").args(arguments).output().expect("the docker command line is there where an engine is")
}

/// Removes everything that carries a project's label.
pub fn sweep(project: &str) {
    let label = format!("label=com.docker.compose.project={project}");
    for (list, remove) in [
        (vec!["ps", "-aq", "--filter", &label], vec!["rm", "-fv"]),
        (vec!["network", "ls", "-q", "--filter", &label], vec!["network", "rm"]),
        (vec!["volume", "ls", "-q", "--filter", &label], vec!["volume", "rm"]),
    ] {
        let found = String::from_utf8_lossy(&docker(&list).stdout).into_owned();
        let ids: Vec<&str> = found.split_whitespace().collect();
        if !ids.is_empty() {
            docker(&[remove, ids].concat());
        }
    }
}
