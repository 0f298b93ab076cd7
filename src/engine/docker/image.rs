//! Images: looked at, pulled, exported.

use std::path::Path;
use std::time::Duration;

use bollard::Docker as Client;
use bollard::auth::DockerCredentials;
use bollard::models::{CreateImageInfo, HealthConfig, ImageConfig as Body, ImageInspect};
use bollard::query_parameters::{CreateImageOptionsBuilder, PushImageOptionsBuilder, RemoveImageOptions};
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;

use super::error::{is_conflict, is_not_found, wrap};
use super::{Image, ImageFacts};
use crate::engine::{EngineError, ErrorKind, Result};
use crate::image::credentials::{self, Credentials};
use crate::model::{ExposedPort, HealthTest, Healthcheck, ImageConfig};

/// The image of that reference, if the engine has it.
pub(super) async fn inspect(client: &Client, reference: &str) -> Result<Option<Image>> {
    match client.inspect_image(reference).await {
        Ok(found) => Ok(Some(image(found))),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(wrap("inspect image", reference, error)),
    }
}

/// Pulls an image with the credentials of the Docker configuration.
pub(super) async fn pull(
    client: &Client,
    reference: &str,
    platform: Option<&str>,
    progress: &(dyn Fn(String) + Send + Sync),
) -> Result<()> {
    let (name, version) = split(reference);
    let mut options = CreateImageOptionsBuilder::default().from_image(name).tag(version);
    if let Some(platform) = platform {
        options = options.platform(platform);
    }
    let asked = reference.to_owned();
    let credentials = tokio::task::spawn_blocking(move || credentials::of_reference(&asked)).await.unwrap_or_default();
    let mut answers = client.create_image(Some(options.build()), None, credentials.map(in_engine_words));
    let mut last = String::new();
    while let Some(answer) = answers.next().await {
        let info = answer.map_err(|error| explain(wrap("pull image", reference, error), reference))?;
        if let Some(line) = line(&info)
            && line != last
        {
            last.clone_from(&line);
            progress(line);
        }
    }
    Ok(())
}

/// Pushes an image with the credentials of the Docker configuration.
pub(super) async fn push(client: &Client, reference: &str, progress: &(dyn Fn(String) + Send + Sync)) -> Result<()> {
    let (name, version) = split(reference);
    let asked = reference.to_owned();
    let credentials = tokio::task::spawn_blocking(move || credentials::of_reference(&asked)).await.unwrap_or_default();
    let options = PushImageOptionsBuilder::default().tag(version).build();
    let mut answers = client.push_image(name, Some(options), credentials.map(in_engine_words));
    let mut last = String::new();
    while let Some(answer) = answers.next().await {
        let info = answer.map_err(|error| explain(wrap("push image", reference, error), reference))?;
        let line = info.status.as_deref().unwrap_or_default().trim();
        if !line.is_empty() && line != last {
            last = line.to_owned();
            progress(last.clone());
        }
    }
    Ok(())
}

/// What a list of images says of one.
pub(super) async fn facts(client: &Client, reference: &str) -> Result<Option<ImageFacts>> {
    match client.inspect_image(reference).await {
        Ok(found) => {
            let (size, tagged) =
                (found.size, found.metadata.as_ref().and_then(|metadata| metadata.last_tag_time.clone()));
            let image = image(found);
            Ok(Some(ImageFacts {
                platform: image.config.platform,
                id: image.id,
                size: size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
                // Go's zero time: it was never tagged here.
                tagged: tagged.filter(|time| !time.starts_with("0001-")),
            }))
        }
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(wrap("inspect image", reference, error)),
    }
}

/// Removes an image that has no name any more and that nobody uses.
pub(super) async fn prune(client: &Client, id: &str) -> Result<()> {
    let named = match client.inspect_image(id).await {
        Ok(found) => found.repo_tags.is_some_and(|tags| !tags.is_empty()),
        Err(error) if is_not_found(&error) => return Ok(()),
        Err(error) => return Err(wrap("inspect image", id, error)),
    };
    if named {
        return Ok(());
    }
    match client.remove_image(id, None::<RemoveImageOptions>, None).await {
        Err(error) if !is_not_found(&error) && !is_conflict(&error) => Err(wrap("remove image", id, error)),
        _ => Ok(()),
    }
}

/// Credentials as the engine's API has them.
pub(super) fn in_engine_words(credentials: Credentials) -> DockerCredentials {
    DockerCredentials {
        username: credentials.username,
        password: credentials.password,
        identitytoken: credentials.identity_token,
        registrytoken: credentials.registry_token,
        serveraddress: Some(credentials.server),
        ..DockerCredentials::default()
    }
}

/// Writes `docker save` of an image to a file.
pub(super) async fn export(client: &Client, reference: &str, to: &Path) -> Result<()> {
    let io = |error: std::io::Error| {
        EngineError::new(ErrorKind::Internal, "export image", reference, format!("writing {}: {error}", to.display()))
    };
    let mut file = tokio::fs::File::create(to).await.map_err(io)?;
    let mut chunks = client.export_image(reference);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| wrap("export image", reference, error))?;
        file.write_all(&chunk).await.map_err(io)?;
    }
    file.flush().await.map_err(io)
}

