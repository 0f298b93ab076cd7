//! `x-wasm.build`: a command of this machine makes a service's module.
//!
//! It runs in a process group of its own, without standard input; what it says is passed on line by line, and its last
//! lines are repeated when it fails. Given up (another wish, Ctrl-C), the whole group ends. What it makes is not looked
//! at here: that is the store's matter.

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;

use super::outcome::Failure;
use crate::image::stamp::Stamp;
use crate::model::{HostBuild, ServiceName};

/// Lines of output that a failure repeats.
const LAST_LINES: usize = 12;
/// Most bytes of a line that are passed on.
const LONGEST_LINE: usize = 4096;

/// Builds the module of a service in the environment `wcompose` was started in: its path. Lines go to `output`.
pub async fn make(
    service: &ServiceName,
    build: &HostBuild,
    environment: &BTreeMap<String, String>,
    output: &(dyn Fn(&str) + Send + Sync),
) -> Result<PathBuf, Failure> {
    let title = build.title();
    let before = Stamp::of(&build.output);
    let (program, arguments) = build.command.split_first().ok_or_else(|| {
        Failure::new(format!("service `{service}`: `x-wasm.build.command` is empty"), ["name a command".to_owned()])
    })?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&build.working_dir).env_clear().envs(environment).envs(&build.environment);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| unstarted(service, build, program, &error))?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut last = VecDeque::new();
    {
        let (lines, mut said) = mpsc::channel(64);
        let readers = async {
            tokio::join!(read(stdout, lines.clone()), read(stderr, lines));
        };
        let told = async {
            while let Some(line) = said.recv().await {
                output(&line);
                if last.len() == LAST_LINES {
                    last.pop_front();
                }
                last.push_back(line);
            }
        };
        // A helper that outlives the command and keeps its output open (a compiler's server) is not waited for.
        let reading = async { tokio::join!(readers, told) };
        tokio::pin!(reading);
        tokio::select! {
            _ = &mut reading => {}
            _ = ended(&mut child) => {
                let _ = tokio::time::timeout(std::time::Duration::from_millis(200), &mut reading).await;
            }
        }
    }
    let status = child.wait().await?;
    group.over();
    if !status.success() {
        let how = match status.code() {
            Some(code) => format!("ended with exit code {code}"),
            None => "was killed".to_owned(),
        };
        return Err(Failure::new(format!("service `{service}`: `{title}` {how}{}", repeated(&last)), []));
    }
    if !build.output.exists() {
        return Err(Failure::new(
            format!(
                "service `{service}`: `{title}` ended well, but there is no `{}`{}",
                build.output.display(),
                repeated(&last)
            ),
            ["look where it puts the module, and write that path to `x-wasm.build.output`".to_owned()],
        ));
    }
    if before.is_some() && before == Stamp::of(&build.output) {
        output(&format!("{} is what it was", build.output.display()));
    }
    Ok(build.output.clone())
}

/// Waits for the end without taking the exit code away from who asks later.
async fn ended(child: &mut tokio::process::Child) {
    let _ = child.wait().await;
}

/// The process group of a command that is not over; dropped, it ends.
struct Group(Option<Pid>);

impl Group {
    /// The command ended by itself: what it left running is its own matter.
    fn over(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // A group that is gone already is what was wanted.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn read(stream: Option<impl AsyncRead + Unpin>, lines: mpsc::Sender<String>) {
    let Some(stream) = stream else { return };
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        let Ok(chunk) = stream.fill_buf().await else { return };
        if chunk.is_empty() {
            break;
        }
        // A progress bar ends its lines with a carriage return.
        let end = chunk.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let taken = end.unwrap_or(chunk.len());
        let room = LONGEST_LINE.saturating_sub(line.len());
        line.extend_from_slice(&chunk[..taken.min(room)]);
        stream.consume(end.map_or(taken, |end| end + 1));
        if end.is_some() && !line.is_empty() {
            let text = String::from_utf8_lossy(&std::mem::take(&mut line)).trim_end().to_owned();
            if lines.send(text).await.is_err() {
                return;
            }
        }
    }
    if !line.is_empty() {
        let _ = lines.send(String::from_utf8_lossy(&line).trim_end().to_owned()).await;
    }
}

