//! The images of a project's instances, as docker compose lists them.

use std::io;

use jiff::Timestamp;
use serde_json::json;

use super::Out;
use super::row::Clock;
use super::table::Table;

/// What stands where there is no name.
const NONE: &str = "<none>";

/// The image of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The instance's container name.
    pub container: String,
    /// Repository, or a module's path.
    pub repository: String,
    /// Tag.
    pub tag: String,
    /// `os/architecture`.
    pub platform: String,
    /// `sha256:…`.
    pub id: String,
    /// Bytes.
    pub size: u64,
    /// When it got its name, where that is known.
    pub tagged: Option<Timestamp>,
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The table.
    Table,
    /// An array.
    Json,
    /// `-q`: ids, each once.
    Ids,
}

/// Prints rows.
pub fn print(rows: &[Row], format: Format, clock: &Clock, out: Out<'_>) -> io::Result<()> {
    match format {
        Format::Table => {
            let mut table = Table::new(["CONTAINER", "REPOSITORY", "TAG", "PLATFORM", "IMAGE ID", "SIZE", "CREATED"]);
            for row in rows {
                table.row([
                    row.container.clone(),
                    named(&row.repository),
                    named(&row.tag),
                    row.platform.clone(),
                    digits(&row.id).chars().take(12).collect(),
                    size(row.size),
                    row.tagged.map_or_else(|| "N/A".to_owned(), |tagged| clock.ago(tagged)),
                ]);
            }
            table.write(out)
        }
        Format::Json => {
            let objects: Vec<_> = rows
                .iter()
                .map(|row| {
                    json!({
                        "ID": row.id,
                        "ContainerName": row.container,
                        "Repository": named(&row.repository),
                        "Tag": named(&row.tag),
                        "Platform": row.platform,
                        "Size": row.size,
                        "LastTagTime": row.tagged.map(|tagged| tagged.to_string()),
                    })
                })
                .collect();
            writeln!(out, "{}", serde_json::Value::Array(objects))
        }
        Format::Ids => {
            let mut printed: Vec<&str> = Vec::new();
            for id in rows.iter().map(|row| digits(&row.id)).filter(|id| !id.is_empty()) {
                if !printed.contains(&id) {
                    writeln!(out, "{id}")?;
                    printed.push(id);
                }
            }
            Ok(())
        }
    }
}

/// Repository and tag of a reference; a module's path has no tag.
pub fn split(reference: &str) -> (String, String) {
    if reference.starts_with(['.', '/']) {
        return (reference.to_owned(), String::new());
    }
    let (name, digest) = reference.split_once('@').map_or((reference, None), |(name, digest)| (name, Some(digest)));
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository.to_owned(), tag.to_owned()),
        _ if digest.is_some() => (name.to_owned(), String::new()),
        _ => (name.to_owned(), "latest".to_owned()),
    }
}

fn named(name: &str) -> String {
    if name.is_empty() { NONE.to_owned() } else { name.to_owned() }
}

fn digits(id: &str) -> &str {
    id.rsplit(':').next().unwrap_or(id)
}

/// As docker prints sizes: three digits, decimal units.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are printed")]
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1000.0 && unit + 1 < UNITS.len() {
        amount /= 1000.0;
        unit += 1;
    }
    let places = match amount {
        amount if amount < 10.0 => 2,
        amount if amount < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{amount:.places$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let row = |container: &str, image: &str, platform: &str, id: &str, size| {
            let (repository, tag) = split(image);
            let tagged = (platform != "wasi/wasm").then(|| "2026-11-24T19:39:22Z".parse().expect("a time"));
            Row { container: container.into(), repository, tag, platform: platform.into(), id: id.into(), size, tagged }
        };
        vec![
            row("p-a-1", "busybox", "linux/amd64", "sha256:9633d0b39c715af0", 1_985_512),
            row("p-b-1", "./app.wasm", "wasi/wasm", "sha256:0123456789abcdef", 270_400_000),
            row("p-c-1", "r:5000/x@sha256:00", "wasip2/wasm", "sha256:9633d0b39c715af0", 12),
        ]
    }

    fn printed(format: Format) -> String {
        let clock = Clock { now: "2026-11-24T20:20:22Z".parse().expect("a time"), zone: jiff::tz::TimeZone::UTC };
        let mut text = Vec::new();
        print(&rows(), format, &clock, &mut text).expect("memory takes it");
        String::from_utf8(text).expect("it is text")
    }

    #[test]
    fn images_are_listed_as_compose_lists_them() {
        insta::assert_snapshot!(printed(Format::Table), @r"
        CONTAINER   REPOSITORY   TAG       PLATFORM      IMAGE ID       SIZE      CREATED
        p-a-1       busybox      latest    linux/amd64   9633d0b39c71   1.99MB    41 minutes ago
        p-b-1       ./app.wasm   <none>    wasi/wasm     0123456789ab   270MB     N/A
        p-c-1       r:5000/x     <none>    wasip2/wasm   9633d0b39c71   12B       41 minutes ago
        ");
        assert_eq!(printed(Format::Ids), "9633d0b39c715af0\n0123456789abcdef\n");
        let first = r#"[{"ID":"sha256:9633d0b39c715af0","ContainerName":"p-a-1","Repository":"busybox","Tag":"latest","Platform":"linux/amd64","Size":1985512,"LastTagTime":"2026-11-24T19:39:22Z"},"#;
        assert!(printed(Format::Json).starts_with(first));
    }

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [(0, "0B"), (999, "999B"), (1000, "1kB"), (1_985_512, "1.99MB"), (58_100_000, "58.1MB")] {
            assert_eq!(size(bytes), text);
        }
    }
}
