//! Building with the BuildKit that an engine has in it: for Dockerfiles that the classic builder refuses, and for secrets.
//!
//! The context is the request's body, as for the classic builder. What a build may ask of us (secrets, credentials of
//! registries) it asks over a [`session`]; what it does it tells as protobuf messages ([`trace`]). The client crate reads
//! neither, so both requests are made here. Forwarding SSH agents and further contexts need more of a session than this.

mod pipe;
mod session;
mod trace;
mod wire;

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::{Method, Request};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::Value;

use self::pipe::Pipe;
use self::session::{Secrets, Session};
use self::trace::Trace;
use super::build::Said;
use crate::engine::{EngineError, ErrorKind, Result};
use crate::image::form::encoded;
use crate::model::{Build, FileContent, FileGrant};

/// Largest secret: a gRPC message holds no more than 4 MiB.
const LARGEST_SECRET: u64 = 500 * 1024;
/// Longest message of the engine.
const LONGEST: usize = 16 << 20;

/// The context of a build.
pub(super) enum Source<S> {
    /// A tar.
    Tar(S),
    /// A repository or an archive that the engine fetches.
    Remote(String),
}

/// What is built.
pub(super) struct Job<'j> {
    /// The engine's address.
    pub address: &'j str,
    /// The version of its API.
    pub version: &'j str,
    /// What the file says.
    pub build: &'j Build,
    /// The image's name.
    pub tag: &'j str,
    /// The Dockerfile's name in the context.
    pub dockerfile: &'j str,
}

/// Builds and tags.
pub(super) async fn build<S: Stream<Item = std::io::Result<Bytes>> + Send + 'static>(
    job: Job<'_>,
    source: Source<S>,
    said: &mut Said<'_>,
) -> Result<()> {
    let Job { address, version, build, tag, dockerfile } = job;
    let failed = |error: std::io::Error| EngineError::new(ErrorKind::Unreachable, "build image", tag, error);
    let secrets = secrets(&build.secrets, tag)?;
    let session = Session::open(address, version, secrets).await.map_err(failed)?;
    let mut query = query(build, tag, dockerfile);
    query.push(("session", session.id().to_owned()));
    let body = match source {
        Source::Tar(chunks) => StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data)).boxed()).boxed_unsync(),
        Source::Remote(address) => {
            query.push(("remote", address));
            http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync()
        }
    };
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/v{version}/build?{}", encoded(&query)))
        .header("host", "engine")
        .header("content-type", "application/x-tar")
        .body(body)
        .map_err(|error| EngineError::new(ErrorKind::Internal, "build image", tag, error))?;
    let mut pipe = Pipe::connect(address).await.map_err(failed)?;
    let answer = pipe.send(request).await.map_err(failed)?;
    let status = answer.status();
    let mut body = answer.into_body();
    let (mut rest, mut trace) = (Vec::new(), Trace::default());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| failed(std::io::Error::other(error)))?;
        let Ok(data) = frame.into_data() else { continue };
        rest.extend_from_slice(&data);
        if !status.is_success() {
            continue;
        }
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            take(&line, tag, &mut trace, said)?;
        }
        if rest.len() > LONGEST {
            return Err(EngineError::new(
                ErrorKind::Internal,
                "build image",
                tag,
                "a message of the engine never ends",
            ));
        }
    }
    if !status.is_success() {
        let message: Value = serde_json::from_slice(&rest).unwrap_or_default();
        let text = message.get("message").and_then(Value::as_str).unwrap_or("it gives no reason").to_owned();
        let kind = if status.is_client_error() { ErrorKind::Invalid } else { ErrorKind::Internal };
        return Err(EngineError::new(kind, "build image", tag, text));
    }
    take(&rest, tag, &mut trace, said)
}

/// One message: a line of JSON.
fn take(line: &[u8], tag: &str, trace: &mut Trace, said: &mut Said<'_>) -> Result<()> {
    let Ok(message) = serde_json::from_slice::<Value>(line) else { return Ok(()) };
    let text = |key: &str| message.get(key).and_then(Value::as_str);
    if text("id") == Some("moby.buildkit.trace")
        && let Some(status) = text("aux").and_then(crate::image::credentials::base64)
    {
        trace.read(&status).into_iter().for_each(|line| said.line(line));
    }
    for line in text("stream").into_iter().flat_map(str::lines).filter(|line| !line.trim().is_empty()) {
        said.line(line.trim_end().to_owned());
    }
    match message.pointer("/errorDetail/message").and_then(Value::as_str).or_else(|| text("error")) {
        Some(error) => Err(said.explain(EngineError::new(ErrorKind::Invalid, "build image", tag, error.to_owned()))),
        None => Ok(()),
    }
}

