//! Files that people change while a project runs: which they are, and what a change asks for.
//!
//! `rules.rs` is pure: a project's `develop.watch`, and for Wasm services their modules, without being asked. `files.rs` turns
//! the system's notices into [`Batch`]es: what changed within a moment, by service. What is done about them is the
//! caller's: it has the session that commands go to. Knows nothing of engines and supervisors.

mod files;
pub mod rules;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use files::{Watch, WatchError};
pub use rules::{Action, Hook, Rule, Then, rules};

use crate::model::ServiceName;

/// What changed within a moment: paths by the number of the rule they fall under.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// In the order of rules, and of paths.
    pub changes: BTreeMap<usize, Vec<PathBuf>>,
    /// The system lost count: whatever a rule covers may have changed.
    pub incomplete: bool,
}

impl Batch {
    /// A change, once.
    fn add(&mut self, rule: usize, path: &Path) {
        let paths = self.changes.entry(rule).or_default();
        if !paths.iter().any(|known| known == path) {
            paths.push(path.to_owned());
        }
    }

    /// Takes in what changed after it.
    pub fn absorb(&mut self, later: Self) {
        self.incomplete |= later.incomplete;
        for (rule, paths) in later.changes {
            paths.iter().for_each(|path| self.add(rule, path));
        }
    }

    /// The services something is to be done for, with the numbers of their rules.
    pub fn services(&self, rules: &[Rule]) -> BTreeMap<ServiceName, Vec<usize>> {
        let mut services: BTreeMap<ServiceName, Vec<usize>> = BTreeMap::new();
        for (number, rule) in rules.iter().enumerate() {
            if self.incomplete || self.changes.contains_key(&number) {
                services.entry(rule.service.clone()).or_default().push(number);
            }
        }
        services
    }
}
