//! From the client's errors to [`EngineError`]: one table of kinds, and advice where there is some.

use std::error::Error as StdError;
use std::io;
use std::path::Path;

use bollard::errors::Error;

use crate::engine::{EngineError, ErrorKind};

const START_ENGINE: &str =
    "start the engine (`systemctl start docker`, or Docker Desktop), or set DOCKER_HOST to where it listens";
const JOIN_GROUP: &str = "let your user reach the engine's socket: `sudo usermod -aG docker $USER`, then log in again";
const PRUNE_NETWORKS: &str =
    "the engine has no address range left for networks: `docker network prune` removes unused ones";

/// Adapter for `map_err`: an error of `operation` on `subject`.
pub(super) fn failed(operation: &'static str, subject: impl Into<String>) -> impl FnOnce(Error) -> EngineError {
    let subject = subject.into();
    move |error| wrap(operation, subject, error)
}

/// What went wrong with `operation` on `subject`, in the engine's own words.
pub(super) fn wrap(operation: &'static str, subject: impl Into<String>, error: Error) -> EngineError {
    let (kind, message) = match &error {
        Error::DockerResponseServerError { status_code, message } => {
            (kind_of_status(*status_code, message), message.trim().to_owned())
        }
        Error::DockerStreamError { error } => (kind_of_message(error), error.trim().to_owned()),
        Error::RequestTimeoutError => (ErrorKind::Timeout, "the engine did not answer in time".to_owned()),
        Error::SocketNotFoundError(path) => (ErrorKind::Unreachable, format!("there is no socket `{path}`")),
        Error::UnsupportedURISchemeError { uri } => {
            (ErrorKind::Invalid, format!("`{uri}` is not an address of an engine (`unix://…`, `tcp://…`)"))
        }
        other => (kind_of_transport(other), chain(other)),
    };
    let hint = match kind {
        ErrorKind::Unreachable => Some(START_ENGINE),
        ErrorKind::Denied if matches!(error, Error::DockerResponseServerError { .. }) => None,
        ErrorKind::Denied => Some(JOIN_GROUP),
        _ if message.contains("non-overlapping IPv4 address pool") => Some(PRUNE_NETWORKS),
        _ => None,
    };
    let error = EngineError::new(kind, operation, subject, message);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Whether the object was not there.
pub(super) fn is_not_found(error: &Error) -> bool {
    status(error) == Some(404)
}

/// Whether the engine is already at it, or the name is taken.
pub(super) fn is_conflict(error: &Error) -> bool {
    status(error) == Some(409)
}

/// Turns "it is gone already" into success.
pub(super) fn gone_is_done(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if is_not_found(&error) => Ok(()),
        other => other,
    }
}

/// Whether the engine's message names a path of this machine.
pub(super) fn names(error: &EngineError, path: &Path) -> bool {
    error.source.to_string().contains(&*path.to_string_lossy())
}

/// The host port that the engine says is taken, out of its message.
pub(super) fn taken_port(message: &str) -> Option<u16> {
    let taken = message.contains("port is already allocated") || message.contains("address already in use");
    if !taken {
        return None;
    }
    // "Bind for 0.0.0.0:8080 failed: port is already allocated", "listen tcp4 0.0.0.0:8080: bind: address already in use"
    message
        .split(|c: char| c.is_whitespace())
        .filter_map(|word| word.trim_end_matches(':').rsplit_once(':'))
        .find_map(|(host, port)| if host.is_empty() { None } else { port.parse().ok() })
}

fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

fn kind_of_status(status: u16, message: &str) -> ErrorKind {
    match status {
        400 => ErrorKind::Invalid,
        403 if message.contains("active endpoints") => ErrorKind::Conflict,
        401 | 403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        408 | 504 => ErrorKind::Timeout,
        503 => ErrorKind::Unreachable,
        _ => kind_of_message(message),
    }
}

