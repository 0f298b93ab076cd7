//! stub
use super::args::Config; use super::outcome::Outcome; use super::settings::Settings;
/// stub
pub fn config(_: &Settings, _: &Config) -> Outcome { todo!() }
