use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::*;

/// One entry of a hand-made layer: names are written as they are, tricks included.
enum Item<'a> {
    File(&'a str, &'a str),
    Folder(&'a str),
    Symlink(&'a str, &'a str),
    Hardlink(&'a str, &'a str),
    Device(&'a str),
}
use Item::{Device, File as Text, Folder, Hardlink, Symlink};

fn layer(items: &[Item<'_>]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for item in items {
        let (name, kind, link, text) = match item {
            Text(name, text) => (name, EntryType::Regular, "", *text),
            Folder(name) => (name, EntryType::Directory, "", ""),
            Symlink(name, target) => (name, EntryType::Symlink, *target, ""),
            Hardlink(name, target) => (name, EntryType::Link, *target, ""),
            Device(name) => (name, EntryType::Char, "", ""),
        };
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(text.len() as u64);
        header.set_mode(0o4755);
        // Set byte by byte: the library refuses the names that matter here.
        let raw = header.as_gnu_mut().unwrap();
        raw.name[..name.len()].copy_from_slice(name.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        archive.append(&header, text.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    archive.into_inner().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

fn docker_layout(layers: &[Vec<u8>]) -> Vec<u8> {
    let names: Vec<String> = (0..layers.len()).map(|at| format!("l{at}/layer.tar")).collect();
    let manifest = json!([{ "Config": "c.json", "RepoTags": ["x:latest"], "Layers": names }]);
    // The manifest comes last, as engines write it.
    let mut files: Vec<(String, Vec<u8>)> = names.into_iter().zip(layers.iter().cloned()).collect();
    files.push(("manifest.json".into(), manifest.to_string().into_bytes()));
    archive(&files)
}

fn oci_layout(layers: &[Vec<u8>]) -> Vec<u8> {
    let mut files = Vec::new();
    let mut blob = |bytes: Vec<u8>| {
        let hex: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        files.push((format!("blobs/sha256/{hex}"), bytes));
        format!("sha256:{hex}")
    };
    let layers: Vec<_> = layers.iter().map(|layer| json!({ "digest": blob(layer.clone()) })).collect();
    let manifest = blob(json!({ "layers": layers }).to_string().into_bytes());
    let nested = json!({ "manifests": [
        { "digest": "sha256:attestation", "platform": { "os": "unknown", "architecture": "unknown" } },
        { "digest": manifest, "platform": { "os": "wasi", "architecture": "wasm" } },
    ] });
    let nested = blob(nested.to_string().into_bytes());
    let index = json!({ "manifests": [{ "digest": nested }] });
    files.push(("index.json".into(), index.to_string().into_bytes()));
    archive(&files)
}

struct Case {
    _folder: tempfile::TempDir,
    root: PathBuf,
    outcome: Result<Unpacked, ArchiveError>,
}

impl Case {
    fn new(export: &[u8], limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (path, root) = (folder.path().join("export.tar"), folder.path().join("root"));
        fs::write(&path, export).unwrap();
        fs::create_dir(&root).unwrap();
        fs::write(folder.path().join("outside"), "untouched").unwrap();
        let outcome = unpack(&path, &root, limits);
        let outside = fs::read_to_string(folder.path().join("outside")).unwrap();
        assert_eq!(outside, "untouched", "nothing outside the folder is written");
        let names = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 3, "nothing outside the folder is made");
        Self { _folder: folder, root, outcome }
    }

    fn of(layers: &[&[Item<'_>]]) -> Self {
        let layers: Vec<Vec<u8>> = layers.iter().map(|items| layer(items)).collect();
        Self::new(&docker_layout(&layers), Limits::default())
    }

    fn tree(&self) -> Vec<String> {
        fn walk(root: &Path, folder: &Path, into: &mut Vec<String>) {
            let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            entries.sort();
            for path in entries {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                let found = fs::symlink_metadata(&path).unwrap();
                if found.is_symlink() {
                    into.push(format!("{name} -> {}", fs::read_link(&path).unwrap().display()));
                } else if found.is_dir() {
                    into.push(format!("{name}/"));
                    walk(root, &path, into);
                } else {
                    into.push(format!("{name}: {}", fs::read_to_string(&path).unwrap()));
                }
            }
        }
        let mut tree = Vec::new();
        walk(&self.root, &self.root, &mut tree);
        tree
    }
}

#[test]
fn both_layouts_hold_the_same_files() {
    let layers = [layer(&[Folder("app/"), Text("app/a.wasm", "one")]), layer(&[Text("./app/b", "two")])];
    for export in [docker_layout(&layers), oci_layout(&layers)] {
        let case = Case::new(&export, Limits::default());
        assert_eq!(case.tree(), ["app/", "app/a.wasm: one", "app/b: two"]);
        assert_eq!(case.outcome.unwrap(), Unpacked { bytes: 6, entries: 3, left_out: 0 });
    }
}

#[test]
fn packed_layers_are_read() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&layer(&[Text("a", "x")])).unwrap();
    let case = Case::new(&oci_layout(&[packed.finish().unwrap()]), Limits::default());
    assert_eq!(case.tree(), ["a: x"]);
    let packed = zstd(&layer(&[Text("a", "x")]));
    let case = Case::new(&oci_layout(std::slice::from_ref(&packed)), Limits::default());
    assert_eq!(case.tree(), ["a: x"]);
    let case = Case::new(&oci_layout(&[packed[..packed.len() / 2].to_vec()]), Limits::default());
    assert!(matches!(case.outcome, Err(ArchiveError::Malformed { .. })), "{:?}", case.outcome);
}

#[test]
fn equal_layers_may_be_links() {
    let mut export = tar::Builder::new(Vec::new());
    let mut append = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        export.append_data(&mut header, name, bytes).unwrap();
    };
    append("l0/layer.tar", &layer(&[Text("a", "x")]));
    append("manifest.json", br#"[{"Layers": ["l1/layer.tar"]}]"#);
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(EntryType::Symlink);
    link.set_size(0);
    export.append_link(&mut link, "l1/layer.tar", "../l0/layer.tar").unwrap();
    assert_eq!(Case::new(&export.into_inner().unwrap(), Limits::default()).tree(), ["a: x"]);
}

#[test]
fn upper_layers_hide_lower_ones() {
    let case = Case::of(&[
        &[Text("gone", "1"), Text("dir/old", "1"), Text("dir/kept", "1"), Text("swap/x", "1"), Text("file", "1")],
        &[
            Text(".wh.gone", ""),
            Text("dir/new", "2"),
            Text("dir/.wh..wh..opq", ""),
            Text("swap", "now a file"),
            Text("file/below", "now a folder"),
        ],
        &[Text("dir/.wh.nothing", ""), Text("dir/third", "3")],
    ]);
    assert_eq!(
        case.tree(),
        ["dir/", "dir/new: 2", "dir/third: 3", "file/", "file/below: now a folder", "swap: now a file"]
    );
}

#[test]
fn paths_that_lead_out_are_left_out() {
    let case = Case::of(&[&[
        Text("../outside", "bad"),
        Text("a/../../outside", "bad"),
        Text("/outside", "inside after all"),
        Text("/a/../../../outside", "bad"),
        Text("..", "bad"),
        Text(".wh...", ""),
        Text("a/.wh..", ""),
    ]]);
    assert_eq!(case.tree(), ["outside: inside after all"]);
    assert_eq!(case.outcome.unwrap().left_out, 4);
}

#[test]
fn nothing_is_written_through_a_link() {
    let case = Case::of(&[
        &[Symlink("up", ".."), Symlink("here", "."), Symlink("chain", "here/.."), Symlink("abs", "/etc/../outside")],
        &[Text("here/through", "bad"), Text("here/.wh.here", ""), Text("here", "a file instead")],
        &[
            Hardlink("stolen", "../outside"),
            Hardlink("passwd", "/etc/passwd"),
            Symlink("dir", "here"),
            Text("dir/x", "bad"),
        ],
    ]);
    assert_eq!(case.tree(), ["dir -> here", "here: a file instead"]);
}

#[test]
fn links_inside_stay_links() {
    let case = Case::of(&[&[
        Text("bin/busybox", "b"),
        Symlink("bin/sh", "/bin/busybox"),
        Symlink("usr/local/sh", "../../bin/sh"),
        Symlink("root", "/"),
        Symlink("usr/local/too-far", "../../../bin/sh"),
        Hardlink("bin/cat", "bin/busybox"),
        Hardlink("bin/missing", "bin/none"),
    ]]);
    assert_eq!(
        case.tree(),
        [
            "bin/",
            "bin/busybox: b",
            "bin/cat: b",
            "bin/sh -> ../bin/busybox",
            "root -> .",
            "usr/",
            "usr/local/",
            "usr/local/sh -> ../../bin/sh",
        ]
    );
    assert_eq!(fs::read_to_string(case.root.join("usr/local/sh")).unwrap(), "b");
}

#[test]
fn devices_and_special_permissions_are_not_taken_over() {
    let case = Case::of(&[&[Device("dev/null"), Text("tool", "x"), Folder("d")]]);
    assert_eq!(case.tree(), ["d/", "tool: x"]);
    assert_eq!(fs::metadata(case.root.join("tool")).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(case.outcome.unwrap().left_out, 1);
}

#[test]
fn limits_hold() {
    let export = docker_layout(&[layer(&[Text("a", "12345"), Text("b", "12345")])]);
    let few_bytes = Case::new(&export, Limits { bytes: 9, entries: 10 });
    assert!(matches!(few_bytes.outcome, Err(ArchiveError::TooLarge(_))));
    let exactly = Case::new(&export, Limits { bytes: 10, entries: 2 });
    assert_eq!(exactly.outcome.unwrap().bytes, 10);
    let few_entries = Case::new(&export, Limits { bytes: 100, entries: 1 });
    assert!(matches!(few_entries.outcome, Err(ArchiveError::TooLarge(_))));
}

#[test]
fn what_is_no_export_is_said_so() {
    let cases: [(&[u8], &str); 4] = [
        (b"", "no manifest.json"),
        (b"not a tar, and far too short for one", "is not an image export"),
        (&archive(&[("manifest.json".into(), b"[]".to_vec())]), "names no layers"),
        (&archive(&[("manifest.json".into(), br#"[{"Layers":["l"]}]"#.to_vec())]), "lacks l"),
    ];
    for (export, expected) in cases {
        let error = Case::new(export, Limits::default()).outcome.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

fn taken(saved: &[u8]) -> (tempfile::TempDir, Content, Result<String, ContentError>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved.tar");
    fs::write(&path, saved).unwrap();
    let content = Content::new(folder.path());
    let taken = take_in(&path, &content, Limits::default());
    (folder, content, taken)
}

/// What `docker save` writes, with the digests that an engine would give.
fn saved(layers: &[Vec<u8>], tamper: Option<&[u8]>) -> Vec<u8> {
    let digests: Vec<String> = layers.iter().map(|layer| oci::sha256(layer)).collect();
    let config = json!({ "os": "linux", "architecture": "amd64", "rootfs": { "diff_ids": digests } }).to_string();
    let config_name = format!("{}.json", oci::sha256(config.as_bytes()).trim_start_matches("sha256:"));
    let names: Vec<String> = (0..layers.len()).map(|at| format!("l{at}/layer.tar")).collect();
    let manifest = json!([{ "Config": config_name, "Layers": names }]);
    let mut files =
        vec![(config_name, config.into_bytes()), ("manifest.json".into(), manifest.to_string().into_bytes())];
    files.extend(names.into_iter().zip(layers.iter().map(|layer| tamper.map_or(layer.clone(), <[u8]>::to_vec))));
    archive(&files)
}

#[test]
fn saved_images_are_taken_in_whatever_they_are_packed_with() {
    let layers = [layer(&[Text("a", "x")])];
    let plain = saved(&layers, None);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    for form in [plain.clone(), gzip.finish().unwrap(), zstd(&plain), oci_layout(&layers)] {
        let (_folder, content, taken) = taken(&form);
        let manifest = Document::read(&content.read(&taken.unwrap(), LONGEST).unwrap()).unwrap();
        assert_eq!(content.read(&manifest.layers[0].digest, LONGEST).unwrap(), layers[0]);
    }
}

#[test]
fn a_part_that_is_not_what_its_digest_says_is_refused() {
    let layers = [layer(&[Text("a", "x")])];
    let other = layer(&[Text("a", "y")]);
    let (_folder, content, refused) = taken(&saved(&layers, Some(&other)));
    assert!(matches!(refused, Err(ContentError::Damaged { .. })), "{refused:?}");
    assert!(!content.has(&oci::sha256(&other)));
    let oci = oci_layout(&layers);
    let text = oci.windows(layers[0].len()).position(|window| window == layers[0].as_slice()).unwrap();
    let mut tampered = oci.clone();
    tampered[text + 512] ^= 1;
    let (_folder, _, refused) = taken(&tampered);
    assert!(matches!(refused, Err(ContentError::Damaged { .. })), "{refused:?}");
}

#[test]
fn a_saved_image_is_told_from_a_module() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    for (bytes, expected) in [
        (saved(&[], None), true),
        (zstd(b"x"), true),
        (b"\0asm\x01\0\0\0".to_vec(), false),
        (b"(module)".to_vec(), false),
        (Vec::new(), false),
    ] {
        fs::write(&path, bytes).unwrap();
        assert_eq!(is_saved(&path), expected);
    }
    assert!(is_saved(folder.path()));
    assert!(!is_saved(&folder.path().join("gone")));
}
