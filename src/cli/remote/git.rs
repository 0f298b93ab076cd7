//! Compose files from git repositories. The only file that names gix.
//!
//! Only files are taken: they are written from the objects of one commit, without `.git`, hooks, filters, attributes or
//! submodules, so nothing of the repository can act. A branch or tag is asked for each time, as in compose; a commit that
//! was fetched once needs no network. The user's own git configuration is obeyed (credentials, rewritten URLs, ssh).

use std::ffi::OsStr;
use std::num::NonZeroU32;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use gix::bstr::BStr;
use gix::objs::tree::EntryKind;
use gix::progress::Discard;
use gix::remote::fetch::{Shallow, Tags};
use gix::remote::{Direction, ref_map};
use gix::{Object, ObjectId, Remote, Repository};

use super::Refusal;
use super::cache::{Cache, Draft, Mode};
use crate::compose::remote::Git;

/// Most bytes of one object.
const MOST_BYTES_OF_OBJECT: u64 = 256 << 20;

/// The folder with the files of a commit.
pub(super) fn fetch(git: &Git, cache: &Cache, stop: &AtomicBool) -> Result<PathBuf, Refusal> {
    let wanted = git.reference.as_deref().unwrap_or("HEAD");
    let pinned = ObjectId::from_hex(wanted.as_bytes()).ok().filter(|_| wanted.len() == 40);
    if let Some(id) = pinned {
        check_commit(git, id)?;
        if let Some(folder) = cache.entry("git", &id.to_string()) {
            return Ok(folder);
        }
    }
    let draft = cache.draft()?;
    crate::image::tls::prepare();
    let repository = scratch(&draft.aside())?;
    let (id, name) = match pinned {
        Some(id) => (id, id.to_string()),
        None => resolve(&repository, git, wanted)?,
    };
    check_commit(git, id)?;
    let digest = id.to_string();
    if let Some(folder) = cache.entry("git", &digest) {
        return Ok(folder);
    }
    receive(&repository, git, &name, stop)?;
    write(&repository, id, draft)?.keep("git", &digest)
}

fn check_commit(git: &Git, id: ObjectId) -> Result<(), Refusal> {
    match &git.commit {
        Some(commit) if !id.to_string().starts_with(&commit.to_ascii_lowercase()) => Err(Refusal::new(
            format!("it is at commit {id}, not {commit}"),
            "find out why it changed; then correct the commit in the address",
        )),
        _ => Ok(()),
    }
}

/// An empty repository to fetch into.
fn scratch(folder: &Path) -> Result<Repository, Refusal> {
    let mut settings = vec![
        "gitoxide.credentials.terminalPrompt=false".to_owned(),
        format!("gitoxide.objects.allocLimit={MOST_BYTES_OF_OBJECT}"),
    ];
    if ["GIT_SSH", "GIT_SSH_COMMAND"].iter().all(|name| std::env::var_os(name).is_none_or(|value| value.is_empty())) {
        // As compose does: ssh asks nothing, and leaves no connection behind.
        settings.push("core.sshCommand=ssh -o ControlMaster=no -o BatchMode=yes".to_owned());
    }
    let options = gix::open::Options::default().config_overrides(settings);
    let create = gix::create::Options::default();
    gix::ThreadSafeRepository::init_opts(folder, gix::create::Kind::Bare, create, options)
        .map(|repository| repository.to_thread_local())
        .map_err(|error| {
            Refusal::new(text(&error), "set WCOMPOSE_CACHE_DIR to a folder that can be written and has room")
        })
}

fn unreachable(git: &Git, error: &gix::Error) -> Refusal {
    Refusal::new(
        text(error),
        format!("check the address, the network, and that `git ls-remote {}` works without asking", shown(git)),
    )
}

fn shown(git: &Git) -> String {
    Git { reference: None, folder: None, commit: None, ..git.clone() }.to_string()
}

