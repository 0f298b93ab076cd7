//! Credentials of registries, from the configuration of the Docker command line (`auths`).

use std::collections::HashMap;

use bollard::auth::DockerCredentials;
use serde_json::Value;

use super::connect::config_folder;

/// The key Docker Hub has in `auths`.
const HUB: &str = "https://index.docker.io/v1/";

/// Credentials for pulling `reference`, where there are any.
pub(super) fn of_reference(reference: &str) -> Option<DockerCredentials> {
    let mut all = all();
    let registry = registry(reference);
    all.remove(&registry)
}

/// Every registry's credentials, for a build that may pull from any of them.
pub(super) fn all() -> HashMap<String, DockerCredentials> {
    let Some(folder) = config_folder(&|name| std::env::var(name).ok()) else { return HashMap::new() };
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap_or_default();
    parse(&text)
}

fn parse(text: &str) -> HashMap<String, DockerCredentials> {
    let config: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    let auths = config.get("auths").and_then(Value::as_object);
    auths
        .into_iter()
        .flatten()
        .filter_map(|(registry, entry)| {
            let field = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
            let decoded = field("auth").and_then(decode).unwrap_or_default();
            let (user, password) = decoded.split_once(':').unwrap_or_default();
            let given = |name: &str, other: &str| {
                field(name).map(str::to_owned).or_else(|| (!other.is_empty()).then(|| other.to_owned()))
            };
            let credentials = DockerCredentials {
                username: given("username", user),
                password: given("password", password),
                identitytoken: field("identitytoken").map(str::to_owned),
                registrytoken: field("registrytoken").map(str::to_owned),
                serveraddress: Some(registry.clone()),
                ..DockerCredentials::default()
            };
            let useful = credentials.username.is_some()
                || credentials.identitytoken.is_some()
                || credentials.registrytoken.is_some();
            useful.then(|| (plain(registry), credentials))
        })
        .collect()
}

/// The registry a reference names; without one it is Docker Hub.
fn registry(reference: &str) -> String {
    match reference.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => plain(host),
        _ => HUB.to_owned(),
    }
}

/// Old configurations write registries as URLs; Docker Hub is still one.
fn plain(registry: &str) -> String {
    let host = registry.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or(host);
    match host {
        "index.docker.io" | "docker.io" | "registry-1.docker.io" => HUB.to_owned(),
        other => other.to_owned(),
    }
}

/// Standard base64; nothing when it is not.
fn decode(text: &str) -> Option<String> {
    let (mut bytes, mut buffer, mut bits) = (Vec::new(), 0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        buffer = (buffer << 6) | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((buffer >> bits) & 0xff).ok()?);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_by_registry() {
        let config = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "bWU6c2VjcmV0"},
            "https://registry.example.com/v2/": {"username": "u", "password": "p"},
            "localhost:5000": {},
            "broken.example": {"auth": "%%%"}
        }}"#;
        let all = parse(config);
        assert_eq!(all.len(), 2);
        let hub = &all[&registry("postgres:16")];
        assert_eq!((hub.username.as_deref(), hub.password.as_deref()), (Some("me"), Some("secret")));
        assert_eq!(all[&registry("registry.example.com/a/b:1")].username.as_deref(), Some("u"));
        assert!(!all.contains_key(&registry("localhost:5000/x")));
        assert!(parse("no json").is_empty());
    }

    #[test]
    fn registries_are_read_off_references() {
        let cases = [
            ("busybox", HUB),
            ("library/busybox", HUB),
            ("docker.io/library/busybox", HUB),
            ("ghcr.io/a/b", "ghcr.io"),
            ("localhost/a", "localhost"),
            ("host:5000/a:1", "host:5000"),
        ];
        for (reference, expected) in cases {
            assert_eq!(registry(reference), expected, "{reference}");
        }
    }
}
