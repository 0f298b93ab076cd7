//! All instances of a project, in start order. Whatever is borrowed to be changed is remembered until views are told, so that one
//! fact about one of a thousand instances costs no look at the others.

use std::collections::BTreeSet;
use std::ops::Deref;

use indexmap::IndexMap;

use crate::model::InstanceName;
use crate::supervisor::instance::Instance;

/// Instances by name.
pub(super) type Instances = IndexMap<InstanceName, Instance, foldhash::fast::RandomState>;

/// All instances. Reads go to the map itself.
#[derive(Debug, Default)]
pub(super) struct Roster {
    all: Instances,
    /// Indices of those that may have changed.
    touched: BTreeSet<usize>,
}

impl Deref for Roster {
    type Target = Instances;

    fn deref(&self) -> &Instances {
        &self.all
    }
}

impl Roster {
    /// One, to be changed.
    pub(super) fn get_mut(&mut self, name: &InstanceName) -> Option<&mut Instance> {
        let (index, _, instance) = self.all.get_full_mut(name)?;
        self.touched.insert(index);
        Some(instance)
    }

    /// The one at an index, to be changed.
    pub(super) fn at_mut(&mut self, index: usize) -> &mut Instance {
        self.touched.insert(index);
        &mut self.all[index]
    }

    /// All of them, to be changed.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Instance> {
        self.touched.extend(0..self.all.len());
        self.all.values_mut()
    }

    /// One that is made when it is not there, to be changed.
    pub(super) fn get_or_insert_with(&mut self, name: &InstanceName, make: impl FnOnce() -> Instance) -> &mut Instance {
        let entry = self.all.entry(name.clone());
        self.touched.insert(entry.index());
        entry.or_insert_with(make)
    }

    /// Takes one away; whether it was there.
    pub(super) fn remove(&mut self, name: &InstanceName) -> bool {
        let removed = self.all.shift_remove(name).is_some();
        if removed {
            self.touched = (0..self.all.len()).collect();
        }
        removed
    }

    /// Puts these first, in their order, and then the rest.
    pub(super) fn order(&mut self, first: &[InstanceName]) {
        let mut rest: IndexMap<_, _, foldhash::fast::RandomState> =
            std::mem::take(&mut self.all).into_iter().map(|(name, instance)| (name, Some(instance))).collect();
        for name in first {
            if let Some((name, instance)) = rest.get_full_mut(name).and_then(|(_, name, one)| Some((name, one.take()?)))
            {
                self.all.insert(name.clone(), instance);
            }
        }
        self.all.extend(rest.into_iter().filter_map(|(name, instance)| Some((name, instance?))));
        self.touched = (0..self.all.len()).collect();
    }

    /// The one at an index, to note what views are told of it: that is no change.
    pub(super) fn shown_mut(&mut self, index: usize) -> &mut Instance {
        &mut self.all[index]
    }

    /// Those that may have changed since this was last asked, by index.
    pub(super) fn take_touched(&mut self) -> BTreeSet<usize> {
        std::mem::take(&mut self.touched)
    }
}