fn query(build: &Build, tag: &str, dockerfile: &str) -> Vec<(&'static str, String)> {
    let arguments: BTreeMap<&str, &str> =
        build.args.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?))).collect();
    let mut query = vec![
        ("version", "2".to_owned()),
        ("t", tag.to_owned()),
        ("dockerfile", dockerfile.to_owned()),
        ("rm", "1".to_owned()),
        ("buildargs", serde_json::json!(arguments).to_string()),
        ("labels", serde_json::json!(build.labels).to_string()),
    ];
    if build.no_cache {
        query.push(("nocache", "1".to_owned()));
    }
    if build.pull {
        query.push(("pull", "1".to_owned()));
    }
    let optional = [
        ("target", build.target.as_deref()),
        ("networkmode", build.network.as_deref()),
        ("platform", super::build::platform(build)),
    ];
    query.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?.to_owned()))));
    query
}

/// The secrets of a build, read now: what is missing is an error before anything is built.
fn secrets(grants: &[FileGrant], tag: &str) -> Result<Secrets> {
    let wrong = |source: &str, why: String| {
        EngineError::new(ErrorKind::Invalid, "build image", tag, format!("secret `{source}`: {why}"))
    };
    let mut secrets = Secrets::new();
    for grant in grants {
        let value = match &grant.content {
            FileContent::File(path) => {
                let size = std::fs::metadata(path).map(|found| found.len());
                match size {
                    Ok(size) if size > LARGEST_SECRET => {
                        return Err(wrong(&grant.source, format!("`{}` is larger than 500 KiB", path.display())));
                    }
                    Ok(_) => {}
                    Err(error) => return Err(wrong(&grant.source, format!("reading `{}`: {error}", path.display()))),
                }
                std::fs::read(path)
                    .map_err(|error| wrong(&grant.source, format!("reading `{}`: {error}", path.display())))?
            }
            FileContent::Environment { name, value } => value
                .clone()
                .ok_or_else(|| wrong(&grant.source, format!("the variable `{name}` is not set")))?
                .into_bytes(),
            FileContent::Inline(text) => text.clone().into_bytes(),
            FileContent::External { name } => {
                return Err(wrong(&grant.source, format!("`{name}` is external, and a build cannot ask for it")));
            }
        };
        secrets.insert(grant.target.clone(), value);
    }
    Ok(secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_holds_what_the_file_says() {
        let build = Build {
            target: Some("final stage".into()),
            args: [("A".to_owned(), Some("1&2".to_owned())), ("UNSET".to_owned(), None)].into_iter().collect(),
            platforms: vec!["wasi/wasm".into()],
            no_cache: true,
            ..Build::default()
        };
        let text = encoded(&query(&build, "p-a:1", "Dockerfile"));
        assert_eq!(
            text,
            "version=2&t=p-a%3A1&dockerfile=Dockerfile&rm=1&buildargs=%7B%22A%22%3A%221%262%22%7D&labels=%7B%7D&nocache=1\
             &target=final%20stage"
        );
    }

    #[test]
    fn a_secret_that_is_missing_is_named() {
        let grant = |content: FileContent| FileGrant {
            source: "token".into(),
            content,
            target: "token".into(),
            uid: None,
            gid: None,
            mode: None,
        };
        let unset = FileContent::Environment { name: "TOKEN".into(), value: None };
        for (content, words) in [
            (FileContent::File("/no/such/file".into()), "/no/such/file"),
            (unset, "`TOKEN` is not set"),
            (FileContent::External { name: "x".into() }, "external"),
        ] {
            let error = secrets(&[grant(content)], "p-a").expect_err(words).to_string();
            assert!(error.contains("secret `token`") && error.contains(words), "{error}");
        }
        let given = secrets(&[grant(FileContent::Inline("s".into()))], "p-a").expect("it is there");
        assert_eq!(given["token"], b"s");
    }
}
