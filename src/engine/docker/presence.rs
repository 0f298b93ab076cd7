//! Which container stands behind an instance in the directory, so that the end of an old one does not take away a new one's names.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use bollard::models::ContainerInspectResponse;

use crate::model::InstanceName;
use crate::net::directory::{Directory, Presence};
use crate::plan::unit::{Addresses, InstanceSpec};

/// Writes containers into the directory.
#[derive(Debug)]
pub(super) struct Presences {
    directory: Arc<Directory>,
    holders: Mutex<BTreeMap<InstanceName, String>>,
}

impl Presences {
    pub(super) fn new(directory: Arc<Directory>) -> Arc<Self> {
        Arc::new(Self { directory, holders: Mutex::default() })
    }

    /// Enters the container `id` as the instance of `spec`.
    pub(super) fn enter(&self, spec: &InstanceSpec, id: &str, addresses: &Addresses) {
        let presences = spec
            .networks
            .iter()
            .filter_map(|join| {
                let addresses = addresses.get(&join.name)?.clone();
                let mut names = join.aliases.clone();
                // The engine answers to the short id as well.
                names.extend(id.get(..12).map(str::to_owned));
                Some(Presence { network: join.name.clone(), names, addresses })
            })
            .collect();
        let mut holders = self.holders.lock().expect("no panic while it is held");
        holders.insert(spec.name.clone(), id.to_owned());
        self.directory.enter(spec.name.clone(), presences);
    }

    /// Forgets the instance, if it is still this container that stands for it.
    pub(super) fn leave(&self, instance: &InstanceName, id: &str) {
        let mut holders = self.holders.lock().expect("no panic while it is held");
        if holders.get(instance).is_some_and(|holder| holder == id) {
            holders.remove(instance);
            self.directory.leave(instance);
        }
    }
}

/// Addresses of a container, by the engine's network name; empty while it does not run.
pub(super) fn addresses(container: &ContainerInspectResponse) -> Addresses {
    let networks = container.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    networks
        .into_iter()
        .flatten()
        .map(|(name, endpoint)| {
            let known: Vec<IpAddr> = [&endpoint.ip_address, &endpoint.global_ipv6_address]
                .into_iter()
                .flatten()
                .filter_map(|text| text.parse().ok())
                .collect();
            (name.clone(), known)
        })
        .collect()
}
