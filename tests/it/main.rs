//! All integration tests, in one binary: linking Wasmtime eight times costs minutes.
//!
//! Scenarios run the built `wcompose` as people do; each states one obligation. Those that need a Docker engine skip
//! loudly where none answers, and fail instead under `WCOMPOSE_REQUIRE_ENGINE=1`.

mod apart;
mod attached;
mod bad_input;
mod building;
mod cache;
mod change;
mod cli;
mod copies;
mod corpus;
mod datagrams;
mod edge;
mod escape;
mod extras;
mod hands;
mod https;
mod languages;
mod layers;
mod lifecycle;
mod limits;
mod live;
mod network;
mod one_off;
mod orders;
mod remote;
mod samples;
mod sources;
mod spin;
mod support;
mod terminal;
mod volumes;
mod waiting;
mod wasi3;
mod wasm;
mod watching;
