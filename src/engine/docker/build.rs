//! Building images: with the engine's classic builder, which every engine has and which needs no session, or with BuildKit
//! where the file asks for it or the classic one refuses.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bollard::Docker as Client;
use bollard::models::BuildInfo;
use bollard::query_parameters::BuildImageOptionsBuilder;
use futures_util::StreamExt;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::buildkit::{self, Job, Source};
use super::context::{self, Context};
use super::error::{failed, wrap};
use super::{Image, image};
use crate::engine::{EngineError, ErrorKind, Result};
use crate::image::credentials;
use crate::model::Build;

/// Lines of output that an error repeats.
const LAST_LINES: usize = 12;

/// The engine as a build needs it.
pub(super) struct Builder<'e> {
    /// For the classic builder.
    pub client: &'e Client,
    /// For BuildKit.
    pub address: &'e str,
    /// The version of the API that both are asked by.
    pub version: String,
}

/// Which builder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// The classic one, as `DOCKER_BUILDKIT=0` says.
    Classic,
    /// The classic one; BuildKit where that refuses the Dockerfile.
    Either,
    /// BuildKit.
    BuildKit,
}

/// Builds and tags.
pub(super) async fn build(
    builder: &Builder<'_>,
    build: &Build,
    tag: &str,
    progress: &(dyn Fn(String) + Send + Sync),
) -> Result<Image> {
    let wanted = std::env::var("DOCKER_BUILDKIT").ok();
    let choice = choice(build, wanted.as_deref());
    if choice == Choice::Classic && !build.secrets.is_empty() {
        let error = EngineError::new(ErrorKind::Invalid, "build image", tag, "the classic builder knows no `secrets`");
        return Err(error.hint("unset DOCKER_BUILDKIT: BuildKit is then used where it is needed"));
    }
    let mut built = match choice {
        Choice::Classic | Choice::Either => classic(builder, build, tag, progress).await,
        Choice::BuildKit => with_buildkit(builder, build, tag, progress).await,
    };
    if choice == Choice::Either && built.as_ref().is_err_and(needs_buildkit) {
        progress("this Dockerfile needs BuildKit: beginning again with it".to_owned());
        built = with_buildkit(builder, build, tag, progress).await;
    }
    built?;
    for further in &build.tags {
        add_tag(builder.client, tag, further).await?;
    }
    image::inspect(builder.client, tag)
        .await?
        .ok_or_else(|| EngineError::new(ErrorKind::Internal, "build image", tag, "the builder ended without an image"))
}

fn choice(build: &Build, wanted: Option<&str>) -> Choice {
    match wanted {
        Some("0" | "false") => return Choice::Classic,
        Some("1" | "true") => return Choice::BuildKit,
        _ => {}
    }
    let text =
        if is_remote(&build.context) { None } else { Context::open(build).ok().and_then(|context| context.text()) };
    // The classic builder takes the lines of a here-document for instructions, and a `syntax` for a comment.
    let is_new = text.is_some_and(|text| text.contains("<<") || text.trim_start().starts_with("# syntax"));
    if is_new || !build.secrets.is_empty() { Choice::BuildKit } else { Choice::Either }
}

async fn classic(
    builder: &Builder<'_>,
    build: &Build,
    tag: &str,
    progress: &(dyn Fn(String) + Send + Sync),
) -> Result<()> {
    let client = builder.client;
    let mut said = Said::new(progress);
    let auths = tokio::task::spawn_blocking(credentials::all).await.unwrap_or_default();
    let auths: HashMap<_, _> =
        auths.into_iter().map(|(server, credentials)| (server, image::in_engine_words(credentials))).collect();
    let auths = (!auths.is_empty()).then_some(auths);
    if is_remote(&build.context) {
        let options = options(build, tag, build.dockerfile.as_deref().unwrap_or("Dockerfile"));
        let empty = bollard::body_full(bytes::Bytes::new());
        let answers = client.build_image(options.remote(&build.context).build(), auths, Some(empty));
        return said.read(Box::pin(answers), tag).await;
    }
    let context = Context::open(build).map_err(|error| context_error(build, error))?;
    let options = options(build, tag, context.dockerfile()).build();
    let (chunks, writer) = context::stream(context);
    let answers = client.build_image(options, auths, Some(bollard::body_try_stream(chunks)));
    let read = said.read(Box::pin(answers), tag).await;
    written(build, writer).await?;
    read
}

