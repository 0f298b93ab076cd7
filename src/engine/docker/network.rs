//! Networks and volumes: making them, and taking them away. What is there already, or gone already, is done.

use std::collections::HashMap;

use bollard::Docker as Client;
use bollard::errors::Error;
use bollard::models::{NetworkCreateRequest, NetworkDisconnectRequest};
use bollard::query_parameters::{InspectNetworkOptions, RemoveVolumeOptions};
use serde_json::{Value, json};

use super::error::{failed, gone_is_done, is_conflict, is_not_found, wrap};
use super::request::{self, Api};
use crate::engine::{EngineError, ErrorKind, Result};
use crate::plan::unit::{NetworkSpec, VolumeSpec};

/// Makes a network, in place of the one it replaces.
pub(super) async fn create(client: &Client, api: Api, spec: &NetworkSpec) -> Result<()> {
    let name = &spec.network.name;
    if let Some(old) = &spec.replace {
        disconnect_all(client, old).await?;
        remove(client, old).await?;
    }
    match client.inspect_network(name, None::<InspectNetworkOptions>).await {
        Ok(_) => return Ok(()),
        Err(error) if !is_not_found(&error) => return Err(wrap("inspect network", name, error)),
        Err(_) if spec.network.external => {
            return Err(EngineError::new(
                ErrorKind::NotFound,
                "find network",
                name,
                "it is declared external, but the engine has no such network",
            )
            .hint(format!("`docker network create {name}`")));
        }
        Err(_) => {}
    }
    match send(client, api, request::network(spec)).await {
        Err(error) if is_conflict(&error) => Ok(()),
        result => result.map_err(failed("create network", name)),
    }
}

/// Removes a network by name or id; one that is still in use is a conflict.
pub(super) async fn remove(client: &Client, name: &str) -> Result<()> {
    gone_is_done(client.remove_network(name).await).map_err(|error| {
        let error = wrap("remove network", name, error);
        if error.kind == ErrorKind::Conflict {
            error.hint(format!("`docker network inspect {name}` lists the containers that still use it"))
        } else {
            error
        }
    })
}

/// Makes a volume.
pub(super) async fn create_volume(client: &Client, spec: &VolumeSpec) -> Result<()> {
    let name = &spec.volume.name;
    if spec.volume.external {
        return match client.inspect_volume(name).await {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Err(EngineError::new(
                ErrorKind::NotFound,
                "find volume",
                name,
                "it is declared external, but the engine has no such volume",
            )
            .hint(format!("`docker volume create {name}`"))),
            Err(error) => Err(wrap("inspect volume", name, error)),
        };
    }
    // The engine answers with the volume that is there, if there is one.
    client.create_volume(request::volume(spec)).await.map(drop).map_err(failed("create volume", name))
}

/// Removes a volume; one that is still in use is a conflict.
pub(super) async fn remove_volume(client: &Client, name: &str) -> Result<()> {
    gone_is_done(client.remove_volume(name, None::<RemoveVolumeOptions>).await).map_err(failed("remove volume", name))
}

async fn disconnect_all(client: &Client, network: &str) -> Result<()> {
    let found = match client.inspect_network(network, None::<InspectNetworkOptions>).await {
        Ok(found) => found,
        Err(error) if is_not_found(&error) => return Ok(()),
        Err(error) => return Err(wrap("inspect network", network, error)),
    };
    let containers: HashMap<_, _> = found.containers.unwrap_or_default();
    for container in containers.into_keys() {
        let request = NetworkDisconnectRequest { container, force: Some(true) };
        gone_is_done(client.disconnect_network(network, request).await).map_err(failed("empty network", network))?;
    }
    Ok(())
}

async fn send(client: &Client, api: Api, body: NetworkCreateRequest) -> Result<(), Error> {
    // Without being asked, an engine before API 1.44 makes a second network of the same name.
    if api < Api(1, 44) {
        let client = amended(client, serde_json::to_value(&body)?, json!({ "CheckDuplicate": true }));
        return client.create_network(body).await.map(drop);
    }
    client.create_network(body).await.map(drop)
}

/// A client whose next request carries `body` with further fields: ones that older engines know and the client's types no longer do.
pub(super) fn amended(client: &Client, mut body: Value, fields: Value) -> Client {
    if let (Value::Object(body), Value::Object(fields)) = (&mut body, fields) {
        body.extend(fields);
    }
    let bytes = bytes::Bytes::from(body.to_string());
    client.clone().with_request_modifier(move |request| request.map(|_| bollard::body_full(bytes.clone())))
}
