//! A terminal with somebody at its keys: a pseudo terminal of a tmux server of its own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::engine::skip;
use super::{eventually, holds};

/// A command in a terminal. The server ends with it.
#[derive(Debug)]
pub struct Terminal {
    socket: PathBuf,
    ended: PathBuf,
}

impl Terminal {
    /// Whether there is anything to make one with; skips loudly where there is not.
    pub fn is_there() -> bool {
        let there = Command::new("tmux").arg("-V").output().is_ok();
        if !there {
            skip("there is no `tmux` to make a terminal with");
        }
        there
    }

    /// Runs a command line in a terminal of this size; `command` gives folder and environment, and `root` is where the
    /// server's socket goes.
    pub fn start(command: &Command, root: &std::path::Path, size: (u16, u16)) -> Self {
        let terminal = Self { socket: root.join("tmux"), ended: root.join("ended") };
        let _ = fs::remove_file(&terminal.ended);
        let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"));
        let words: Vec<String> = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted).collect();
        // Keys interrupt the shell as well, and not every shell goes on after it.
        let line = format!("trap : INT; {}; echo $? > '{}'", words.join(" "), terminal.ended.display());
        let (columns, rows) = (size.0.to_string(), size.1.to_string());
        let mut tmux = terminal.tmux(&["new-session", "-d", "-x", &columns, "-y", &rows, &line]);
        tmux.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(folder) = command.get_current_dir() {
            tmux.current_dir(folder);
        }
        let output = tmux.output().expect("tmux runs");
        assert!(output.status.success(), "tmux: {}", String::from_utf8_lossy(&output.stderr));
        terminal
    }

    /// Types a line, and the return key.
    pub fn line(&self, text: &str) {
        self.run(&["send-keys", "-l", text]);
        self.key("Enter");
    }

    /// Presses a key, by tmux's name for it: `C-c`.
    pub fn key(&self, key: &str) {
        self.run(&["send-keys", key]);
    }

    /// Changes its size.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.run(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// What is on it, and what was.
    pub fn text(&self) -> String {
        self.run(&["capture-pane", "-p", "-S", "-"])
    }

    /// Waits until these words are on it.
    pub fn shows(&self, words: &str) {
        eventually(&format!("the terminal shows `{words}`"), || {
            let text = self.text();
            holds(text.contains(words), text)
        });
    }

    /// Waits for the end of the command: its exit code.
    pub fn end(&self) -> i32 {
        eventually("the command in the terminal ends", || match fs::read_to_string(&self.ended) {
            Ok(code) => code.trim().parse::<i32>().map_err(|_| code),
            Err(error) => Err(error.to_string()),
        })
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.tmux(arguments).output().expect("tmux runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn tmux(&self, arguments: &[&str]) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.arg("-S").arg(&self.socket).args(["-f", "/dev/null"]).args(arguments);
        tmux
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.run(&["kill-server"]);
    }
}
