//! `wcompose exec`: a program beside a running service. In a container by the engine; beside a guest by its supervisor.

use std::path::Path;

use super::args::Exec;
use super::container;
use super::outcome::{Failure, Outcome};
use super::settings::Settings;
use super::streams::{attached, converse, lost};
use super::target::Target;
use super::{pick, terminal};
use crate::control::stream;
use crate::engine::docker::Program;
use crate::session::stream::{Ending, Ends, Errand, Said};
use crate::supervisor::signals::Signals;

/// Output of a program that is kept, in bytes.
const OUTPUT: usize = 64 * 1024;

/// Runs `exec`.
pub async fn exec(mut settings: Settings, args: Exec) -> Outcome {
    let (service, command) = args.words.split_first().ok_or_else(|| Failure::new("no service was named", []))?;
    let command = command.strip_prefix(&["--".to_owned()]).unwrap_or(command).to_vec();
    if command.is_empty() {
        return Err(Failure::new(
            "no command was given",
            ["`wcompose exec SERVICE COMMAND`; of a Wasm service, an export of its module or a `.wasm` file"
                .to_owned()],
        ));
    }
    settings.load.enable.push(service.clone());
    let target = Target::find(&settings).await?;
    let service = target.services(std::slice::from_ref(service))?.remove(0);
    let mut signals = Signals::listen()?;
    let chosen = pick::running(&settings, &target, &service, args.index).await?;
    let input = args.interactive && !args.detach;
    match chosen {
        pick::Chosen::Container { docker, name } => {
            let program = Program {
                command,
                environment: args.env.iter().map(|entry| variable(entry)).collect(),
                user: args.user,
                working_dir: args.workdir,
                privileged: args.privileged,
                tty: !args.no_tty && !args.detach && terminal::is_both(),
                input,
            };
            match args.detach {
                true => container::exec_detached(&docker, &name, &program).await,
                false => container::exec(&docker, &name, &program, &mut signals).await,
            }
        }
        pick::Chosen::Guest { socket, instance } => {
            if args.user.is_some() || args.privileged {
                return Err(Failure::new(
                    format!("service `{service}` is Wasm: a guest has no users and no privileges"),
                    ["leave out `--user` and `--privileged`".to_owned()],
                ));
            }
            let environment = args.env.iter().filter_map(|entry| {
                let entry = variable(entry);
                entry.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
            });
            let errand = Errand::Exec {
                instance,
                command,
                environment: environment.collect(),
                working_dir: args.workdir,
                detach: args.detach,
                streams: attached(input),
            };
            let ends = stream::open(&socket, errand).await?.ok_or_else(|| pick::not_running(&service))?;
            converse(ends, input, &mut signals).await
        }
    }
}

/// Runs a program beside a guest to its end, without input: its exit code, and what it said.
pub async fn to_end(socket: &Path, errand: Errand) -> Result<(i64, String), Failure> {
    let Ends { input, signals: _open, mut said } = stream::open(socket, errand).await?.ok_or_else(lost)?;
    drop(input);
    let mut text = String::new();
    while let Some(word) = said.recv().await {
        match word {
            Said::Output(_, bytes) if text.len() < OUTPUT => text += &String::from_utf8_lossy(&bytes),
            Said::Output(..) => {}
            Said::Ended(Ending::Exited(code)) => return Ok((code, text.trim().to_owned())),
            Said::Ended(Ending::Refused { message, hint }) => return Err(Failure::new(message, hint)),
        }
    }
    Err(lost())
}

/// `KEY=VALUE`; a bare name takes its value from here.
fn variable(entry: &str) -> String {
    match std::env::var(entry) {
        Ok(value) if !entry.contains('=') => format!("{entry}={value}"),
        _ => entry.to_owned(),
    }
}
