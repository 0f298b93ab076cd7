//! Pure: may this guest connect there? One function decides, for every way out; nothing else in the crate does.
//!
//! [`decide`] looks at the *resolved* endpoint, in this order; the first line that fits decides:
//!
//! 1. Loopback, the unspecified address, or one of its own addresses: the instance itself, never the host.
//! 2. What is out of the guest's own [`Bounds`], where it has some: refused, whatever is granted.
//! 3. An endpoint that an instance on a shared network has (by directory entry, not by subnet: the bridge's gateway is
//!    the host, and an external network holds other projects): allowed.
//! 4. The host, where `extra_hosts` names it by `host-gateway`: allowed.
//! 5. An endpoint whose datagram came to this very socket a moment ago: answered, whoever it is, as a connection that
//!    was accepted can be written to; never a link-local one, for senders of datagrams can be forged.
//! 6. All networks of the instance are `internal: true`: refused, whatever is granted.
//! 7. An entry of `x-wasm.egress`:
//!    - an address or a range (`10.1.2.3:5432`, `10.0.0.0/8`, `[fd00::1]:443`) allows what it names, private or not;
//!    - a name (`api.example.com:443`, `*.example.com`) allows the addresses that this name resolved to *for this
//!      guest*, and `*` (also `*:443`) any address; neither ever allows special ones (loopback, link-local and with it
//!      cloud metadata, private ranges, …): a name that resolves to such an address is somebody's trick or mistake.
//! 8. Else refused, with what was asked for, why not, and the line that would grant it.
//!
//! An entry without a port allows every port. Names compare without case; `*.example.com` does not include `example.com`.

mod bounds;
mod pattern;
mod special;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

pub use bounds::Bounds;
pub use pattern::{BadPattern, Pattern};
use special::Special;
pub use special::special;

/// What a guest may reach, apart from its neighbours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Every network it is on is `internal: true`; also where it is on none.
    pub internal: bool,
    /// `extra_hosts` names the host by `host-gateway`.
    pub host: bool,
    /// `x-wasm.egress`.
    pub egress: Vec<Pattern>,
    /// What it reaches at most, whatever else is here.
    pub bounds: Option<Bounds>,
}

/// An endpoint, with what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Where.
    pub address: SocketAddr,
    /// Names that resolved to this address for this guest.
    pub names: Vec<String>,
    /// Whose address it is.
    pub owner: Owner,
}

/// Whose address a destination is, by directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The instance itself.
    Itself,
    /// An instance that shares a network with it.
    Neighbour,
    /// The host, by the address that stands for it.
    Host,
    /// Whoever sent the datagram that is answered.
    Caller,
    /// None of these.
    Outside,
}

/// What becomes of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// To a listener of the instance itself.
    Itself,
    /// To an instance on a shared network.
    Neighbour,
    /// To the host's own services.
    Host,
    /// Back to whoever sent a datagram, the way it came.
    Answer,
    /// To the world outside.
    Egress,
    /// Nowhere.
    Refused(Refused),
}

/// Something the policy refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What was asked for, e.g. `connect to 169.254.169.254:80`.
    pub what: String,
    /// Why it was refused.
    pub why: String,
    /// The line to add to the file, where there is one.
    pub grant: Option<String>,
}