/// What the engine tells of an image.
fn image(found: ImageInspect) -> Image {
    let platform = format!(
        "{}/{}",
        found.os.as_deref().unwrap_or("linux"),
        found.architecture.as_deref().filter(|arch| !arch.is_empty()).unwrap_or("unknown")
    );
    Image { id: found.id.unwrap_or_default(), config: config(platform, found.config.unwrap_or_default()) }
}

fn config(platform: String, body: Body) -> ImageConfig {
    ImageConfig {
        platform,
        entrypoint: body.entrypoint.unwrap_or_default(),
        command: body.cmd.unwrap_or_default(),
        environment: body
            .env
            .unwrap_or_default()
            .into_iter()
            .map(|entry| match entry.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None => (entry, String::new()),
            })
            .collect(),
        working_dir: body.working_dir.filter(|folder| !folder.is_empty()),
        exposed: sorted(body.exposed_ports.unwrap_or_default())
            .iter()
            .filter_map(|text| ExposedPort::read(text))
            .collect(),
        volumes: sorted(body.volumes.unwrap_or_default()),
        stop_signal: body.stop_signal.filter(|signal| !signal.is_empty()),
        healthcheck: body.healthcheck.and_then(health_check),
        ..ImageConfig::default()
    }
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list
}

fn health_check(body: HealthConfig) -> Option<Healthcheck> {
    // Zero means "not set" to the engine.
    let time = |nanos: Option<i64>| {
        nanos.and_then(|nanos| u64::try_from(nanos).ok()).filter(|nanos| *nanos > 0).map(Duration::from_nanos)
    };
    Some(Healthcheck {
        test: Some(HealthTest::read(&body.test.unwrap_or_default())?),
        interval: time(body.interval),
        timeout: time(body.timeout),
        retries: body.retries.and_then(|retries| u32::try_from(retries).ok()).filter(|retries| *retries > 0),
        start_period: time(body.start_period),
        start_interval: time(body.start_interval),
    })
}

/// Repository and tag or digest: without a version the engine would pull every tag.
pub(super) fn split(reference: &str) -> (&str, &str) {
    if let Some((name, digest)) = reference.split_once('@') {
        // A tag beside a digest says nothing.
        let name = match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => repository,
            _ => name,
        };
        return (name, digest);
    }
    match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (reference, "latest"),
    }
}

fn line(info: &CreateImageInfo) -> Option<String> {
    let status = info.status.as_deref()?.trim();
    let progress = info.progress_detail.as_ref();
    let amount = match progress.map(|detail| (detail.current, detail.total)) {
        Some((Some(current), Some(total))) if total > 0 => format!(" {}%", current.saturating_mul(100) / total),
        _ => String::new(),
    };
    match info.id.as_deref().filter(|id| !id.is_empty()) {
        Some(layer) => Some(format!("{layer}: {status}{amount}")),
        None => Some(format!("{status}{amount}")),
    }
}

fn explain(error: EngineError, reference: &str) -> EngineError {
    let text = error.source.to_string();
    if text.contains("pull access denied") || text.contains("unauthorized") {
        return error.hint(format!("is `{reference}` spelled right? if it is private: `docker login`"));
    }
    if text.contains("no such host") || text.contains("i/o timeout") || text.contains("connection refused") {
        return error.hint(
            "the engine cannot reach the registry; an image it has already needs `pull_policy: missing` or `never`",
        );
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_split_into_name_and_version() {
        let cases = [
            ("busybox", ("busybox", "latest")),
            ("host:5000/a/b", ("host:5000/a/b", "latest")),
            ("host:5000/a/b:1", ("host:5000/a/b", "1")),
            ("a@sha256:00", ("a", "sha256:00")),
            ("a:1@sha256:00", ("a", "sha256:00")),
        ];
        for (reference, expected) in cases {
            assert_eq!(split(reference), expected, "{reference}");
        }
    }

    #[test]
    fn an_images_settings_are_read() {
        let body = Body {
            env: Some(vec!["PATH=/bin".into(), "EMPTY".into()]),
            exposed_ports: Some(vec!["80/tcp".into(), "53/udp".into()]),
            healthcheck: Some(HealthConfig {
                test: Some(vec!["CMD".into(), "true".into()]),
                interval: Some(0),
                timeout: Some(2_000_000_000),
                ..HealthConfig::default()
            }),
            stop_signal: Some("SIGQUIT".into()),
            ..Body::default()
        };
        let config = config("linux/amd64".into(), body);
        assert_eq!(config.environment["PATH"], "/bin");
        assert_eq!(config.exposed.iter().map(ToString::to_string).collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        let check = config.healthcheck.unwrap();
        assert_eq!(check.test, Some(HealthTest::Command(vec!["true".into()])));
        assert_eq!((check.interval, check.timeout), (None, Some(Duration::from_secs(2))));
    }
}
