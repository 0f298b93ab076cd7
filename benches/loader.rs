//! `config --format json` of generated files as a whole process: time and peak memory, beside the real Docker Compose
//! where `docker compose` is there (`../shared/tools/reference-compose` installs it). Run by `benches/run`.

#[path = "support/figure.rs"]
mod figure;

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use figure::{Figure, median, shown};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    let reference = Command::new("docker").args(["compose", "version", "--short"]).output();
    let reference = reference.is_ok_and(|output| output.status.success());
    if !reference {
        say("docker compose is not installed: times alone, no baseline\n")?;
    }
    for (services, turns, note) in
        [(3, 21, "aim: 5 ms"), (100, 11, "growth"), (1_000, 11, "aim: 40 ms, 60 MB"), (10_000, 3, "growth")]
    {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("compose.yaml"), project(services))?;
        let what = format!("config, {services} services");
        if reference {
            let mut figure = Figure::new(&what, "docker compose");
            for turn in 0..=turns {
                let (ours, theirs) = (time(OURS, folder.path())?, time(THEIRS, folder.path())?);
                // The first turn warms the caches.
                if turn > 0 {
                    figure.take(ours, theirs);
                }
            }
            figure.print(note);
        } else {
            let times: Result<Vec<_>, _> = (0..turns).map(|_| time(OURS, folder.path())).collect();
            let time = median(times?.iter().map(Duration::as_secs_f64));
            say(&format!("{what:<40} {:>10}; {note}\n", shown(time)))?;
        }
        if services == 1_000 {
            let mut memory = format!("{what}, peak memory: {}", peak(OURS, folder.path())?);
            if reference {
                write!(memory, ", docker compose {}", peak(THEIRS, folder.path())?)?;
            }
            say(&(memory + "\n"))?;
        }
    }
    Ok(())
}

const OURS: &[&str] = &[env!("CARGO_BIN_EXE_wcompose")];
const THEIRS: &[&str] = &["docker", "compose"];

fn say(text: &str) -> io::Result<()> {
    io::stdout().write_all(text.as_bytes())
}

/// Services with environment, ports, dependencies, volumes and health checks.
fn project(services: usize) -> String {
    let mut text = "name: big\nservices:\n".to_owned();
    for at in 0..services {
        let port = at % 50_000;
        let _ = write!(
            text,
            r#"  s{at}:
    image: registry.example.com/team/app-{}:1.{at}
    environment:
      DATABASE_URL: postgres://db-{at}:5432/app
      LOG_LEVEL: ${{LOG_LEVEL:-info}}
      INDEX: {at}
    ports:
      - "{}:80"
      - "127.0.0.1:{}:443/tcp"
    volumes:
      - ./data/s{at}:/data:ro
      - cache:/var/cache
    healthcheck:
      test: ["CMD", "curl", "-f", "http://localhost/health"]
      interval: 10s
      timeout: 3s
      retries: 5
"#,
            at % 7,
            10_000 + port,
            1_000 + port,
        );
        // In groups of ten, the first of which the others wait for.
        if !at.is_multiple_of(10) {
            let _ = writeln!(text, "    depends_on:\n      s{}: {{ condition: service_healthy }}", at - at % 10);
        }
    }
    text + "volumes:\n  cache: {}\n"
}

fn config(program: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).args(["config", "--format", "json"]).current_dir(folder).stdin(Stdio::null());
    command
}

/// From exec to exit.
fn time(program: &[&str], folder: &Path) -> Outcome<Duration> {
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
    let start = Instant::now();
    let output = config(program, folder).stdout(Stdio::null()).output()?;
    let taken = start.elapsed();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(taken)
}

/// The most memory a program held before it wrote the first byte of its output, which it does last: more output than a
/// pipe holds keeps it there until somebody has looked.
fn peak(program: &[&str], folder: &Path) -> Outcome<String> {
    // The plug-in holds the memory, and not the client that starts it.
    let plugin = format!("{}/.docker/cli-plugins/docker-compose", std::env::var("HOME").unwrap_or_default());
    let plugin = [plugin.as_str()];
    let program = if program == THEIRS { &plugin } else { program };
    let mut child = config(program, folder).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut output = child.stdout.take().ok_or("no output")?;
    output.read_exact(&mut [0])?;
    let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    io::copy(&mut output, &mut io::sink())?;
    child.wait()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in its status")?;
    let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse()?;
    Ok(format!("{} MB", kilobytes * 1024 / 1_000_000))
}
