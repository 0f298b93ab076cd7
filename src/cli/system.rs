//! `wcompose system prune`: removes what wcompose keeps to be faster, and that nothing uses now. Of projects it asks
//! those that run, what they use.

use std::collections::BTreeSet;
use std::io::{BufRead as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;

use super::args::{Prune, System, SystemCommand};
use super::logs::time;
use super::outcome::{Failure, Outcome};
use super::output::out;
use super::settings::Settings;
use crate::control::client;
use crate::engine::wasm::cache::Cache;
use crate::image::content::Content;
use crate::image::prune::{self as image, Keep, Pruning};
use crate::image::registry::Reference;
use crate::image::store::Store;
use crate::session::LogInterest;

/// Runs `system`.
pub async fn system(settings: &Settings, args: System) -> Outcome {
    match args.command {
        SystemCommand::Prune(args) => prune(settings, &args).await,
    }
}

async fn prune(settings: &Settings, args: &Prune) -> Outcome {
    let unused = unused(&args.filter)?;
    let pruning = if settings.dry_run { Pruning::Told } else { Pruning::Done };
    if !args.force && pruning == Pruning::Done && !confirmed(unused, args.all)? {
        return Err(Failure::new("nothing was removed", ["`--force` does not ask".to_owned()]));
    }
    let keep = in_use(settings, args.all, unused).await?;
    let cache = settings.paths.cache();
    let pruned = Cache::new(cache)
        .prune(unused, pruning)
        .with_context(|| format!("remove compiled modules in `{}`", cache.display()))?;
    let folders = settings.paths.image_folders();
    let (content, store) = (Content::new(&folders.data), Store::new(&folders.data));
    let freed = image::prune(&content, &store, &folders.images, &keep, pruning)
        .with_context(|| format!("remove images in `{}`", folders.data.display()))?;

    let verb = if pruning == Pruning::Done { "Removed" } else { "Would remove" };
    out(&format!("{verb} {}", counted(pruned.entries, "compiled module")));
    if pruned.used > 0 {
        out(&format!("Kept {} that running services use", pruned.used));
    }
    for (count, what) in [
        (freed.names, "Wasm image"),
        (freed.blobs, "blob"),
        (freed.folders, "unpacked image"),
        (freed.modules, "stored module"),
        (freed.facts, "module record"),
    ] {
        if count > 0 {
            out(&format!("{verb} {}", counted(count, what)));
        }
    }
    let reclaimed = if pruning == Pruning::Done { "Total reclaimed space" } else { "Total reclaimable space" };
    out(&format!("{reclaimed}: {}", size(pruned.bytes + freed.bytes)));
    Ok(ExitCode::SUCCESS)
}

/// What the services of all running projects use.
async fn in_use(settings: &Settings, all: bool, unused: Option<Duration>) -> Result<Keep, Failure> {
    let mut keep = Keep { names: all.then(BTreeSet::new), unused, ..Keep::default() };
    for socket in settings.paths.sockets() {
        let Some(session) = client::connect(&socket, LogInterest::default()).await? else { continue };
        for view in session.snapshot.instances.values() {
            keep.modules.extend(view.module.iter().map(|module| module.digest.clone()));
            if let (Some(names), Some(reference)) = (&mut keep.names, Reference::parse(&view.image)) {
                names.insert(reference.to_string());
            }
        }
    }
    Ok(keep)
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// `until=24h`, the only filter there is: how long ago the last use has to be.
fn unused(filters: &[String]) -> Result<Option<Duration>, Failure> {
    let mut unused = None;
    for filter in filters {
        let Some(until) = filter.strip_prefix("until=") else {
            return Err(Failure::new(
                format!("`--filter {filter}`: there is no such filter"),
                ["use `until=TIME`, for instance `until=24h`".to_owned()],
            ));
        };
        let age = Timestamp::now().duration_since(time(until)?);
        // A time to come spares nothing.
        unused = Some(Duration::try_from(age).unwrap_or_default());
    }
    Ok(unused)
}

fn confirmed(unused: Option<Duration>, all: bool) -> Result<bool, Failure> {
    let which = match unused {
        Some(age) => format!("not used for {} s", age.as_secs()),
        None => "not used by a running service".to_owned(),
    };
    let images = if all { "all images of Wasm that are" } else { "what is left of images of Wasm, where it is" };
    let mut stderr = std::io::stderr();
    write!(
        stderr,
        "WARNING! This will remove:\n  - compiled Wasm modules {which}; they are compiled again when they are needed\n  \
         - {images} {which}; they are fetched again when they are needed\n  \
         - records of module files that are gone or changed\n\n\
         Are you sure you want to continue? [y/N] "
    )?;
    stderr.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// As docker prints sizes: `0B`, `1.234kB`, `56.7MB`, four digits at most.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["B", "kB", "MB", "GB", "TB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while value >= 1000.0 {
        let Some(next) = units.next() else { break };
        (value, unit) = (value / 1000.0, next);
    }
    let decimals = match value {
        value if unit == "B" || value >= 1000.0 => 0,
        value if value >= 100.0 => 1,
        value if value >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_dockers() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.234kB"),
            (56_740_000, "56.74MB"),
            (2_147_483_648, "2.147GB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn the_filter_is_an_age() {
        let age = unused(&["until=24h".to_owned()]).map_err(|failure| failure.text()).unwrap().unwrap();
        assert!((86_390..86_410).contains(&age.as_secs()), "{age:?}");
        assert!(unused(&["label=x".to_owned()]).is_err());
        assert!(unused(&["until=soon".to_owned()]).is_err());
    }
}
