//! All integration tests, in one binary: linking Wasmtime eight times costs minutes.
