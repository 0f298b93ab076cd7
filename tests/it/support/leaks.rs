//! What a project may not leave behind: objects of the engine, processes, sockets, folders of volumes.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::Engine;

/// Everything left of a project, one line each; empty when it is gone.
pub fn left(engine: Option<&Engine>, project: &str, root: &Path) -> Vec<String> {
    let mut left = engine.map(|engine| engine.objects(project)).unwrap_or_default();
    left.extend(processes(root).into_iter().map(|(id, line)| format!("process {id}: {line}")));
    walk(&root.join("run"), &mut |path, kind| {
        if kind.is_socket() {
            left.push(format!("socket {}", path.display()));
        }
    });
    left
}

/// Processes that run with this scenario's folders: id and command line.
pub fn processes(root: &Path) -> Vec<(i32, String)> {
    let mark = root.join("run").display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // A process of somebody else cannot be read, and is not ours.
        let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
        if String::from_utf8_lossy(&environment).split('\0').any(|pair| pair.ends_with(&mark)) {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push((id, String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    found
}

/// Visits everything beneath a folder, links not followed.
pub fn walk(folder: &Path, visit: &mut dyn FnMut(&Path, fs::FileType)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        visit(&entry.path(), kind);
        if kind.is_dir() {
            walk(&entry.path(), visit);
        }
    }
}
