//! Entries of `x-wasm.egress`: `host:port`, `*.example.com:443`, an address or a range with or without a port, `*`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An entry of `x-wasm.egress`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    host: Host,
    /// Absent: every port.
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// `*`
    Any,
    /// `api.example.com`, in lower case.
    Name(String),
    /// `*.example.com`, kept as `.example.com`.
    Below(String),
    /// `10.0.0.0/8`, or one address with its full length.
    Range(IpAddr, u8),
}

/// An entry that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{entry}` is no egress target: {reason}")]
pub struct BadPattern {
    /// As written.
    pub entry: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Pattern {
    /// Whether it names this address itself, as an address or a range.
    pub fn names_address(&self, address: IpAddr, port: u16) -> bool {
        match self.host {
            Host::Range(network, length) => self.allows(port) && contains(network, length, address),
            Host::Any | Host::Name(_) | Host::Below(_) => false,
        }
    }

    /// Whether it allows an address that is not special and that these names resolved to.
    pub fn covers<'a>(&self, mut names: impl Iterator<Item = &'a str>, port: u16) -> bool {
        self.allows(port) && (self.host == Host::Any || names.any(|name| self.mentions(name)))
    }

    /// Whether it is about this name, on whatever port.
    pub fn mentions(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        match &self.host {
            Host::Any => true,
            Host::Name(known) => known.eq_ignore_ascii_case(name),
            Host::Below(suffix) => {
                name.len() > suffix.len()
                    && name.get(name.len() - suffix.len()..).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
            }
            Host::Range(..) => false,
        }
    }

    fn allows(&self, port: u16) -> bool {
        self.port.is_none_or(|allowed| allowed == port)
    }
}

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(entry: &str) -> Result<Self, BadPattern> {
        let bad = |reason| BadPattern { entry: entry.to_owned(), reason };
        if entry.contains("://") {
            return Err(bad("write `host:port`, without a scheme"));
        }
        let (host, port) = split(entry).map_err(bad)?;
        let port = match port {
            None | Some("*") => None,
            Some(port) => Some(port.parse().ok().filter(|port| *port != 0).ok_or(bad("the port is not a number"))?),
        };
        Ok(Self { host: parse_host(host).map_err(bad)?, port })
    }
}

/// Host and port. An IPv6 address with a port stands in brackets.
fn split(entry: &str) -> Result<(&str, Option<&str>), &'static str> {
    if let Some(rest) = entry.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("a `]` is missing")?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err("only a port can follow `]`"),
        };
    }
    match entry.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Ok((entry, None)),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((entry, None)),
    }
}

fn parse_host(host: &str) -> Result<Host, &'static str> {
    if host == "*" {
        return Ok(Host::Any);
    }
    if let Some((network, length)) = host.split_once('/') {
        let network: IpAddr = network.parse().map_err(|_| "the part before `/` is not an address")?;
        let length = length.parse().ok().filter(|length| *length <= width(network));
        return Ok(Host::Range(network, length.ok_or("the part behind `/` is not a prefix length")?));
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        let address = address.to_canonical();
        return Ok(Host::Range(address, width(address)));
    }
    let name = host.strip_prefix("*.").unwrap_or(host);
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let sound = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    match name.split('.').all(sound) {
        false if name.contains('*') => Err("`*` stands alone or for the first label only"),
        false => Err("it is not a host name, an address, a range or `*`"),
        true if host.starts_with("*.") => Ok(Host::Below(format!(".{name}"))),
        true => Ok(Host::Name(name)),
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn contains(network: IpAddr, length: u8, address: IpAddr) -> bool {
    let shared = |left: u128, right: u128, width: u8| length == 0 || (left ^ right) >> (width - length) == 0;
    match (network, address.to_canonical()) {
        (IpAddr::V4(network), IpAddr::V4(address)) => shared(network.to_bits().into(), address.to_bits().into(), 32),
        (IpAddr::V6(network), IpAddr::V6(address)) => shared(network.to_bits(), address.to_bits(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// As it can be written.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Any => f.write_str("*")?,
            Host::Name(name) => f.write_str(name)?,
            Host::Below(suffix) => write!(f, "*{suffix}")?,
            Host::Range(IpAddr::V6(network), length) if self.port.is_some() => write!(f, "[{network}/{length}]")?,
            Host::Range(network, length) => write!(f, "{network}/{length}")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}
