//! Entries whole, trusted and in bounds, whoever else is there.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn cache() -> (tempfile::TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    cache.make("key").store(b"code").unwrap();
    (folder, cache)
}

#[test]
fn what_was_stored_is_found() {
    let (_folder, cache) = cache();
    let entry = cache.find("key").expect("just stored");
    assert_eq!(&fs::read(entry.path()).unwrap()[..4], b"code");
    assert!(cache.find("other").is_none());
    cache.make("key").store(b"new").unwrap();
    assert_eq!(&fs::read(cache.find("key").unwrap().path()).unwrap()[..3], b"new");
    assert_eq!(fs::read_dir(&cache.folder).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn a_damaged_entry_is_discarded() {
    for damage in [&b"cod"[..], b"", b"c0de+++++++++++++++++++++++++++++++++++"] {
        let (_folder, cache) = cache();
        fs::write(cache.path("key"), damage).unwrap();
        assert!(cache.find("key").is_none());
        assert!(!cache.path("key").exists());
    }
}

#[test]
fn an_entry_others_may_write_is_discarded() {
    let (_folder, cache) = cache();
    fs::set_permissions(cache.path("key"), fs::Permissions::from_mode(0o622)).unwrap();
    assert!(cache.find("key").is_none());
    assert!(!cache.path("key").exists());
}

#[test]
fn a_link_is_not_followed() {
    let (folder, cache) = cache();
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(cache.path("key"), &elsewhere).unwrap();
    symlink(&elsewhere, cache.path("key")).unwrap();
    assert!(cache.find("key").is_none());
    assert!(elsewhere.exists() && !cache.path("key").exists());
}

#[test]
fn a_folder_others_may_enter_is_not_trusted() {
    let (_folder, cache) = cache();
    fs::set_permissions(&cache.folder, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(cache.find("key").is_none());
    cache.make("key").store(b"new").unwrap();
    assert!(!cache.path("key").exists(), "nothing is stored in it");
}

/// A cache on the same folder, as another process has one.
fn other(cache: &Cache) -> Cache {
    Cache { folder: cache.folder.clone(), size: cache.size, held: Mutex::default() }
}

fn names(cache: &Cache) -> Vec<String> {
    let entries = fs::read_dir(&cache.folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn age(cache: &Cache, key: &str, seconds: u64) {
    let file = File::open(cache.path(key)).unwrap();
    file.set_times(fs::FileTimes::new().set_accessed(SystemTime::now() - Duration::from_secs(seconds))).unwrap();
}

#[test]
fn who_comes_second_waits_and_finds_what_the_first_made() {
    let (_folder, cache) = cache();
    let first = cache.make("slow");
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            let other = other(&cache);
            let _making = other.make("slow");
            other.find("slow").is_some()
        });
        std::thread::sleep(Duration::from_millis(50));
        assert!(!second.is_finished());
        first.store(b"code").unwrap();
        assert!(second.join().unwrap());
    });
    assert_eq!(names(&cache), ["key.cwasm", "slow.cwasm"], "nothing unfinished stays");
}

#[test]
fn what_a_killed_process_left_goes_and_hinders_nobody() {
    let (_folder, cache) = cache();
    fs::write(cache.folder.join(".key2.new"), "half an ent").unwrap();
    fs::write(cache.folder.join(".key3.new"), "half an ent").unwrap();
    cache.make("key2").store(b"whole").unwrap();
    assert!(cache.find("key2").is_some());
    assert_eq!(names(&cache), ["key.cwasm", "key2.cwasm"]);
}

#[test]
fn an_attempt_that_came_to_nothing_leaves_nothing() {
    let (_folder, cache) = cache();
    drop(cache.make("broken"));
    assert_eq!(names(&cache), ["key.cwasm"]);
}

#[test]
fn pruning_leaves_what_a_process_uses_and_what_was_used_lately() {
    let (_folder, cache) = cache();
    for (key, seconds) in [("old", 7200), ("new", 60)] {
        other(&cache).make(key).store(b"code").unwrap();
        age(&cache, key, seconds);
    }
    age(&cache, "key", 7200);
    let hour = Some(Duration::from_secs(3600));
    let expected = Pruned { entries: 1, bytes: (4 + CHECKSUM) as u64, used: 1 };
    assert_eq!(other(&cache).prune(hour, Pruning::Told).unwrap(), expected);
    assert_eq!(names(&cache).len(), 3, "only told");
    assert_eq!(other(&cache).prune(hour, Pruning::Done).unwrap(), expected);
    assert_eq!(names(&cache), ["key.cwasm", "new.cwasm"], "this process made `key` and has it still");
    let user = other(&cache);
    let entry = user.find("new").unwrap();
    user.hold("new", entry);
    assert_eq!(other(&cache).prune(None, Pruning::Done).unwrap(), Pruned { entries: 0, bytes: 0, used: 2 });
    drop((user, cache));
}

#[test]
fn growth_ends_with_the_least_recently_used() {
    let (_folder, mut cache) = cache();
    cache.size = 400;
    for number in 0..10 {
        let key = format!("entry{number}");
        other(&cache).make(&key).store(&[0; 100 - CHECKSUM]).unwrap();
        if cache.path(&key).exists() {
            age(&cache, &key, 1000 - number);
        }
        let total: u64 = cache.entries().unwrap().iter().map(|entry| entry.bytes).sum();
        assert!(total <= 400, "{total}");
    }
    let names = names(&cache);
    assert!(names.contains(&"entry9.cwasm".to_owned()) && !names.contains(&"entry0.cwasm".to_owned()), "{names:?}");
}
