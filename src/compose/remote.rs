//! What a compose file is called when it is not on this machine: in a git repository or an OCI registry.
//!
//! Pure: it tells such a reference from a path, by the rules of compose (buildkit's for git), and fetches nothing.
//! Where compose takes an address it does not know for the name of a local file, the address is refused by its reason.

use std::fmt;

/// A compose file that has to be fetched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remote {
    /// In a git repository.
    Git(Git),
    /// `oci://REFERENCE`: an artifact in a registry; the reference is not looked into here.
    Oci(String),
}

/// `URL#REFERENCE:FOLDER`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Git {
    /// The repository, in git's words.
    pub url: String,
    /// A branch, tag or commit; none is what the repository's `HEAD` says.
    pub reference: Option<String>,
    /// A folder or file in it, relative and within; none is its root.
    pub folder: Option<String>,
    /// What the commit must be, or begin with.
    pub commit: Option<String>,
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Git(git) => git.fmt(f),
            Self::Oci(reference) => write!(f, "oci://{reference}"),
        }
    }
}

impl fmt::Display for Git {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match password(&self.url) {
            Some((before, after)) => write!(f, "{before}:***@{after}")?,
            None => f.write_str(&self.url)?,
        }
        if let Some(commit) = &self.commit {
            write!(f, "?commit={commit}")?;
        }
        match (&self.reference, &self.folder) {
            (None, None) => Ok(()),
            (Some(reference), None) => write!(f, "#{reference}"),
            (reference, Some(folder)) => write!(f, "#{}:{folder}", reference.as_deref().unwrap_or_default()),
        }
    }
}

/// What stands before and after the password in a URL; messages do not repeat it.
fn password(url: &str) -> Option<(&str, &str)> {
    let authority = url.find("://")? + 3;
    let end = url[authority..].find('/').map_or(url.len(), |length| authority + length);
    let at = url[authority..end].rfind('@')? + authority;
    let colon = url[authority..at].find(':')? + authority;
    Some((&url[..colon], &url[at + 1..]))
}

/// Schemes of git repositories.
const SCHEMES: [&str; 4] = ["https", "http", "ssh", "git"];

/// Reads the name of a compose file: a remote one, or nothing when it is a path of this machine. An address that
/// cannot be fetched from is an error: the reason, after `because `.
pub fn parse(text: &str) -> Result<Option<Remote>, String> {
    if let Some(reference) = text.strip_prefix("oci://") {
        return Ok(Some(Remote::Oci(reference.to_owned())));
    }
    if text.starts_with("./") || text.starts_with("../") {
        return Ok(None);
    }
    if text.starts_with("github.com/") {
        return git(&format!("https://{text}"), Ending::Any).map(Some);
    }
    match scheme(text) {
        Some(scheme) if SCHEMES.contains(&scheme.as_str()) => {
            let web = scheme.starts_with("http");
            let (_, rest) = text.split_once("://").unwrap_or_default();
            git(&format!("{scheme}://{rest}"), if web { Ending::Git } else { Ending::Any }).map(Some)
        }
        Some(scheme) => Err(format!(
            "`{scheme}://` is no way to fetch one; git repositories (`https://HOST/PATH.git#REFERENCE:FOLDER`) and \
             `oci://` are"
        )),
        None if is_scp(text) => git(text, Ending::Any).map(Some),
        None => Ok(None),
    }
}

/// The scheme of a URL, in lower case.
fn scheme(text: &str) -> Option<String> {
    let (scheme, _) = text.split_once("://")?;
    let plain = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    plain.then(|| scheme.to_ascii_lowercase())
}

/// `user@host:path`.
fn is_scp(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else { return false };
    let Some((host, _)) = rest.split_once(':') else { return false };
    let word = |text: &str, also: &[u8]| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || also.contains(&byte))
    };
    word(user, b"-_") && word(host, b"-.")
}

/// How the path of a repository ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// `.git`: any other web address is no repository.
    Git,
    /// As it likes.
    Any,
}