fn repeated(last: &VecDeque<String>) -> String {
    if last.is_empty() {
        return String::new();
    }
    let lines: String = last.iter().map(|line| format!("\n    {line}")).collect();
    format!("\nlast output of the command:{lines}")
}

fn unstarted(service: &ServiceName, build: &HostBuild, program: &str, error: &std::io::Error) -> Failure {
    if !build.working_dir.is_dir() {
        return Failure::new(
            format!(
                "service `{service}`: `x-wasm.build` cannot run in `{}`: no such folder",
                build.working_dir.display()
            ),
            ["correct `x-wasm.build.working_dir`".to_owned()],
        );
    }
    let (why, hint) = match error.kind() {
        ErrorKind::NotFound => {
            ("there is no such command".to_owned(), format!("install `{program}`, or correct `x-wasm.build.command`"))
        }
        ErrorKind::PermissionDenied => {
            ("it may not be executed".to_owned(), format!("make it executable: `chmod +x {program}`"))
        }
        _ => (error.to_string(), "correct `x-wasm.build.command`".to_owned()),
    };
    Failure::new(format!("service `{service}`: cannot run `{program}` of `x-wasm.build`: {why}"), [hint])
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;

    fn build(folder: &Path, line: &str) -> HostBuild {
        HostBuild {
            command: vec!["/bin/sh".into(), "-c".into(), line.into()],
            output: folder.join("app.wasm"),
            working_dir: folder.to_owned(),
            environment: BTreeMap::from([("OWN".to_owned(), "own".to_owned())]),
            ..HostBuild::default()
        }
    }

    async fn run(build: &HostBuild) -> (Result<PathBuf, String>, Vec<String>) {
        let lines = Mutex::new(Vec::new());
        let environment = ["PATH"].map(|name| (name.to_owned(), std::env::var(name).unwrap_or_default()));
        let output = |line: &str| lines.lock().unwrap().push(line.to_owned());
        let made = make(&"api".into(), build, &environment.into(), &output).await;
        let made = made.map_err(|failure| failure.text().map(|(text, _)| text).unwrap_or_default());
        (made, lines.into_inner().unwrap())
    }

    #[tokio::test]
    async fn a_command_leaves_a_module_and_its_lines() {
        let folder = tempfile::tempdir().unwrap();
        let (made, lines) = run(&build(folder.path(), "echo $OWN; printf 'a\\rb' >&2; echo x > app.wasm")).await;
        assert_eq!(made.unwrap(), folder.path().join("app.wasm"));
        assert!(["own", "a", "b"].iter().all(|line| lines.iter().any(|said| said == line)), "{lines:?}");
    }

    #[tokio::test]
    async fn a_failure_says_what_the_command_said() {
        let folder = tempfile::tempdir().unwrap();
        let (made, _) = run(&build(folder.path(), "seq 1 20; exit 3")).await;
        let text = made.unwrap_err();
        assert!(text.starts_with("service `api`: `seq 1 20; exit 3` ended with exit code 3\n"), "{text}");
        assert!(text.ends_with("\n    20") && text.contains("\n    9\n") && !text.contains("\n    8\n"), "{text}");
        let (made, _) = run(&build(folder.path(), "true")).await;
        assert!(made.unwrap_err().contains("ended well, but there is no `"));
        let mut missing = build(folder.path(), "");
        missing.command = vec!["no-such-compiler".into()];
        assert!(run(&missing).await.0.unwrap_err().contains("there is no such command"));
        missing.working_dir = folder.path().join("gone");
        assert!(run(&missing).await.0.unwrap_err().contains("no such folder"));
    }

    #[tokio::test]
    async fn what_is_given_up_ends_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let slow = build(folder.path(), "(sleep 1; echo late > late) & echo > started; wait");
        tokio::select! {
            _ = run(&slow) => panic!("it takes a second"),
            () = async {
                while !folder.path().join("started").exists() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            } => {}
        }
        tokio::time::sleep(Duration::from_millis(1300)).await;
        assert!(!folder.path().join("late").exists());
    }
}
