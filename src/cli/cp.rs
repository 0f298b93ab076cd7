//! `wcompose cp`: files into and out of services of both kinds, as tar archives in between.
//!
//! The rules are docker's: a folder that exists is copied into, a name that does not exist is what the copy is called,
//! `folder/.` means what is in it. `-` is an archive on a standard stream.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::args::Cp;
use super::outcome::{Failure, Outcome};
use super::pick::{self, Chosen, OneOffs};
use super::settings::Settings;
use super::streams::lost;
use super::target::Target;
use crate::control::stream;
use crate::engine::archive::{self, Incoming, Outgoing};
use crate::engine::docker::Found;
use crate::model::ServiceName;
use crate::session::LogStream;
use crate::session::stream::{Ending, Ends, Errand, Said};

/// Runs `cp`.
pub async fn cp(mut settings: Settings, args: Cp) -> Outcome {
    let (source, destination) = (place(&args.source), place(&args.destination));
    let (service, inside, here, direction) = match (source, destination) {
        (Place::Service(service, inside), Place::Here(here)) => (service, inside, here, Direction::Out),
        (Place::Here(here), Place::Service(service, inside)) => (service, inside, here, Direction::In),
        (Place::Service(..), Place::Service(..)) => {
            return Err(Failure::new(
                "both sides name a service",
                ["copy to this machine first, then on: one side is SERVICE:PATH".to_owned()],
            ));
        }
        (Place::Here(_), Place::Here(_)) => {
            return Err(Failure::new("neither side names a service", ["one side is SERVICE:PATH".to_owned()]));
        }
    };
    settings.load.enable.push(service.clone());
    let target = Target::find(&settings).await?;
    let service = target.services(&[service])?.remove(0);
    let one_offs = if args.all { OneOffs::Taken } else { OneOffs::Left };
    let mut chosen = pick::instances(&settings, &target, &service, args.index, one_offs, |_| true).await?;
    if chosen.is_empty() {
        return Err(pick::not_running(&service));
    }
    match direction {
        Direction::Out => copy_out(&chosen.remove(0), &inside, &here, &args).await?,
        Direction::In => {
            // Into every replica, unless one is named; standard input can be read once.
            if here == "-" {
                chosen.truncate(1);
            }
            for one in &chosen {
                copy_in(one, &service, &here, &inside, &args).await?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

enum Direction {
    Out,
    In,
}

enum Place {
    Here(String),
    Service(String, String),
}

/// `SERVICE:PATH`, unless it is plainly a path of this machine.
fn place(text: &str) -> Place {
    match text.split_once(':') {
        Some((service, path)) if !service.is_empty() && !service.starts_with(['/', '.']) && !service.contains('/') => {
            Place::Service(service.to_owned(), path.to_owned())
        }
        _ => Place::Here(text.to_owned()),
    }
}

async fn copy_out(from: &Chosen, path: &str, here: &str, args: &Cp) -> Result<(), Failure> {
    let (to, incoming) = archive::way();
    let sending = async {
        match from {
            Chosen::Container { docker, name } => {
                let mut path = path.to_owned();
                if args.follow_link
                    && let Some(Found::Link(to)) = docker.find_path(name, &path).await?
                {
                    path = to;
                }
                Ok(docker.copy_out(name, &path, to).await?)
            }
            Chosen::Guest { socket, instance } => {
                let (instance, path) = (instance.clone(), path.to_owned());
                let errand = Errand::CopyOut { instance, path, follow: args.follow_link };
                let ends = stream::open(socket, errand).await?.ok_or_else(lost)?;
                receive(ends, to).await
            }
        }
    };
    let here = here.to_owned();
    let what = Taken {
        inner: path.ends_with("/."),
        // A link that was followed is what the copy is called by.
        name: Path::new(path).file_name().map(|name| name.to_owned()),
    };
    let taking = tokio::task::spawn_blocking(move || take(Incoming::new(incoming), &here, &what));
    let (sent, taken) = tokio::join!(sending, taking);
    // What went wrong over there says more than an archive that ends early.
    sent?;
    taken.map_err(anyhow::Error::from)?
}

/// What an errand writes, to its end.
async fn receive(ends: Ends, pieces: mpsc::Sender<Bytes>) -> Result<(), Failure> {
    let Ends { input, signals: _open, mut said } = ends;
    drop(input);
    while let Some(word) = said.recv().await {
        match word {
            Said::Output(LogStream::Stdout, bytes) => {
                if pieces.send(bytes).await.is_err() {
                    return Ok(());
                }
            }
            Said::Output(LogStream::Stderr, _) => {}
            Said::Ended(ending) => return concluded(ending),
        }
    }
    Err(lost())
}

fn concluded(ending: Ending) -> Result<(), Failure> {
    match ending {
        Ending::Exited(_) => Ok(()),
        Ending::Refused { message, hint } => Err(Failure::new(message, hint)),
    }
}

/// What an archive holds.
struct Taken {
    /// The content of a folder, rather than the folder.
    inner: bool,
    /// The name of what it holds, where it has one.
    name: Option<OsString>,
}

/// Writes an archive where it is wanted here.
fn take(archive: Incoming, here: &str, what: &Taken) -> Result<(), Failure> {
    if here == "-" {
        let mut out = io::stdout().lock();
        let mut archive = archive;
        io::copy(&mut archive, &mut out).and_then(|_| out.flush()).context("write the archive")?;
        return Ok(());
    }
    let destination = Path::new(here);
    if what.inner && !destination.exists() {
        fs::create_dir(destination).with_context(|| format!("make `{here}`"))?;
    }
    let into = destination.is_dir();
    let above = if into { destination } else { destination.parent().unwrap_or(Path::new(".")) };
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    if !above.is_dir() {
        return Err(Failure::new(format!("there is no folder `{}`", above.display()), []));
    }
    // Unpacked beside its place first: the archive's names are kept beneath it by the library, links or not.
    let work = above.join(format!(".wcompose-cp-{}", std::process::id()));
    fs::create_dir(&work).with_context(|| format!("make `{}`", work.display()))?;
    let outcome = (|| {
        let mut reader = tar::Archive::new(archive);
        reader.set_preserve_permissions(true);
        reader.unpack(&work).context("unpack the archive")?;
        for entry in fs::read_dir(&work)? {
            let entry = entry?;
            let own = what.name.clone().filter(|_| !what.inner).unwrap_or_else(|| entry.file_name());
            let to = if into { destination.join(own) } else { destination.to_owned() };
            put(&entry.path(), &to).with_context(|| format!("write `{}`", to.display()))?;
        }
        Ok(())
    })();
    let _ = fs::remove_dir_all(&work);
    outcome
}

/// Moves a file or folder to its place; a folder that is there is copied into.
fn put(from: &Path, to: &Path) -> io::Result<()> {
    let is_folder = |path: &Path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    if is_folder(from) && to.is_dir() {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            put(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    if !is_folder(from) && is_folder(to) {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "a folder is in the place of a file"));
    }
    fs::rename(from, to)
}

async fn copy_in(to: &Chosen, service: &ServiceName, here: &str, inside: &str, args: &Cp) -> Result<(), Failure> {
    let (from, outgoing) = archive::way();
    let (folder, name) = match to {
        Chosen::Container { docker, name } => {
            // A link is followed, whether a file, a folder or nothing is behind it.
            let (inside, found) = match docker.find_path(name, inside).await? {
                Some(Found::Link(to)) => (to.clone(), docker.find_path(name, &to).await?),
                found => (inside.to_owned(), found),
            };
            match found {
                Some(Found::Folder | Found::Link(_)) => (inside, None),
                Some(Found::File) | None if here == "-" => {
                    return Err(Failure::new(format!("`{service}:{inside}` is no folder to unpack an archive in"), []));
                }
                Some(Found::File) | None => {
                    let path = Path::new(inside.trim_end_matches('/'));
                    let above = path.parent().map_or("/".to_owned(), |above| above.display().to_string());
                    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
                    (if above.is_empty() { "/".to_owned() } else { above }, name)
                }
            }
        }
        // The supervisor looks where it is.
        Chosen::Guest { .. } => (inside.to_owned(), None),
    };
    let packing = {
        let (here, follow) = (here.to_owned(), args.follow_link);
        let to = Outgoing::new(from);
        tokio::task::spawn_blocking(move || pack(&here, name, follow, to))
    };
    let sending = async {
        match to {
            Chosen::Container { docker, name } => Ok(docker.copy_in(name, &folder, args.archive, outgoing).await?),
            Chosen::Guest { socket, instance } => {
                send(socket, Errand::CopyIn { instance: instance.clone(), path: folder }, outgoing).await
            }
        }
    };
    let (sent, packed) = tokio::join!(sending, packing);
    let packed = packed.map_err(anyhow::Error::from)?;
    match (sent, packed) {
        // The other side went first: it says why.
        (Err(failure), _) => Err(failure),
        (Ok(()), packed) => packed,
    }
}

/// Has a supervisor do an errand that reads, and waits for its end.
pub async fn send(socket: &Path, errand: Errand, outgoing: mpsc::Receiver<Bytes>) -> Result<(), Failure> {
    transmit(stream::open(socket, errand).await?.ok_or_else(lost)?, outgoing).await
}

/// Sends what an errand reads, and waits for its last word.
async fn transmit(ends: Ends, mut outgoing: mpsc::Receiver<Bytes>) -> Result<(), Failure> {
    let Ends { input, signals: _open, mut said } = ends;
    let sending = async {
        while let Some(piece) = outgoing.recv().await {
            if input.send(piece).await.is_err() {
                break;
            }
        }
        drop(input);
    };
    let last = async {
        while let Some(word) = said.recv().await {
            if let Said::Ended(ending) = word {
                return concluded(ending);
            }
        }
        Err(lost())
    };
    let mut last = std::pin::pin!(last);
    tokio::select! {
        ended = &mut last => return ended,
        () = sending => {}
    }
    last.await
}

/// Packs a file or folder of this machine, under its own name or another.
fn pack(here: &str, name: Option<String>, follow: bool, to: Outgoing) -> Result<(), Failure> {
    let mut to = to;
    if here == "-" {
        io::copy(&mut io::stdin().lock(), &mut to).and_then(|_| to.flush()).context("read the archive")?;
        return Ok(());
    }
    let path = Path::new(here);
    let metadata = if follow { fs::metadata(path) } else { fs::symlink_metadata(path) };
    let metadata = metadata.with_context(|| format!("read `{here}`"))?;
    let inner = here.ends_with("/.") || here == ".";
    let name = match (inner, name, path.file_name()) {
        (true, None, _) => PathBuf::from("."),
        (_, Some(name), _) => PathBuf::from(name),
        (_, None, Some(own)) => PathBuf::from(own),
        (_, None, None) => PathBuf::from("."),
    };
    let mut archive = tar::Builder::new(&mut to);
    archive.follow_symlinks(false);
    let packed = if metadata.is_dir() {
        archive.append_dir_all(&name, path)
    } else {
        archive.follow_symlinks(follow);
        archive.append_path_with_name(path, &name)
    };
    let finished = packed.and_then(|()| archive.finish());
    drop(archive);
    let flushed = finished.and_then(|()| to.flush());
    match flushed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        flushed => Ok(flushed.with_context(|| format!("read `{here}`"))?),
    }
}