/// Decides about a connection; the order is in the module's text.
pub fn decide(reach: &Reach, destination: &Destination) -> Decision {
    let address = destination.address.ip().to_canonical();
    let port = destination.address.port();
    if destination.owner == Owner::Itself || address.is_loopback() || address.is_unspecified() {
        return Decision::Itself;
    }
    if let Some(bounds) = reach.bounds.as_ref().filter(|_| destination.owner != Owner::Caller)
        && let Err(refused) = bounds.check(destination)
    {
        return Decision::Refused(refused);
    }
    match destination.owner {
        Owner::Itself | Owner::Outside => {}
        Owner::Caller if special(address) == Some(Special::LinkLocal) => {}
        Owner::Caller => return Decision::Answer,
        Owner::Neighbour => return Decision::Neighbour,
        Owner::Host if reach.host => return Decision::Host,
        Owner::Host => {
            return refused(destination, HOST_NOT_GRANTED, Some(HOST_GRANT.to_owned()));
        }
    }
    if reach.internal {
        return refused(destination, "its networks are internal, so nothing outside them is reachable", None);
    }
    let kind = special(address);
    let names = &destination.names;
    let granted = reach.egress.iter().any(|pattern| match kind {
        Some(_) => pattern.names_address(address, port),
        None => pattern.names_address(address, port) || pattern.covers(names.iter().map(String::as_str), port),
    });
    if granted {
        return Decision::Egress;
    }
    match (kind, names.first()) {
        (Some(kind), Some(name)) => {
            let why = format!("`{name}` resolved to {}", kind.phrase());
            refused(destination, &why, Some(grant(&destination.address.to_string())))
        }
        (Some(kind), None) => {
            let why = format!("it is {}, which `x-wasm.egress` does not name", kind.phrase());
            refused(destination, &why, Some(grant(&destination.address.to_string())))
        }
        (None, Some(name)) => refused(destination, NOT_GRANTED, Some(grant(&format!("{name}:{port}")))),
        (None, None) => refused(destination, NOT_GRANTED, Some(grant(&destination.address.to_string()))),
    }
}

/// The name by which files reach the host.
const HOST_NAME: &str = "host.docker.internal";
const HOST_NOT_GRANTED: &str = "the file does not grant the host";
const HOST_GRANT: &str = "extra_hosts: [\"host.docker.internal:host-gateway\"]";
const NOT_GRANTED: &str = "`x-wasm.egress` does not allow it";

/// Whether an outside name may be looked up at all: where some address behind it could be allowed. `port` is known where
/// the name comes with a request. `Err` is the refusal.
pub fn decide_lookup(reach: &Reach, name: &str, port: Option<u16>) -> Result<(), Refused> {
    let what = match port {
        Some(port) => format!("connect to {name}:{port}"),
        None => format!("look up {name}"),
    };
    if name.eq_ignore_ascii_case(HOST_NAME) {
        // Granted, `extra_hosts` would have answered it.
        return Err(Refused { what, why: HOST_NOT_GRANTED.to_owned(), grant: Some(HOST_GRANT.to_owned()) });
    }
    if let Some(bounds) = &reach.bounds {
        bounds.check_lookup(name, port, &what)?;
    }
    if reach.internal {
        let why = "its networks are internal, so nothing outside them is reachable".to_owned();
        return Err(Refused { what, why, grant: None });
    }
    let covered = |pattern: &Pattern| match port {
        Some(port) => pattern.covers(std::iter::once(name), port),
        None => pattern.mentions(name),
    };
    if reach.egress.iter().any(covered) {
        return Ok(());
    }
    let wanted = port.map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
    Err(Refused { what, why: NOT_GRANTED.to_owned(), grant: Some(grant(&wanted)) })
}

fn grant(target: &str) -> String {
    format!("x-wasm: {{ egress: [\"{target}\"] }}")
}

fn refused(destination: &Destination, why: &str, grant: Option<String>) -> Decision {
    Decision::Refused(Refused { what: asked(destination), why: why.to_owned(), grant })
}

/// What was asked for, for people.
fn asked(destination: &Destination) -> String {
    let endpoint = destination.address;
    match (destination.names.first(), special(endpoint.ip())) {
        (Some(name), None) => format!("connect to {name}:{}", endpoint.port()),
        (Some(name), Some(_)) => format!("connect to {endpoint} ({name})"),
        (None, _) => format!("connect to {endpoint}"),
    }
}

/// Whether an address is one that a listener of this instance can have.
pub fn may_listen(own: &[IpAddr], address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_unspecified() || address.is_loopback() || own.contains(&address)
}