/// Some faults reach us as a bare 500 or inside a stream; then only the text tells.
fn kind_of_message(message: &str) -> ErrorKind {
    const CONFLICTS: [&str; 4] =
        ["port is already allocated", "address already in use", "active endpoints", "Address already in use"];
    const MISSING: [&str; 3] = ["not found", "No such image", "does not exist"];
    const DENIED: [&str; 3] = ["unauthorized", "access denied", "denied:"];
    if CONFLICTS.iter().any(|text| message.contains(text)) {
        ErrorKind::Conflict
    } else if DENIED.iter().any(|text| message.contains(text)) {
        ErrorKind::Denied
    } else if MISSING.iter().any(|text| message.contains(text)) {
        ErrorKind::NotFound
    } else {
        ErrorKind::Internal
    }
}

fn kind_of_transport(error: &Error) -> ErrorKind {
    // An I/O error of its own is transparent: it does not stand in the chain of its causes.
    let first: &(dyn StdError + 'static) = match error {
        Error::IOError { err } => err,
        other => other,
    };
    let mut cause = Some(first);
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            return match io.kind() {
                io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                io::ErrorKind::TimedOut => ErrorKind::Timeout,
                _ => ErrorKind::Unreachable,
            };
        }
        cause = current.source();
    }
    match error {
        Error::HyperLegacyError { .. } | Error::HyperResponseError { .. } => ErrorKind::Unreachable,
        _ => ErrorKind::Internal,
    }
}

/// The innermost cause says most: "client error (Connect)" alone helps nobody.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(current) = cause {
        let next = current.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = current.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status_code: u16, message: &str) -> Error {
        Error::DockerResponseServerError { status_code, message: message.into() }
    }

    #[test]
    fn kinds_follow_status_then_text() {
        let cases = [
            (response(404, "No such container: x"), ErrorKind::NotFound),
            (response(409, "name is in use"), ErrorKind::Conflict),
            (response(403, "network n has active endpoints"), ErrorKind::Conflict),
            (response(403, "authorization denied by plugin"), ErrorKind::Denied),
            (response(400, "invalid reference format"), ErrorKind::Invalid),
            (response(500, "Bind for 0.0.0.0:80 failed: port is already allocated"), ErrorKind::Conflict),
            (response(500, "boom"), ErrorKind::Internal),
            (Error::RequestTimeoutError, ErrorKind::Timeout),
            (Error::SocketNotFoundError("/x".into()), ErrorKind::Unreachable),
            (Error::from(io::Error::from(io::ErrorKind::PermissionDenied)), ErrorKind::Denied),
            (Error::from(io::Error::from(io::ErrorKind::ConnectionRefused)), ErrorKind::Unreachable),
            (Error::DockerStreamError { error: "manifest for x:1 not found".into() }, ErrorKind::NotFound),
        ];
        for (error, kind) in cases {
            let text = error.to_string();
            assert_eq!(wrap("do", "it", error).kind, kind, "{text}");
        }
    }

    #[test]
    fn an_unreachable_engine_comes_with_advice() {
        let error = wrap("connect", "engine", Error::SocketNotFoundError("/var/run/docker.sock".into()));
        assert_eq!(error.to_string(), "connect `engine`: there is no socket `/var/run/docker.sock`");
        assert!(error.hint.expect("a hint").contains("DOCKER_HOST"));
    }

    #[test]
    fn the_taken_port_is_read_from_the_message() {
        let cases = [
            (
                "driver failed programming external connectivity on endpoint p-web-1 (0ab): Bind for 0.0.0.0:8080 failed: port is already allocated",
                Some(8080),
            ),
            (
                "driver failed programming external connectivity on endpoint p-web-1 (0ab): Error starting userland proxy: listen tcp4 0.0.0.0:81: bind: address already in use",
                Some(81),
            ),
            ("Error starting userland proxy: listen tcp6 [::]:82: bind: address already in use", Some(82)),
            ("no such image", None),
        ];
        for (message, port) in cases {
            assert_eq!(taken_port(message), port, "{message}");
        }
    }
}
