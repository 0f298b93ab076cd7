//! Building images with the engine's classic builder, which every engine has and which needs no session.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bollard::Docker as Client;
use bollard::models::BuildInfo;
use bollard::query_parameters::BuildImageOptionsBuilder;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::context::{self, Context};
use super::error::{failed, wrap};
use super::{Image, image};
use crate::engine::{EngineError, ErrorKind, Result};
use crate::image::credentials;
use crate::model::Build;

/// Lines of output that an error repeats.
const LAST_LINES: usize = 12;

/// Builds and tags.
pub(super) async fn build(
    client: &Client,
    build: &Build,
    tag: &str,
    progress: &(dyn Fn(String) + Send + Sync),
) -> Result<Image> {
    let mut outcome = Outcome::default();
    let auths = tokio::task::spawn_blocking(credentials::all).await.unwrap_or_default();
    let auths: HashMap<_, _> =
        auths.into_iter().map(|(server, credentials)| (server, image::in_engine_words(credentials))).collect();
    let auths = (!auths.is_empty()).then_some(auths);
    if is_remote(&build.context) {
        let options = options(build, tag, build.dockerfile.as_deref().unwrap_or("Dockerfile"));
        let empty = bollard::body_full(bytes::Bytes::new());
        let answers = client.build_image(options.remote(&build.context).build(), auths, Some(empty));
        outcome.read(Box::pin(answers), tag, progress).await?;
    } else {
        let context = Context::open(build).map_err(|error| context_error(build, error))?;
        let options = options(build, tag, context.dockerfile()).build();
        let (chunks, writer) = context::stream(context);
        let answers = client.build_image(options, auths, Some(bollard::body_try_stream(chunks)));
        let read = outcome.read(Box::pin(answers), tag, progress).await;
        // A context that could not be read is the cause of whatever the engine then says.
        if let Ok(Ok(Err(error))) = timeout(Duration::from_secs(1), writer).await {
            return Err(context_error(build, error));
        }
        read?;
    }
    for further in &build.tags {
        add_tag(client, tag, further).await?;
    }
    image::inspect(client, tag)
        .await?
        .ok_or_else(|| EngineError::new(ErrorKind::Internal, "build image", tag, "the builder ended without an image"))
}

fn options(build: &Build, tag: &str, dockerfile: &str) -> BuildImageOptionsBuilder {
    let arguments: HashMap<&str, &str> =
        build.args.iter().filter_map(|(name, value)| value.as_deref().map(|value| (name.as_str(), value))).collect();
    let labels: HashMap<&str, &str> = build.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let mut options = BuildImageOptionsBuilder::default()
        .dockerfile(dockerfile)
        .t(tag)
        .rm(true)
        .forcerm(true)
        .nocache(build.no_cache)
        .buildargs(&arguments)
        .labels(&labels);
    if build.pull {
        options = options.pull("true");
    }
    if let Some(target) = &build.target {
        options = options.target(target);
    }
    if let Some(network) = &build.network {
        options = options.networkmode(network);
    }
    if let Some(platform) = platform(build) {
        options = options.platform(platform);
    }
    options
}

/// The classic builder makes one platform. One of Wasm is never asked for: engines refuse it, and the module is the same.
fn platform(build: &Build) -> Option<&str> {
    match build.platforms.as_slice() {
        [only] if only.starts_with("linux/") => Some(only),
        _ => None,
    }
}

fn is_remote(context: &str) -> bool {
    const SCHEMES: [&str; 6] = ["http://", "https://", "git://", "git@", "ssh://", "github.com/"];
    SCHEMES.iter().any(|scheme| context.starts_with(scheme))
}

fn context_error(build: &Build, error: std::io::Error) -> EngineError {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        _ => ErrorKind::Invalid,
    };
    EngineError::new(kind, "read build context", &build.context, error)
}

async fn add_tag(client: &Client, image: &str, tag: &str) -> Result<()> {
    let (repository, version) = image::split(tag);
    let options = bollard::query_parameters::TagImageOptionsBuilder::default().repo(repository).tag(version).build();
    client.tag_image(image, Some(options)).await.map_err(failed("tag image", tag))
}

/// What the builder said so far.
#[derive(Debug, Default)]
struct Outcome {
    last: VecDeque<String>,
}

impl Outcome {
    async fn read(
        &mut self,
        mut answers: impl futures_util::Stream<Item = Result<BuildInfo, bollard::errors::Error>> + Unpin,
        tag: &str,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<()> {
        while let Some(answer) = answers.next().await {
            let info = answer.map_err(|error| self.explain(wrap("build image", tag, error)))?;
            for line in lines(&info) {
                if self.last.len() == LAST_LINES {
                    self.last.pop_front();
                }
                self.last.push_back(line.clone());
                progress(line);
            }
        }
        Ok(())
    }

    /// An error of a step says little without the step's own output.
    fn explain(&self, error: EngineError) -> EngineError {
        let mut text = error.source.to_string();
        if !self.last.is_empty() {
            text += "\nlast output of the builder:";
            for line in &self.last {
                text += &format!("\n    {line}");
            }
        }
        let needs_buildkit = text.contains("requires BuildKit") || text.contains("Unknown flag: mount");
        let kind = if error.kind == ErrorKind::Internal { ErrorKind::Invalid } else { error.kind };
        let explained = EngineError::new(kind, error.operation, error.subject, text);
        if needs_buildkit {
            explained.hint(
                "this Dockerfile needs BuildKit: build it with `docker buildx build` and name the result in `image:`",
            )
        } else {
            match error.hint {
                Some(hint) => explained.hint(hint),
                None => explained,
            }
        }
    }
}

fn lines(info: &BuildInfo) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    if let Some(text) = &info.stream {
        lines.extend(text.lines().map(|line| line.trim_end().to_owned()));
    }
    if let Some(status) = &info.status {
        lines.push(match info.id.as_deref().filter(|id| !id.is_empty()) {
            Some(id) => format!("{id}: {status}"),
            None => status.clone(),
        });
    }
    lines.retain(|line| !line.is_empty());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wasm_platform_is_never_asked_for() {
        let with = |platforms: &[&str]| Build {
            platforms: platforms.iter().map(ToString::to_string).collect(),
            ..Build::default()
        };
        assert_eq!(platform(&with(&["wasi/wasm"])), None);
        assert_eq!(platform(&with(&["linux/amd64"])), Some("linux/amd64"));
        assert_eq!(platform(&with(&["linux/amd64", "linux/arm64"])), None);
        assert_eq!(platform(&with(&[])), None);
    }

    #[test]
    fn a_failed_step_is_told_with_its_output() {
        let mut outcome = Outcome::default();
        outcome.last.extend(["Step 2/2 : RUN false".to_owned(), "boom".to_owned()]);
        let error = outcome.explain(EngineError::new(ErrorKind::Internal, "build image", "p-web", "it returned 1"));
        insta::assert_snapshot!(error, @r"
        build image `p-web`: it returned 1
        last output of the builder:
            Step 2/2 : RUN false
            boom
        ");
    }
}
