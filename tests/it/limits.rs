//! A service that takes without end gets what its limits say, is told so once, and holds up nobody.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::leaks::walk;
use crate::support::project::free_port;
use crate::support::{Guest, Project, eventually, holds, now};

/// A bad neighbour with this in its service, beside one that answers.
fn beside(rascal: &str) -> (Project, u16) {
    let port = free_port();
    let compose = format!(
        "services:\n  good: {{ image: ./relay.wasm, ports: [\"${{PORT}}:8080\"] }}\n  bad:\n    image: ./rascal.wasm\n{rascal}"
    );
    let project = Project::wasm(&compose).guest(Guest::Relay).guest(Guest::Rascal).with("PORT", port);
    project.up();
    (project, port)
}

/// Memory that the supervisor has in use, in bytes.
fn memory(project: &Project) -> u64 {
    let process = project.supervisors()[0];
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a process of ours");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("every process has it");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// CPU time of the supervisor.
fn computed(project: &Project) -> Duration {
    let process = project.supervisors()[0];
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("a process of ours");
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |field: &str| field.parse::<u64>().expect("a number");
    // User and system time, in hundredths of a second.
    Duration::from_millis((ticks(fields[11]) + ticks(fields[12])) * 10)
}

#[test]
fn a_memory_bomb_ends_at_its_limit_and_is_told_once() {
    let (project, port) = beside("    command: [bomb]\n    mem_limit: 64m\n");
    let logs = eventually("it has tried twice", || {
        let logs = project.logs("bad");
        holds(logs.matches("took ").count() >= 2, &logs).map(|()| logs)
    });
    let taken: Vec<u64> =
        logs.lines().filter_map(|line| line.strip_prefix("took ")?.strip_suffix(" MB")?.parse().ok()).collect();
    assert!(taken.iter().all(|megabytes| (32..64).contains(megabytes)), "{taken:?}");
    assert_eq!(logs.matches("mem_limit").count(), 1, "{logs}");
    assert_eq!(project.ask(port, "/say/hi"), "hi");
    assert_eq!(project.service("bad").state, "running", "a refused allocation is the guest's own matter");
}

#[test]
fn a_flood_of_lines_fills_neither_memory_nor_disk() {
    let (project, port) =
        beside("    command: [log, \"2000\"]\n    logging: { options: { max-size: 1m, max-file: \"2\" } }\n");
    let logs = project.root().join("state");
    let newest = || {
        let mut newest = None;
        walk(&logs, &mut |path, kind| {
            if kind.is_file() && path.to_string_lossy().ends_with("bad-1.log.1") {
                newest = path.metadata().and_then(|metadata| metadata.modified()).ok();
            }
        });
        newest
    };
    // Each new age of the older file is a megabyte more.
    let mut ages = Vec::new();
    eventually("some megabytes were written", || {
        if let Some(age) = newest()
            && !ages.contains(&age)
        {
            ages.push(age);
        }
        holds(ages.len() > 8, ages.len())
    });
    let before = memory(&project);
    eventually("some more were written", || {
        if let Some(age) = newest()
            && !ages.contains(&age)
        {
            ages.push(age);
        }
        holds(ages.len() > 16, ages.len())
    });
    assert_eq!(project.ask(port, "/say/hi"), "hi");
    let after = memory(&project);
    assert!(after < before + (32 << 20), "memory grew from {before} to {after}");
    assert!(size_of_logs(&logs) < 3 << 20, "{} bytes are kept", size_of_logs(&logs));
}

fn size_of_logs(folder: &Path) -> u64 {
    let mut size = 0;
    walk(folder, &mut |path, kind| {
        if kind.is_file() && path.to_string_lossy().contains("bad-1.log") {
            size += path.metadata().map_or(0, |metadata| metadata.len());
        }
    });
    size
}

#[test]
fn connections_end_at_the_limit_and_the_neighbour_serves_on() {
    let (project, port) =
        beside("    command: [hold, good, \"8080\"]\n    depends_on: [good]\n    ulimits: { nofile: 20 }\n");
    let logs = project.logged("bad", "held ");
    assert!(logs.contains("held 20\n"), "{logs}");
    let logs = project.logged("bad", "refused to open another socket");
    assert!(logs.contains("nofile"), "{logs}");
    assert_eq!(project.ask(port, "/say/hi"), "hi");
}

#[test]
fn files_of_wasi_3_end_at_the_limit() {
    let port = free_port();
    let project = Project::wasm(
        "services: { one: { image: ./async-peer.wasm, command: [serve, \"80\"], ports: [\"${PORT}:80\"],\
         ulimits: { nofile: 20 }, configs: [{ source: note, target: /note }] } }\nconfigs: { note: { content: kept } }",
    )
    .guest(Guest::AsyncPeer)
    .with("PORT", port);
    project.up();
    assert_eq!(project.ask(port, "/hoard/note"), "20 ErrorCode::InsufficientMemory");
    let again = project.ask(port, "/hoard/note");
    // They were closed; when open ones are looked for, the folder that it opens them in is one.
    assert!(["19", "20"].contains(&again.split(' ').next().unwrap_or_default()), "{again}");
    let logs = project.logged("one", "20 files open");
    assert_eq!(logs.matches("nofile").count(), 1, "{logs}");
}

#[test]
fn a_share_of_the_cpu_is_kept() {
    let (project, port) = beside("    command: [loop]\n    cpus: 0.2\n");
    assert_eq!(project.ask(port, "/say/hi"), "hi");
    let logs = project.logged("bad", "`cpus`");
    assert_eq!(logs.matches("`cpus`").count(), 1);
    let (start, before) = (now(), computed(&project));
    std::thread::sleep(Duration::from_secs(3));
    let share = (computed(&project) - before).as_secs_f64() / start.elapsed().as_secs_f64();
    // The supervisor itself takes a little.
    assert!((0.05..0.4).contains(&share), "{share} of a core, at a share of 0.2");
}
