//! Tar archives on their way into and out of instances: files of this machine packed, and bytes between a thread that blocks
//! and tasks that do not, in pieces over a channel that bounds them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::mpsc;

/// Bytes that are handed on at once.
const PIECE: usize = 64 * 1024;
/// Pieces that may be under way.
const PIECES: usize = 8;

/// Both ends of a way for pieces.
pub fn way() -> (mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>) {
    mpsc::channel(PIECES)
}

/// A thread's end that is written to. What is written last goes with [`io::Write::flush`]; where nobody reads, the pipe is
/// broken.
#[derive(Debug)]
pub struct Outgoing {
    to: mpsc::Sender<Bytes>,
    piece: Vec<u8>,
}

impl Outgoing {
    /// What is written goes to `to`.
    pub fn new(to: mpsc::Sender<Bytes>) -> Self {
        Self { to, piece: Vec::new() }
    }
}

impl io::Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.piece));
        self.to.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// A thread's end that is read from.
#[derive(Debug)]
pub struct Incoming {
    from: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Incoming {
    /// What comes at `from` is read.
    pub fn new(from: mpsc::Receiver<Bytes>) -> Self {
        Self { from, piece: Bytes::new() }
    }
}

impl io::Read for Incoming {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.from.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let length = self.piece.len().min(into.len());
        into[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

/// Packs files with their modes, each under its target; owners are root, and what went away meanwhile is left out.
pub fn of_files<W: io::Write>(files: &[(PathBuf, String)], to: W) -> io::Result<W> {
    let mut archive = tar::Builder::new(to);
    for (path, target) in files {
        match append(&mut archive, path, target.trim_start_matches('/')) {
            // It went away while it was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            appended => appended?,
        }
    }
    archive.into_inner()
}

fn append(archive: &mut tar::Builder<impl io::Write>, path: &Path, target: &str) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&metadata);
    header.set_uid(0);
    header.set_gid(0);
    if metadata.is_symlink() {
        header.set_size(0);
        archive.append_link(&mut header, target, fs::read_link(path)?)
    } else if metadata.is_file() {
        // Whole: a file that grows while it is read would tear the archive.
        let bytes = fs::read(path)?;
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, target, bytes.as_slice())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (to, from) = way();
        let sent: Vec<u8> = (0..PIECE * 3 + 7).map(|number| number as u8).collect();
        let mut outgoing = Outgoing::new(to);
        for part in sent.chunks(1000) {
            outgoing.write_all(part).unwrap();
        }
        outgoing.flush().unwrap();
        drop(outgoing);
        let mut got = Vec::new();
        Incoming::new(from).read_to_end(&mut got).unwrap();
        assert_eq!(got, sent);
    }

    #[test]
    fn nobody_who_reads_is_a_broken_pipe() {
        let (to, from) = way();
        drop(from);
        let mut outgoing = Outgoing::new(to);
        outgoing.write_all(b"lost").unwrap();
        assert_eq!(outgoing.flush().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
