//! Pure: what a guest's maker says it reaches (`allowed_outbound_hosts` of a Spin application). It bounds what the file
//! allows, its own networks included, and never adds to it: whoever makes an image grants nothing.

use super::{BadPattern, Destination, Pattern, Refused, asked};

/// What a guest reaches at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    whose: String,
    hosts: Vec<Pattern>,
}

impl Bounds {
    /// The bounds of a component, with targets in the form of `x-wasm.egress`.
    pub fn new(component: &str, hosts: &[String]) -> Result<Self, BadPattern> {
        let hosts = hosts.iter().map(|host| host.parse()).collect::<Result<_, _>>()?;
        Ok(Self { whose: component.to_owned(), hosts })
    }

    /// Whether an endpoint is within them, by its address or any of its names.
    pub fn check(&self, destination: &Destination) -> Result<(), Refused> {
        let (address, port) = (destination.address.ip().to_canonical(), destination.address.port());
        let names = || destination.names.iter().map(String::as_str);
        if self.hosts.iter().any(|host| host.names_address(address, port) || host.covers(names(), port)) {
            return Ok(());
        }
        // A service's own name is the shortest of those its containers have.
        let target = match destination.names.iter().min_by_key(|name| name.len()) {
            Some(name) => format!("{name}:{port}"),
            None => destination.address.to_string(),
        };
        Err(self.refused(asked(destination), &target))
    }

    /// Whether a name may be looked up.
    pub fn check_lookup(&self, name: &str, port: Option<u16>, what: &str) -> Result<(), Refused> {
        let within = |host: &Pattern| match port {
            Some(port) => host.covers(std::iter::once(name), port),
            None => host.mentions(name),
        };
        if self.hosts.iter().any(within) {
            return Ok(());
        }
        let port = port.map_or_else(|| "*".to_owned(), |port| port.to_string());
        Err(self.refused(what.to_owned(), &format!("{name}:{port}")))
    }

    fn refused(&self, what: String, target: &str) -> Refused {
        let Self { whose, .. } = self;
        Refused {
            what,
            why: format!("the manifest of the Spin application does not list it for `{whose}`"),
            grant: Some(format!("[component.{whose}] allowed_outbound_hosts = [\"*://{target}\"]")),
        }
    }
}
