//! What went over one instance's network, counted where its connections read and write.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counters of one instance's network.
#[derive(Debug, Default)]
pub struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
    refused: AtomicU64,
}

impl Traffic {
    /// Bytes that came.
    pub fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    /// Bytes that went.
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Times something was refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// So many bytes came.
    pub fn count_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Relaxed);
    }

    /// So many bytes went.
    pub fn count_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Relaxed);
    }

    /// Something was refused.
    pub fn count_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }
}
