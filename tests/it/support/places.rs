//! Where things are. The paths known at compile time can be given anew, so that the same test binary also runs for
//! another user who cannot read the source tree (`.ci/run` does that).

use std::env;
use std::path::PathBuf;

/// The repository: samples and guests.
pub fn repository() -> PathBuf {
    given("WCOMPOSE_TEST_REPOSITORY").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into())
}

/// The binary under test.
pub fn wcompose() -> PathBuf {
    given("WCOMPOSE_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_wcompose").into())
}

/// Everything is built already: run no compiler.
pub fn prebuilt() -> bool {
    env::var_os("WCOMPOSE_TEST_PREBUILT").is_some()
}

/// What tests may leave for people and for the next run: artifacts of failures, compiled guests, the list of skips.
pub fn scratch() -> PathBuf {
    given("WCOMPOSE_TEST_SCRATCH").unwrap_or_else(|| repository().join("target"))
}

fn given(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from)
}
