//! Pure: where each instance lives on the network, and which names, ports and variables it sees.

/// Where an instance's sockets are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// In the network namespace of an agent container: it shares a network with Linux services, or uses an external one.
    Agent,
    /// Inside this process: all its networks are of Wasm services alone.
    InProcess,
}
