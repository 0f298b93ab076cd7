//! Volumes, binds, memory, configs and secrets: what a container sees of files outside its image.
//!
//! As compose does it: named volumes and host paths that may have to be made are `Binds`, everything else is a `Mount`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bollard::models::{
    Mount as MountBody, MountBindOptions, MountBindOptionsPropagationEnum, MountImageOptions, MountTmpfsOptions,
    MountType, MountVolumeOptions,
};

use super::document::Document;
use crate::model::{FileContent, FileGrant, Mount, MountSource};
use crate::plan::unit::InstanceSpec;

/// The three places of a container's body that hold mounts.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Mounts {
    pub(super) binds: Vec<String>,
    pub(super) mounts: Vec<MountBody>,
    pub(super) tmpfs: HashMap<String, String>,
}

/// `inherited` are anonymous volumes of the container that this one replaces: target → the engine's volume name.
pub(super) fn mounts(spec: &InstanceSpec, inherited: &BTreeMap<String, String>) -> Mounts {
    let mut all = Mounts { tmpfs: short_tmpfs(spec), ..Mounts::default() };
    let mut taken: BTreeSet<&str> = BTreeSet::new();
    for mount in &spec.service.mounts {
        if all.tmpfs.contains_key(mount.target.as_str()) {
            continue;
        }
        let carried = matches!(mount.source, MountSource::Anonymous { .. }) && inherited.contains_key(&mount.target);
        if carried {
            continue;
        }
        taken.insert(&mount.target);
        match bind(spec, mount) {
            Some(bind) => all.binds.push(bind),
            None => all.mounts.push(body(spec, mount)),
        }
    }
    for grant in spec.service.configs.iter().chain(&spec.service.secrets) {
        if let FileContent::File(path) = &grant.content {
            taken.insert(&grant.target);
            all.mounts.push(MountBody {
                typ: Some(MountType::BIND),
                source: Some(path.display().to_string()),
                target: Some(grant.target.clone()),
                read_only: Some(true),
                ..MountBody::default()
            });
        }
    }
    for (target, volume) in inherited {
        if !taken.contains(target.as_str()) && !all.tmpfs.contains_key(target) {
            all.mounts.push(MountBody {
                typ: Some(MountType::VOLUME),
                source: Some(volume.clone()),
                target: Some(target.clone()),
                ..MountBody::default()
            });
        }
    }
    all
}

/// Configs and secrets whose content has to be written into the container.
pub(in crate::engine::docker) fn written(spec: &InstanceSpec) -> impl Iterator<Item = (&FileGrant, &str)> {
    spec.service.configs.iter().chain(&spec.service.secrets).filter_map(|grant| match &grant.content {
        FileContent::Inline(text) => Some((grant, text.as_str())),
        FileContent::Environment { value, .. } => Some((grant, value.as_deref().unwrap_or_default())),
        FileContent::File(_) | FileContent::External { .. } => None,
    })
}

/// The key `tmpfs` keeps options that the typed mount has no field for.
fn short_tmpfs(spec: &InstanceSpec) -> HashMap<String, String> {
    Document(&spec.service.document)
        .list("tmpfs")
        .unwrap_or_default()
        .into_iter()
        .map(|entry| match entry.split_once(':') {
            Some((target, options)) => (target.to_owned(), options.to_owned()),
            None => (entry, String::new()),
        })
        .collect()
}

fn bind(spec: &InstanceSpec, mount: &Mount) -> Option<String> {
    let access = if mount.read_only { "ro" } else { "rw" };
    match &mount.source {
        MountSource::Volume { key, no_copy, subpath: None } => {
            let options = if *no_copy { ",nocopy" } else { "" };
            Some(format!("{}:{}:{access}{options}", spec.volumes.get(key)?, mount.target))
        }
        MountSource::Bind { path, create: true, propagation, selinux } => {
            let mut options = access.to_owned();
            for option in [selinux, propagation].into_iter().flatten() {
                options = format!("{options},{option}");
            }
            Some(format!("{}:{}:{options}", path.display(), mount.target))
        }
        MountSource::Volume { .. }
        | MountSource::Bind { .. }
        | MountSource::Anonymous { .. }
        | MountSource::Tmpfs { .. }
        | MountSource::Other { .. } => None,
    }
}

fn body(spec: &InstanceSpec, mount: &Mount) -> MountBody {
    let base = MountBody {
        target: Some(mount.target.clone()),
        read_only: mount.read_only.then_some(true),
        ..MountBody::default()
    };
    match &mount.source {
        MountSource::Volume { key, no_copy, subpath } => MountBody {
            typ: Some(MountType::VOLUME),
            source: Some(spec.volumes.get(key).cloned().unwrap_or_else(|| key.to_string())),
            volume_options: Some(MountVolumeOptions {
                no_copy: no_copy.then_some(true),
                subpath: subpath.clone(),
                ..MountVolumeOptions::default()
            }),
            ..base
        },
        MountSource::Anonymous { no_copy } => MountBody {
            typ: Some(MountType::VOLUME),
            volume_options: no_copy
                .then(|| MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() }),
            ..base
        },
        MountSource::Bind { path, propagation, .. } => MountBody {
            typ: Some(MountType::BIND),
            source: Some(path.display().to_string()),
            bind_options: propagation
                .as_deref()
                .and_then(|mode| mode.parse::<MountBindOptionsPropagationEnum>().ok())
                .map(|mode| MountBindOptions { propagation: Some(mode), ..MountBindOptions::default() }),
            ..base
        },
        MountSource::Tmpfs { size, mode } => MountBody {
            typ: Some(MountType::TMPFS),
            tmpfs_options: (size.is_some() || mode.is_some()).then(|| MountTmpfsOptions {
                size_bytes: size.map(|size| i64::try_from(size.0).unwrap_or(i64::MAX)),
                mode: mode.map(i64::from),
                ..MountTmpfsOptions::default()
            }),
            ..base
        },
        MountSource::Other { kind, source } => MountBody {
            typ: kind.parse::<MountType>().ok(),
            source: source.clone(),
            image_options: image_options(spec, mount),
            ..base
        },
    }
}

fn image_options(spec: &InstanceSpec, mount: &Mount) -> Option<MountImageOptions> {
    let subpath = Document(&spec.service.document)
        .entries("volumes")
        .find(|entry| entry.text("target").as_deref() == Some(mount.target.as_str()))?
        .child("image")
        .text("subpath")?;
    Some(MountImageOptions { subpath: Some(subpath) })
}
