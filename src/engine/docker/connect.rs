//! Which engine: `DOCKER_HOST`, else the current context of the Docker command line, else the usual sockets.

use std::path::Path;

use bollard::errors::Error;
use bollard::{BollardRequest, Docker as Client};
use http::HeaderValue;
use sha2::{Digest, Sha256};

use super::error::{failed, wrap};
use crate::engine::{EngineError, ErrorKind, Result};
use crate::image::credentials::config_folder;

/// The default socket of an engine that runs as root.
const SYSTEM_SOCKET: &str = "/var/run/docker.sock";

/// Whose ports the engine publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// This machine's.
    Here,
    /// Another machine's.
    Elsewhere,
}

/// Connects and negotiates the API version; the address comes with it.
pub(super) async fn connect(host: Option<&str>) -> Result<(Client, Reach, String)> {
    let address = address(host, &|name| std::env::var(name).ok())?;
    let reach = if address.starts_with("unix://") { Reach::Here } else { Reach::Elsewhere };
    let client = Client::connect_with_host(&address)
        .map_err(failed("connect to engine", address.clone()))?
        .with_request_modifier(url_safe_credentials);
    match client.negotiate_version().await {
        Ok(client) => Ok((client, reach, address)),
        Err(Error::APIVersionParseError {}) => {
            Err(EngineError::new(ErrorKind::Invalid, "connect to engine", address, "it does not speak the Docker API"))
        }
        Err(error) => Err(wrap("connect to engine", address, error)),
    }
}

fn address(host: Option<&str>, environment: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let given = host.map(str::to_owned).or_else(|| environment("DOCKER_HOST")).filter(|host| !host.is_empty());
    let address = match given {
        Some(host) => host,
        None => match context_host(environment) {
            Some(host) => host,
            None => default_socket(environment),
        },
    };
    if let Some(machine) = address.strip_prefix("ssh://") {
        return Err(EngineError::new(
            ErrorKind::Invalid,
            "connect to engine",
            address.clone(),
            "engines behind ssh are not supported",
        )
        .hint(format!("forward its socket: `ssh -NL /tmp/engine.sock:{SYSTEM_SOCKET} {}`, then DOCKER_HOST=unix:///tmp/engine.sock", machine)));
    }
    Ok(if address.starts_with('/') { format!("unix://{address}") } else { address })
}

/// The address of the context that `docker context use` chose; the name `default` means none.
fn context_host(environment: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let folder = config_folder(environment)?;
    let name = match environment("DOCKER_CONTEXT").filter(|name| !name.is_empty()) {
        Some(name) => name,
        None => {
            let settings: serde_json::Value =
                serde_json::from_str(&std::fs::read_to_string(folder.join("config.json")).ok()?).ok()?;
            settings.get("currentContext")?.as_str()?.to_owned()
        }
    };
    if name.is_empty() || name == "default" {
        return None;
    }
    let file = folder.join("contexts/meta").join(hex(&Sha256::digest(&name))).join("meta.json");
    let meta: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()?;
    Some(meta.pointer("/Endpoints/docker/Host")?.as_str()?.to_owned())
}

/// The system's socket, or the user's own where only a rootless engine is there.
fn default_socket(environment: &dyn Fn(&str) -> Option<String>) -> String {
    if !Path::new(SYSTEM_SOCKET).exists()
        && let Some(runtime) = environment("XDG_RUNTIME_DIR")
    {
        let own = Path::new(&runtime).join("docker.sock");
        if own.exists() {
            return format!("unix://{}", own.display());
        }
    }
    format!("unix://{SYSTEM_SOCKET}")
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The engine reads these headers as URL-safe base64; the client writes the standard alphabet, which differs for some passwords.
fn url_safe_credentials(mut request: BollardRequest) -> BollardRequest {
    for name in ["X-Registry-Auth", "X-Registry-Config"] {
        if let Some(value) = request.headers_mut().get_mut(name)
            && let Ok(text) = value.to_str()
            && let Ok(safe) = HeaderValue::from_str(&text.replace('+', "-").replace('/', "_"))
        {
            *value = safe;
        }
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_given_wins_over_variable_and_context() {
        let folder = tempfile::tempdir().unwrap();
        let meta = folder.path().join("contexts/meta").join(hex(&Sha256::digest("remote")));
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::write(folder.path().join("config.json"), r#"{"currentContext":"remote"}"#).unwrap();
        std::fs::write(meta.join("meta.json"), r#"{"Endpoints":{"docker":{"Host":"tcp://ctx:2375"}}}"#).unwrap();
        let config = folder.path().display().to_string();
        let bare = |name: &str| (name == "DOCKER_CONFIG").then(|| config.clone());
        let with_variable = |name: &str| match name {
            "DOCKER_HOST" => Some("unix:///var.sock".to_owned()),
            other => bare(other),
        };
        assert_eq!(address(Some("/given.sock"), &with_variable).unwrap(), "unix:///given.sock");
        assert_eq!(address(None, &with_variable).unwrap(), "unix:///var.sock");
        assert_eq!(address(None, &bare).unwrap(), "tcp://ctx:2375");
        let default_context = |name: &str| match name {
            "DOCKER_CONTEXT" => Some("default".to_owned()),
            other => bare(other),
        };
        assert!(address(None, &default_context).unwrap().starts_with("unix://"));
    }

    #[test]
    fn ssh_is_refused_with_a_way_out() {
        let error = address(Some("ssh://me@there"), &|_| None).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert!(error.hint.unwrap().contains("me@there"));
    }
}
