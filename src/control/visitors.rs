//! Who is at a supervisor: how many connections and errands there are now. Knows nothing of what they want.

use tokio::sync::watch;

/// Counts visitors. Cheap to clone: all count the same.
#[derive(Debug, Clone, Default)]
pub struct Visitors(watch::Sender<usize>);

impl Visitors {
    /// One more, until the visit is dropped.
    pub fn enter(&self) -> Visit {
        self.0.send_modify(|count| *count += 1);
        Visit(self.clone())
    }

    /// How many there are, now and from now on.
    pub fn watch(&self) -> watch::Receiver<usize> {
        self.0.subscribe()
    }
}

/// One visitor.
#[derive(Debug)]
pub struct Visit(Visitors);

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}
