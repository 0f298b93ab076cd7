//! What a stack remembers: which outside names resolved to which addresses, and what was refused already. Bounded, since
//! a guest decides what it asks for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use crate::net::policy::Refused;

/// Addresses whose names are remembered; the oldest is forgotten first.
const ADDRESSES: usize = 1024;
/// Names an address is remembered by.
const NAMES: usize = 16;
/// Targets whose refusal is told.
const TOLD: usize = 256;

#[derive(Debug)]
pub(super) struct Memory {
    refusals: mpsc::Sender<Refused>,
    turn: AtomicUsize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    names: BTreeMap<IpAddr, VecDeque<String>>,
    order: VecDeque<IpAddr>,
    told: BTreeSet<String>,
}

impl Memory {
    pub(super) fn new(refusals: mpsc::Sender<Refused>) -> Self {
        Self { refusals, turn: AtomicUsize::new(0), known: Mutex::default() }
    }

    /// Counts up.
    pub(super) fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// Reports a refusal, once for each target; after many targets, or while the reader is behind, no more.
    pub(super) fn tell(&self, refused: &Refused) {
        let mut known = self.known();
        if known.told.len() < TOLD
            && !known.told.contains(&refused.what)
            && self.refusals.try_send(refused.clone()).is_ok()
        {
            known.told.insert(refused.what.clone());
        }
    }

    /// Remembers what a name resolved to.
    pub(super) fn resolved(&self, name: &str, addresses: &[IpAddr]) {
        let mut known = self.known();
        for address in addresses {
            if !known.names.contains_key(address) {
                known.order.push_back(*address);
            }
            let names = known.names.entry(*address).or_default();
            names.retain(|earlier| earlier != name);
            names.push_front(name.to_owned());
            names.truncate(NAMES);
        }
        while known.order.len() > ADDRESSES {
            if let Some(oldest) = known.order.pop_front() {
                known.names.remove(&oldest);
            }
        }
    }

    /// The names that resolved to an address, the latest first.
    pub(super) fn names(&self, address: IpAddr) -> Vec<String> {
        self.known().names.get(&address).into_iter().flatten().cloned().collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_each_target_once() {
        let (sender, mut refusals) = mpsc::channel(8);
        let memory = Memory::new(sender);
        for what in ["a", "b", "a"] {
            memory.tell(&Refused { what: what.to_owned(), why: String::new(), grant: None });
        }
        assert_eq!(refusals.try_recv().expect("a refusal").what, "a");
        assert_eq!(refusals.try_recv().expect("a refusal").what, "b");
        assert!(refusals.try_recv().is_err());
    }

    #[test]
    fn forgets_the_oldest_addresses() {
        let memory = Memory::new(mpsc::channel(1).0);
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        for number in 0..=ADDRESSES as u32 {
            memory.resolved("name", &[address(number)]);
        }
        assert!(memory.names(address(0)).is_empty());
        assert_eq!(memory.names(address(1)), ["name"]);
    }
}