/// What an error comes of, in one line: the last cause that says something, behind the first.
fn text(error: &gix::Error) -> String {
    let mut causes = vec![error.to_string()];
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    let says = |text: &String| !text.is_empty() && !text.starts_with("I/O error (") && !text.contains("{ kind:");
    causes.retain(says);
    let (Some(first), Some(last)) = (causes.first(), causes.last()) else { return error.to_string() };
    let text = if first == last { first.clone() } else { format!("{first}: {last}") };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The commit a reference stands for, and the name it can be fetched by. A name is looked for as branch, then as tag.
fn resolve(repository: &Repository, git: &Git, wanted: &str) -> Result<(ObjectId, String), Refusal> {
    let remote = remote(repository, git)?;
    let options = ref_map::Options { extra_refspecs: vec![refspec(git, wanted)?], ..ref_map::Options::default() };
    let answer = remote.connect(Direction::Fetch).and_then(|connection| connection.ref_map(Discard, options));
    let (map, _) = answer.map_err(|error| unreachable(git, &error))?;
    let candidates = ["", "refs/heads/", "refs/tags/", "refs/"].map(|prefix| format!("{prefix}{wanted}"));
    let found = candidates.iter().find_map(|name| {
        let (found, target, peeled) = map
            .remote_refs
            .iter()
            .map(gix::protocol::handshake::Ref::unpack)
            .find(|(found, ..)| *found == BStr::new(name))?;
        Some((peeled.or(target)?.to_owned(), found.to_string()))
    });
    found.ok_or_else(|| {
        let (reason, hint) = if wanted == "HEAD" {
            ("the repository has no commit".to_owned(), "push one, or name a branch as in `#main`".to_owned())
        } else {
            (
                format!("the repository has no branch or tag `{wanted}`"),
                format!("`git ls-remote {}` lists them; a commit takes all 40 digits", shown(git)),
            )
        };
        Refusal::new(reason, hint)
    })
}

/// The remote repository; nothing is sent yet.
fn remote<'r>(repository: &'r Repository, git: &Git) -> Result<Remote<'r>, Refusal> {
    let remote = repository.remote_at(git.url.as_str()).map(|remote| remote.with_fetch_tags(Tags::None));
    remote.map_err(|error| unreachable(git, &error))
}

fn refspec(git: &Git, name: &str) -> Result<gix::refspec::RefSpec, Refusal> {
    gix::refspec::parse(name.into(), gix::refspec::parse::Operation::Fetch)
        .map(|spec| spec.to_owned())
        .map_err(|_| Refusal::new(format!("`{name}` is not a git reference"), format!("look at `{}`", shown(git))))
}

/// Fetches one commit without its history.
fn receive(repository: &Repository, git: &Git, name: &str, stop: &AtomicBool) -> Result<(), Refusal> {
    let remote = remote(repository, git)?;
    let options = ref_map::Options { extra_refspecs: vec![refspec(git, name)?], ..ref_map::Options::default() };
    let connection = remote.connect(Direction::Fetch);
    let prepared = connection.and_then(|connection| connection.prepare_fetch(Discard, options));
    let shallow = Shallow::DepthAtRemote(NonZeroU32::MIN);
    let received = prepared.and_then(|prepared| prepared.with_shallow(shallow).receive(Discard, stop));
    received.map(|_| ()).map_err(|error| unreachable(git, &error))
}

/// Writes the files of a commit.
fn write(repository: &Repository, id: ObjectId, mut draft: Draft) -> Result<Draft, Refusal> {
    let damaged = |error: gix::Error| Refusal::new(format!("it cannot be read: {}", text(&error)), "try again");
    let tree = repository.find_object(id).and_then(Object::peel_to_tree).map_err(damaged)?;
    let mut trees = vec![(PathBuf::new(), tree.id)];
    while let Some((folder, id)) = trees.pop() {
        let tree = repository.find_tree(id).map_err(damaged)?;
        for entry in tree.iter() {
            let entry = entry.map_err(damaged)?;
            let path = folder.join(OsStr::from_bytes(entry.filename()));
            let id = entry.object_id();
            let content = || -> Result<Vec<u8>, Refusal> {
                let size = repository.find_header(id).map_err(damaged)?.size();
                if size > MOST_BYTES_OF_OBJECT {
                    return Err(Refusal::new(
                        format!("its `{}` is larger than {} MiB", path.display(), MOST_BYTES_OF_OBJECT >> 20),
                        "keep compose files in a smaller place, or fetch them yourself",
                    ));
                }
                Ok(repository.find_blob(id).map_err(damaged)?.take_data())
            };
            match entry.mode().kind() {
                EntryKind::Tree => {
                    draft.folder(&path)?;
                    trees.push((path, id));
                }
                EntryKind::Blob => draft.file(&path, &content()?, Mode::Plain)?,
                EntryKind::BlobExecutable => draft.file(&path, &content()?, Mode::Executable)?,
                EntryKind::Link => draft.link(&path, Path::new(OsStr::from_bytes(&content()?)))?,
                // A submodule: as in compose, its place stays empty.
                EntryKind::Commit => draft.folder(&path)?,
            }
        }
    }
    Ok(draft)
}
