//! Named volumes of projects that need no Docker engine: `<data>/volumes/<name>`, with the labels in `<name>.json` beside it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::model::{ProjectName, VolumeKey};
use crate::plan::observed::ExistingVolume;
use crate::plan::unit::VolumeSpec;

/// Makes a volume; one that is there keeps its content.
pub fn create(data: &Path, spec: &VolumeSpec) -> io::Result<()> {
    let folder = data.join("volumes").join(checked(&spec.volume.name)?);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    if spec.volume.external {
        return Ok(());
    }
    fs::write(labels_path(data, &spec.volume.name), serde_json::to_vec_pretty(&spec.labels)?)
}

/// Removes a volume and its content; one that is gone is no error.
pub fn remove(data: &Path, name: &str) -> io::Result<()> {
    let folder = data.join("volumes").join(checked(name)?);
    for removed in [fs::remove_dir_all(folder), fs::remove_file(labels_path(data, name))] {
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The volumes of a project, by name.
pub fn of_project(data: &Path, project: &ProjectName) -> io::Result<Vec<ExistingVolume>> {
    let entries = match fs::read_dir(data.join("volumes")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut volumes = Vec::new();
    for entry in entries {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        let Some(name) = name.strip_suffix(".json") else { continue };
        let Ok(text) = fs::read(labels_path(data, name)) else { continue };
        let Ok(mut labels) = serde_json::from_slice::<BTreeMap<String, String>>(&text) else { continue };
        if labels.get("com.docker.compose.project").is_some_and(|label| label == project.as_str()) {
            volumes.push(ExistingVolume {
                name: name.to_owned(),
                key: labels.remove("com.docker.compose.volume").map(VolumeKey::new),
                owned: true,
                config_hash: labels.remove("com.docker.compose.config-hash"),
                in_process: true,
            });
        }
    }
    volumes.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(volumes)
}

/// Whether a volume of that name is a folder of the user's.
pub fn exists(data: &Path, name: &str) -> bool {
    labels_path(data, name).exists()
}

fn labels_path(data: &Path, name: &str) -> PathBuf {
    data.join("volumes").join(format!("{name}.json"))
}

/// A name that is one component of a path.
fn checked(name: &str) -> io::Result<&str> {
    if name.is_empty() || name.contains(['/', '\0']) || name == "." || name == ".." {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a name for a volume"));
    }
    Ok(name)
}
