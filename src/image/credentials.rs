//! Credentials of registries, from the configuration of the Docker command line: `auths`, `credHelpers`, `credsStore`.
//!
//! A helper is asked for one registry at a time, when something is fetched from it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// The key Docker Hub has in the configuration.
const HUB: &str = "https://index.docker.io/v1/";

/// What a registry is shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    /// The registry, as the configuration has it.
    pub server: String,
    /// A name, with a password.
    pub username: Option<String>,
    /// A password, with a name.
    pub password: Option<String>,
    /// A token that others are had for.
    pub identity_token: Option<String>,
    /// A token that is shown as it is.
    pub registry_token: Option<String>,
}

/// The folder of the Docker command line's own settings.
pub fn config_folder(environment: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    match environment("DOCKER_CONFIG").filter(|value| !value.is_empty()) {
        Some(folder) => Some(folder.into()),
        None => environment("HOME").map(|home| Path::new(&home).join(".docker")),
    }
}

/// Credentials for pulling `reference`, where there are any. Waits for a helper, where one is set.
pub fn of_reference(reference: &str) -> Option<Credentials> {
    find(&config(), &registry(reference), &ask)
}

/// Every registry's credentials, for a build that may pull from any of them. A store that holds them all is not asked.
pub fn all() -> BTreeMap<String, Credentials> {
    let config = config();
    let mut all = listed(&config);
    for (server, helper) in config.get("credHelpers").and_then(Value::as_object).into_iter().flatten() {
        if let Some(credentials) = helper.as_str().and_then(|helper| ask(helper, server)) {
            all.insert(plain(server), credentials);
        }
    }
    all
}

fn config() -> Value {
    let folder = config_folder(&|name| std::env::var(name).ok());
    let text = folder.and_then(|folder| std::fs::read_to_string(folder.join("config.json")).ok());
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null)
}

/// As docker has it: the registry's own helper, else the store, else what is written down.
fn find(config: &Value, registry: &str, ask: &dyn Fn(&str, &str) -> Option<Credentials>) -> Option<Credentials> {
    let own = config.get("credHelpers").and_then(Value::as_object).into_iter().flatten();
    let own = own.filter(|(server, _)| plain(server) == registry).find_map(|(_, helper)| helper.as_str());
    let store = || config.get("credsStore").and_then(Value::as_str).filter(|store| !store.is_empty());
    own.or_else(store).and_then(|helper| ask(helper, registry)).or_else(|| listed(config).remove(registry))
}

/// Asks `docker-credential-HELPER`.
fn ask(helper: &str, server: &str) -> Option<Credentials> {
    let mut command = Command::new(format!("docker-credential-{helper}"));
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    // A helper that does not read is judged by what it says.
    let _ = child.stdin.take()?.write_all(server.as_bytes());
    let output = child.wait_with_output().ok().filter(|output| output.status.success())?;
    answer(server, &output.stdout)
}

fn answer(server: &str, output: &[u8]) -> Option<Credentials> {
    let answer: Value = serde_json::from_slice(output).ok()?;
    let text = |name: &str| answer.get(name)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let credentials = Credentials { server: server.to_owned(), ..Credentials::default() };
    let secret = text("Secret")?;
    Some(match text("Username") {
        Some(user) if user != "<token>" => Credentials { username: Some(user), password: Some(secret), ..credentials },
        _ => Credentials { identity_token: Some(secret), ..credentials },
    })
}

/// What is written down in `auths`.
fn listed(config: &Value) -> BTreeMap<String, Credentials> {
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
            let credentials = Credentials {
                server: registry.clone(),
                username: given("username", user),
                password: given("password", password),
                identity_token: field("identitytoken").map(str::to_owned),
                registry_token: field("registrytoken").map(str::to_owned),
            };
            let useful = credentials.username.is_some()
                || credentials.identity_token.is_some()
                || credentials.registry_token.is_some();
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

fn decode(text: &str) -> Option<String> {
    String::from_utf8(base64(text)?).ok()
}

/// Standard base64; nothing when it is not.
pub fn base64(text: &str) -> Option<Vec<u8>> {
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
    Some(bytes)
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
        let all = listed(&serde_json::from_str(config).expect("it is JSON"));
        assert_eq!(all.len(), 2);
        let hub = &all[&registry("postgres:16")];
        assert_eq!((hub.username.as_deref(), hub.password.as_deref()), (Some("me"), Some("secret")));
        assert_eq!(all[&registry("registry.example.com/a/b:1")].username.as_deref(), Some("u"));
        assert!(!all.contains_key(&registry("localhost:5000/x")));
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

    #[test]
    fn a_registrys_own_helper_comes_first() {
        let config = serde_json::json!({
            "credHelpers": {"own.example": "own"},
            "credsStore": "store",
            "auths": {"listed.example": {"username": "u", "password": "p"}},
        });
        let ask = |helper: &str, server: &str| {
            let known = server != "listed.example";
            known.then(|| Credentials { server: server.into(), username: Some(helper.into()), ..Default::default() })
        };
        for (registry, user) in [("own.example", "own"), ("any.example", "store"), ("listed.example", "u")] {
            let found = find(&config, registry, &ask).expect(registry);
            assert_eq!(found.username.as_deref(), Some(user), "{registry}");
        }
    }

    #[test]
    fn a_helpers_answer_is_a_password_or_a_token() {
        let password = answer("r", br#"{"ServerURL": "r", "Username": "me", "Secret": "s"}"#).expect("it is an answer");
        assert_eq!((password.username.as_deref(), password.password.as_deref()), (Some("me"), Some("s")));
        let token = answer("r", br#"{"Username": "<token>", "Secret": "s"}"#).expect("it is an answer");
        assert_eq!((token.username, token.identity_token.as_deref()), (None, Some("s")));
        assert_eq!(answer("r", b"credentials not found"), None);
    }
}
