//! What the dashboard knows.

use jiff::Timestamp;

use crate::event::{InstanceView, Snapshot};
use crate::model::InstanceName;
use crate::view::style::Palette;

/// Everything that [`super::draw()`] draws.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// The project.
    pub(super) snapshot: Snapshot,
    /// The row the cursor is on; it stays on its instance when rows come and go.
    pub(super) selected: Option<InstanceName>,
    /// Why nothing new will come.
    pub(super) lost: Option<String>,
    /// The latest warning.
    pub(super) warning: Option<String>,
    /// Now.
    pub(super) now: Timestamp,
    /// Colours.
    pub(super) palette: Palette,
    dirty: bool,
}

impl State {
    /// The state at the beginning.
    pub fn new(snapshot: Snapshot, palette: Palette, now: Timestamp) -> Self {
        let selected = snapshot.instances.keys().next().cloned();
        Self { snapshot, selected, lost: None, warning: None, now, palette, dirty: true }
    }

    /// Whether something changed since the last frame.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// A frame shows all of it.
    pub fn drawn(&mut self) {
        self.dirty = false;
    }

    pub(super) fn touch(&mut self) {
        self.dirty = true;
    }

    pub(super) fn instances(&self) -> impl ExactSizeIterator<Item = &InstanceView> {
        self.snapshot.instances.values()
    }

    /// Where the selected instance stands.
    pub(super) fn cursor(&self) -> Option<usize> {
        self.selected.as_ref().and_then(|name| self.snapshot.instances.get_index_of(name))
    }

    /// The selected instance.
    pub(super) fn selection(&self) -> Option<&InstanceView> {
        self.selected.as_ref().and_then(|name| self.snapshot.instances.get(name))
    }

    /// Puts the cursor on the n-th row, or the last one.
    pub(super) fn select(&mut self, row: usize) {
        let last = self.snapshot.instances.len().saturating_sub(1);
        self.selected = self.snapshot.instances.get_index(row.min(last)).map(|(name, _)| name.clone());
    }
}