fn git(text: &str, ending: Ending) -> Result<Remote, String> {
    if let Some(odd) = text.chars().find(|character| character.is_control() || *character == ' ') {
        return Err(format!("an address cannot hold the character {odd:?}"));
    }
    let (address, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (url, query) = address.split_once('?').unwrap_or((address, ""));
    place(url, ending)?;
    let mut git = Git { url: url.to_owned(), reference: None, folder: None, commit: None };
    let fragment = if scheme(url).is_some() { decoded(fragment, Plus::Plus)? } else { fragment.to_owned() };
    let (reference, folder) = fragment.split_once(':').unwrap_or((&fragment, ""));
    set(&mut git.reference, "reference", reference)?;
    set(&mut git.folder, "folder", folder)?;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decoded(key, Plus::Space)?, decoded(value, Plus::Space)?);
        match key.as_str() {
            "ref" => set(&mut git.reference, "reference", &value)?,
            "branch" => set(&mut git.reference, "reference", &qualified("refs/heads/", &value))?,
            "tag" => set(&mut git.reference, "reference", &qualified("refs/tags/", &value))?,
            "subdir" => set(&mut git.folder, "folder", &value)?,
            "commit" | "checksum" => set(&mut git.commit, "commit", &value)?,
            // They concern the copy of the repository, of which only the files are used.
            "keep-git-dir" | "submodules" => continue,
            other => return Err(format!("`{other}` is not known in the address of a git repository")),
        }
        if value.is_empty() {
            return Err(format!("`{key}` has no value"));
        }
    }
    if git.reference.as_ref().is_some_and(|reference| reference.starts_with('-')) {
        return Err("a git reference does not begin with `-`".into());
    }
    if let Some(commit) = &git.commit
        && !(commit.len() >= 7 && commit.len() <= 64 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        return Err(format!("`{commit}` is not a commit, which is at least 7 hexadecimal digits"));
    }
    within(git.folder.as_deref().unwrap_or_default())?;
    Ok(Remote::Git(git))
}

/// Whether there is a host, and a path that can be a repository's.
fn place(url: &str, ending: Ending) -> Result<(), String> {
    let (authority, path) = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or((rest, ""), |at| rest.split_at(at)),
        None => url.split_once(':').unwrap_or((url, "")),
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host.is_empty() || host.starts_with(':') {
        return Err("it names no host".into());
    }
    // What begins with a dash, ssh takes for an option.
    if authority.starts_with('-') || host.starts_with('-') {
        return Err("a host or user does not begin with `-`".into());
    }
    if ending == Ending::Git && !decoded(path, Plus::Plus)?.ends_with(".git") {
        return Err("a git repository on the web ends in `.git`, and nothing else is fetched from there".into());
    }
    Ok(())
}

fn set(field: &mut Option<String>, what: &str, value: &str) -> Result<(), String> {
    match field {
        Some(given) if given != value => Err(format!("it names two {what}s, `{given}` and `{value}`")),
        _ if value.is_empty() => Ok(()),
        _ => {
            *field = Some(value.to_owned());
            Ok(())
        }
    }
}

fn qualified(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) || name.is_empty() { name.to_owned() } else { format!("{prefix}{name}") }
}

/// A folder of the repository, and nothing outside of it.
fn within(folder: &str) -> Result<(), String> {
    if folder.starts_with('/') {
        return Err(format!("the folder `{folder}` must be relative to the repository"));
    }
    let mut depth = 0_i32;
    for part in folder.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return Err(format!("the folder `{folder}` is outside of the repository"));
        }
    }
    Ok(())
}

/// What `+` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plus {
    Plus,
    Space,
}

