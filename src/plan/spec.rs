//! Everything an engine needs to run one replica, put together from the project, its images and its wiring.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use super::unit::{AtEnd, InstanceSpec, NetworkJoin};
use super::{Options, digest, label};
use crate::model::{InstanceName, Project, Resolved, Service, ServiceName};
use crate::net::wiring::{self, Place, Resolution, Wiring};

/// What all specs of a plan are made from.
pub(super) struct Specs<'a> {
    pub(super) project: &'a Project,
    pub(super) options: &'a Options,
    pub(super) wiring: Wiring,
    resolution: &'a Resolution,
}

impl<'a> Specs<'a> {
    pub(super) fn new(project: &'a Project, resolution: &'a Resolution, options: &'a Options) -> Self {
        Self { project, options, resolution, wiring: wiring::place(project, resolution) }
    }

    /// Replicas wanted of a service.
    pub(super) fn scale(&self, service: &Service) -> u32 {
        self.options.scale.get(&service.name).copied().unwrap_or(service.scale)
    }

    /// Container name of a replica.
    pub(super) fn container(&self, service: &Service, number: u32) -> String {
        match &service.container_name {
            Some(name) => name.clone(),
            None => {
                let separator = self.project.separator;
                format!("{}{separator}{}{separator}{number}", self.project.name, service.name)
            }
        }
    }

    /// The spec of replica `number`; `container` is its name where it exists already under another.
    pub(super) fn spec(
        &self,
        service: &Service,
        resolved: &Resolved,
        number: u32,
        container: Option<&str>,
    ) -> Arc<InstanceSpec> {
        let name = InstanceName::new(service.name.clone(), number);
        let container = container.map_or_else(|| self.container(service, number), str::to_owned);
        let config_hash = digest::service_hash(&service.document);
        let wasm_hash = match resolved {
            Resolved::Linux { .. } => None,
            Resolved::Wasm(module) => Some(self.wasm_hash(service, &module.digest)),
        };
        Arc::new(InstanceSpec {
            project: self.project.name.clone(),
            service: Arc::new(service.clone()),
            resolved: resolved.clone(),
            place: if resolved.is_wasm() { self.wiring.place(&service.name) } else { Place::InProcess },
            labels: label::of_instance(self.project, service, resolved, &name, (&config_hash, wasm_hash.as_deref())),
            networks: self.joins(service, &container),
            environment: wiring::environment(self.project, self.resolution, service),
            volumes: self.volumes(service),
            egress: self.egress(service),
            at_end: AtEnd::Kept,
            name,
            container,
            config_hash,
            wasm_hash,
        })
    }

    fn joins(&self, service: &Service, container: &str) -> Vec<NetworkJoin> {
        let mut joins: Vec<NetworkJoin> = service
            .networks
            .iter()
            .filter_map(|(key, attachment)| Some((self.project.networks.get(key)?, attachment)))
            .map(|(network, attachment)| NetworkJoin {
                key: network.key.clone(),
                name: network.name.clone(),
                aliases: wiring::aliases(container, &service.name, attachment),
                attachment: attachment.clone(),
                internal: network.internal,
                ipv6: network.enable_ipv6 == Some(true),
                in_process: self.wiring.network_in_process(&network.key),
            })
            .collect();
        // Compose's primary network: the highest priority, then the first key.
        joins.sort_by(|a, b| {
            let rank = |join: &NetworkJoin| (join.in_process, std::cmp::Reverse(join.attachment.priority));
            rank(a).cmp(&rank(b)).then_with(|| a.key.cmp(&b.key))
        });
        joins
    }

    fn volumes(&self, service: &Service) -> IndexMap<crate::model::VolumeKey, String> {
        wiring::named_volumes(service)
            .filter_map(|key| Some((key.clone(), self.project.volumes.get(key)?.name.clone())))
            .collect()
    }

    fn egress(&self, service: &Service) -> Vec<String> {
        let declared = service.wasm.iter().flat_map(|options| &options.egress);
        declared.chain(self.granted(&service.name)).cloned().collect()
    }

    fn granted<'s>(&'s self, service: &'s ServiceName) -> impl Iterator<Item = &'s String> {
        self.options.allow_egress.iter().filter(move |(name, _)| name == service).map(|(_, target)| target)
    }

    /// The hash of a Wasm instance of this service that runs a module of this digest.
    pub(super) fn wasm_hash(&self, service: &Service, module_digest: &str) -> String {
        digest::wasm_hash(module_digest, &self.wasm_settings(service))
    }

    /// What a Wasm instance is made from besides its module and what compose's own hash covers. Reach granted for a run and
    /// links count: an instance that runs keeps those it was started with.
    fn wasm_settings(&self, service: &Service) -> Value {
        let mut settings = Map::new();
        if let Some(declared) = service.document.get("x-wasm") {
            let mut declared = declared.clone();
            // How a module is made is not what it is.
            declared.as_object_mut().map(|declared| declared.shift_remove("build"));
            settings.insert("x-wasm".into(), declared);
        }
        let granted: Vec<&String> = self.granted(&service.name).collect();
        if !granted.is_empty() {
            settings.insert("egress".into(), json!(granted));
        }
        if let Some(Resolved::Wasm(module)) = self.resolution.get(&service.name) {
            if let Some(application) = &module.config.application {
                settings.insert("application".into(), json!(application.digest));
            }
            // The other files of an image and what it says of itself are part of what runs.
            if let Some(files) = &module.files {
                settings.insert("files".into(), json!(files));
                settings.insert("config".into(), digest::image_config(&module.config));
            }
        }
        let links = wiring::links(self.project, self.resolution, service);
        if !links.is_empty() {
            settings.insert("links".into(), json!(links));
        }
        Value::Object(settings)
    }
}
