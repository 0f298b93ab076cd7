//! `allowed_outbound_hosts` in the form of `x-wasm.egress`: `https://api.example.com` is `api.example.com:443`. What cannot be
//! said as narrowly is refused, never widened; of a scheme its port remains.

use serde_json::Value;

use super::variables::Variables;
use super::{SpinError, texts, unsupported};

/// The targets of a list.
pub(super) fn hosts(list: Option<&Value>, variables: &Variables) -> Result<Vec<String>, SpinError> {
    let mut targets = Vec::new();
    for entry in texts(list) {
        targets.extend(target(&variables.fill(entry)?)?);
    }
    Ok(targets)
}

/// The targets of `allowed_http_hosts`, which the first version has: hosts, asked by `http` and `https`.
pub(super) fn http_hosts(list: Option<&Value>, variables: &Variables) -> Result<Vec<String>, SpinError> {
    let mut targets = Vec::new();
    for entry in texts(list) {
        let host = variables.fill(entry)?;
        let host = host.strip_prefix("http://").or_else(|| host.strip_prefix("https://")).unwrap_or(&host);
        if host == "insecure:allow-all" {
            targets.push("*".to_owned());
            continue;
        }
        for scheme in ["http", "https"] {
            targets.extend(target(&format!("{scheme}://{host}"))?.filter(|target| !targets.contains(target)));
        }
    }
    Ok(targets)
}

fn target(entry: &str) -> Result<Option<String>, SpinError> {
    let refused = || {
        let example = "write `scheme://host:port`, `*` for any host or port";
        unsupported(format!("allows `{entry}` in `allowed_outbound_hosts`: {example}"))
    };
    let (scheme, rest) = entry.trim().split_once("://").ok_or_else(refused)?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if host.ends_with(".spin.internal") {
        return Err(unsupported(format!(
            "reaches its own components as `{host}`: ask them by the name of the service"
        )));
    }
    // Requests to itself never leave the service.
    if host == "self" || host == "self.alt" {
        return Ok(None);
    }
    let port = port.or(match scheme {
        "http" => Some("80"),
        "https" => Some("443"),
        "redis" => Some("6379"),
        "postgres" => Some("5432"),
        "mysql" => Some("3306"),
        "mqtt" => Some("1883"),
        _ => None,
    });
    // A slash is within a range of addresses alone; anywhere else it begins a path.
    let is_range = host
        .split_once('/')
        .is_some_and(|(address, _)| address.trim_start_matches('[').parse::<std::net::IpAddr>().is_ok());
    if host.is_empty() || (host.contains('/') && !is_range) {
        return Err(refused());
    }
    match port {
        Some("*") => Ok(Some(host.to_owned())),
        Some(port) if port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(Some(format!("{host}:{port}"))),
        _ => Err(refused()),
    }
}