/// Text without percent-encoding.
fn decoded(text: &str, plus: Plus) -> Result<String, String> {
    let wrong = || format!("`{text}` is not percent-encoded text");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        bytes.push(match byte {
            b'%' => {
                let (high, low) = (digit(rest.next()).ok_or_else(wrong)?, digit(rest.next()).ok_or_else(wrong)?);
                u8::try_from(high * 16 + low).expect("two hexadecimal digits are a byte")
            }
            b'+' if plus == Plus::Space => b' ',
            byte => byte,
        });
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    if text.contains(char::is_control) { Err(wrong()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(url: &str, reference: &str, folder: &str) -> Remote {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Remote::Git(Git { url: url.into(), reference: some(reference), folder: some(folder), commit: None })
    }

    #[test]
    fn remote_files_are_told_from_paths() {
        let bar = "https://example.com/foo/bar.git";
        let cases = [
            (bar, git(bar, "", "")),
            ("https://example.com/foo/bar.git#release/1.2", git(bar, "release/1.2", "")),
            ("https://example.com/foo/bar.git#baz/qux:quux/quuz", git(bar, "baz/qux", "quux/quuz")),
            ("https://example.com/foo/bar.git#:sub/compose.yaml", git(bar, "", "sub/compose.yaml")),
            ("https://example.com/foo/bar.git#v1:a/../b", git(bar, "v1", "a/../b")),
            ("HTTPS://example.com/foo/bar.git#a%20b", git(bar, "a b", "")),
            ("https://example.com/foo/bar.git?ref=v1&subdir=sub", git(bar, "v1", "sub")),
            ("https://example.com/foo/bar.git?subdir=sub#v1", git(bar, "v1", "sub")),
            ("https://example.com/foo/bar.git?tag=v1.0", git(bar, "refs/tags/v1.0", "")),
            ("https://example.com/foo/bar.git?branch=refs/heads/x", git(bar, "refs/heads/x", "")),
            ("https://example.com/foo/bar.git?submodules&keep-git-dir=true#x", git(bar, "x", "")),
            ("https://me:secret@example.com/bar.git", git("https://me:secret@example.com/bar.git", "", "")),
            ("http://localhost:8080/bar.git", git("http://localhost:8080/bar.git", "", "")),
            ("git://example.com/bar", git("git://example.com/bar", "", "")),
            ("ssh://git@example.com:22/bar", git("ssh://git@example.com:22/bar", "", "")),
            ("git@github.com:moby/buildkit.git#v1:sub", git("git@github.com:moby/buildkit.git", "v1", "sub")),
            ("git@github.com:moby/buildkit.git?ref=v1", git("git@github.com:moby/buildkit.git", "v1", "")),
            ("me@host:path", git("me@host:path", "", "")),
            ("github.com/moby/buildkit#master", git("https://github.com/moby/buildkit", "master", "")),
            ("oci://localhost:5000/app:1", Remote::Oci("localhost:5000/app:1".into())),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), Ok(Some(expected)), "{text}");
        }
        let paths = [
            "compose.yaml",
            "/srv/compose.yaml",
            "./git@github.com:x.git",
            "../https://example.com/x.git",
            ".git",
            "example.com/moby/buildkit.git",
            "a b@host:path",
            "host:path",
            "C:\\x",
            "-",
            "",
            "://x",
            "~/x.yaml",
        ];
        for text in paths {
            assert_eq!(parse(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_fetched_says_why() {
        let cases = [
            ("https://example.com/compose.yaml", "ends in `.git`"),
            ("https://example.com/foo.git/", "ends in `.git`"),
            ("http://github.com/docker/docker.git:#branch", "ends in `.git`"),
            ("https://example.com/x.git?invalid=1", "`invalid` is not known"),
            ("https://example.com/x.git?ref=", "`ref` has no value"),
            ("https://example.com/x.git?ref=a#b", "two references, `b` and `a`"),
            ("https://example.com/x.git?ref=a&ref=b", "two references"),
            ("https://example.com/x.git?tag=a&branch=a", "two references"),
            ("https://example.com/x.git?subdir=/etc", "must be relative"),
            ("https://example.com/x.git#v1:../etc", "outside of the repository"),
            ("https://example.com/x.git#v1:a/../../etc", "outside of the repository"),
            ("https://example.com/x.git#--upload-pack=x", "begin with `-`"),
            ("https://example.com/x.git?commit=zz", "is not a commit"),
            ("https://example.com/x.git#%zz", "percent-encoded"),
            ("https://example.com/x.git#a%0ab", "percent-encoded"),
            ("https://exam ple.com/x.git", "cannot hold"),
            ("https:///x.git", "no host"),
            ("ssh://-oProxyCommand=x/y", "begin with `-`"),
            ("ssh://me@-x/y", "begin with `-`"),
            ("-oX@host:path", "begin with `-`"),
            ("file:///srv/x.git", "`file://` is no way"),
            ("s3://bucket/x", "`s3://` is no way"),
        ];
        for (text, expected) in cases {
            let reason = parse(text).expect_err(text);
            assert!(reason.contains(expected), "{text}: {reason}");
        }
    }

    #[test]
    fn a_remote_file_is_shown_as_it_is_written() {
        for text in [
            "https://example.com/x.git",
            "https://example.com/x.git#v1",
            "https://example.com/x.git#v1:a/b",
            "https://example.com/x.git#:a/b",
            "https://example.com/x.git?commit=0123456#v1:a",
            "git@example.com:x.git#v1",
            "oci://example.com/x@sha256:00",
        ] {
            let remote = parse(text).expect(text).expect(text);
            assert_eq!(remote.to_string(), text);
        }
        let secret = parse("https://me:secret@example.com:80/x.git#v1").expect("it parses").expect("it is remote");
        assert_eq!(secret.to_string(), "https://me:***@example.com:80/x.git#v1");
    }
}