async fn with_buildkit(
    builder: &Builder<'_>,
    build: &Build,
    tag: &str,
    progress: &(dyn Fn(String) + Send + Sync),
) -> Result<()> {
    let mut said = Said::new(progress);
    let Builder { address, version, .. } = builder;
    if is_remote(&build.context) {
        let dockerfile = build.dockerfile.as_deref().unwrap_or("Dockerfile");
        let source = Source::<futures_util::stream::Empty<_>>::Remote(build.context.clone());
        return buildkit::build(Job { address, version, build, tag, dockerfile }, source, &mut said).await;
    }
    let context = Context::open(build).map_err(|error| context_error(build, error))?;
    let dockerfile = context.dockerfile().to_owned();
    let (chunks, writer) = context::stream(context);
    let job = Job { address, version, build, tag, dockerfile: &dockerfile };
    let built = buildkit::build(job, Source::Tar(chunks), &mut said).await;
    written(build, writer).await?;
    built
}

/// A context that could not be read is the cause of whatever the engine then says.
async fn written(build: &Build, writer: JoinHandle<std::io::Result<()>>) -> Result<()> {
    match timeout(Duration::from_secs(1), writer).await {
        Ok(Ok(Err(error))) => Err(context_error(build, error)),
        _ => Ok(()),
    }
}

/// Whether the classic builder refused what BuildKit takes.
fn needs_buildkit(error: &EngineError) -> bool {
    let text = error.source.to_string();
    ["requires BuildKit", "Unknown flag: ", "unknown flag: "].iter().any(|words| text.contains(words))
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
pub(super) fn platform(build: &Build) -> Option<&str> {
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

/// What the builder said so far, and who hears it.
pub(super) struct Said<'p> {
    last: VecDeque<String>,
    progress: &'p (dyn Fn(String) + Send + Sync),
}

impl<'p> Said<'p> {
    fn new(progress: &'p (dyn Fn(String) + Send + Sync)) -> Self {
        Self { last: VecDeque::new(), progress }
    }

    /// A line more.
    pub(super) fn line(&mut self, line: String) {
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line.clone());
        (self.progress)(line);
    }

    async fn read(
        &mut self,
        mut answers: impl futures_util::Stream<Item = Result<BuildInfo, bollard::errors::Error>> + Unpin,
        tag: &str,
    ) -> Result<()> {
        while let Some(answer) = answers.next().await {
            let info = answer.map_err(|error| self.explain(wrap("build image", tag, error)))?;
            lines(&info).into_iter().for_each(|line| self.line(line));
        }
        Ok(())
    }

    /// An error of a step says little without the step's own output.
    pub(super) fn explain(&self, error: EngineError) -> EngineError {
        let mut text = error.source.to_string();
        if !self.last.is_empty() {
            text += "\nlast output of the builder:";
            for line in &self.last {
                text += &format!("\n    {line}");
            }
        }
        let kind = if error.kind == ErrorKind::Internal { ErrorKind::Invalid } else { error.kind };
        let explained = EngineError::new(kind, error.operation, error.subject, text);
        match error.hint {
            Some(hint) => explained.hint(hint),
            None => explained,
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
        let mut said = Said::new(&|_| {});
        said.line("Step 2/2 : RUN false".to_owned());
        said.line("boom".to_owned());
        let error = said.explain(EngineError::new(ErrorKind::Internal, "build image", "p-web", "it returned 1"));
        insta::assert_snapshot!(error, @r"
        build image `p-web`: it returned 1
        last output of the builder:
            Step 2/2 : RUN false
            boom
        ");
    }

    #[test]
    fn buildkit_is_taken_where_it_is_needed() {
        let inline = |text: &str| Build {
            context: std::env::temp_dir().display().to_string(),
            dockerfile_inline: Some(text.into()),
            ..Build::default()
        };
        let plain = inline("FROM scratch\n");
        assert_eq!(choice(&plain, None), Choice::Either);
        assert_eq!(choice(&plain, Some("1")), Choice::BuildKit);
        assert_eq!(choice(&inline("FROM a\nRUN <<E\nls\nE\n"), None), Choice::BuildKit);
        assert_eq!(choice(&inline("# syntax=docker/dockerfile:1\n"), None), Choice::BuildKit);
        assert_eq!(choice(&inline("FROM a\nRUN <<E\nls\nE\n"), Some("0")), Choice::Classic);
        let refused = |text: &str| EngineError::new(ErrorKind::Invalid, "build image", "p", text.to_owned());
        let words = "the --mount option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/";
        assert!(needs_buildkit(&refused(words)));
        assert!(!needs_buildkit(&refused("it returned 1")));
    }
}
