//! Ports a service publishes or exposes (compose specification, `ports` and `expose`).

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Stream.
    #[default]
    Tcp,
    /// Datagram.
    Udp,
    /// SCTP: passed to the engine, unknown to Wasm services.
    Sctp,
}

impl Protocol {
    /// The one of this name, in lower case.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            "sctp" => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// One published port, in long form: ranges in the file became one entry a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Port inside the container.
    pub target: u16,
    /// Port or range on the host as written (`8080`, `8000-8010`); absent means a free one.
    pub published: Option<HostPort>,
    /// Address on the host; absent means all.
    pub host_ip: Option<IpAddr>,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// A host port, or a range from which the first free one is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// First port.
    pub start: u16,
    /// Last port, inclusive; equals `start` for a single port.
    pub end: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.start == self.end { write!(f, "{}", self.start) } else { write!(f, "{}-{}", self.start, self.end) }
    }
}

/// An entry of `expose`, or a port an image declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExposedPort {
    /// Port inside the container.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

impl ExposedPort {
    /// Reads `80/tcp` or `80`, as images and engines write it.
    pub fn read(text: &str) -> Option<Self> {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        Some(Self { port: port.parse().ok()?, protocol: Protocol::named(protocol)? })
    }
}

impl fmt::Display for ExposedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}
