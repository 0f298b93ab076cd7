//! The loop that feeds a console from a session until something the caller waits for has happened.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::MissedTickBehavior;

use super::console::Console;
use crate::session::{Session, Update};

/// Why following ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed<T> {
    /// What was waited for has happened.
    Until(T),
    /// The supervisor ended or was lost first.
    Ended,
}

/// Rows are redrawn at most so often.
const TICK: Duration = Duration::from_millis(100);
/// How long a last line may take after the end.
const LAST: Duration = Duration::from_secs(1);

/// Shows what happens until `until` is done or the session ends. Everything that arrived before is shown first, so a
/// second call goes on without a gap. The session's snapshot is the caller's to give to [`Console::begin`].
pub async fn follow<T>(
    session: &mut Session,
    console: &mut Console<'_>,
    until: impl Future<Output = T>,
) -> io::Result<Followed<T>> {
    let mut until = pin!(until);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut logs_open = true;
    loop {
        // Whoever floods stands last, so that nothing else waits for it.
        tokio::select! {
            biased;
            done = &mut until => {
                drain_logs(session, console)?;
                for _ in 0..session.updates.len() {
                    let Ok(update) = session.updates.try_recv() else { break };
                    console.update(&update, Timestamp::now())?;
                }
                return Ok(Followed::Until(done));
            }
            update = session.updates.recv() => {
                // Lines written before an exit stand before it.
                drain_logs(session, console)?;
                let Some(update) = update else {
                    last_logs(session, console).await?;
                    return Ok(Followed::Ended);
                };
                console.update(&update, Timestamp::now())?;
                if matches!(update, Update::Lost(_)) {
                    last_logs(session, console).await?;
                    return Ok(Followed::Ended);
                }
            }
            _ = ticks.tick(), if console.is_moving() => console.tick(Timestamp::now())?,
            line = session.logs.recv(), if logs_open => match line {
                Some(line) => console.line(&line, Timestamp::now())?,
                None => logs_open = false,
            },
        }
    }
}

/// Shows the lines that are still under way when the supervisor ended: they come by a way of their own.
async fn last_logs(session: &mut Session, console: &mut Console<'_>) -> io::Result<()> {
    while let Ok(Some(line)) = tokio::time::timeout(LAST, session.logs.recv()).await {
        console.line(&line, Timestamp::now())?;
    }
    Ok(())
}

/// Shows the lines that are here now, and does not wait for more.
fn drain_logs(session: &mut Session, console: &mut Console<'_>) -> io::Result<()> {
    for _ in 0..session.logs.len() {
        let Ok(line) = session.logs.try_recv() else { break };
        console.line(&line, Timestamp::now())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::super::console::{Lines, Options, Shown};
    use super::super::log::{LogFormat, captured};
    use super::super::sample::{self, changed, epoch};
    use super::super::style::Palette;
    use super::super::tty::Size;
    use super::super::{Console, Streams};
    use super::*;
    use crate::event::InstanceState;
    use crate::model::InstanceName;
    use crate::session::{LogLine, LogStream, Request};

    /// The supervisor's side of a session.
    struct Far {
        updates: mpsc::Sender<Update>,
        logs: mpsc::Sender<LogLine>,
        _commands: mpsc::Receiver<Request>,
    }

    fn session() -> (Session, Far) {
        let (updates, update_receiver) = mpsc::channel(64);
        let (logs, log_receiver) = mpsc::channel(64);
        let (command_sender, commands) = mpsc::channel(1);
        let session = Session {
            snapshot: sample::snapshot(),
            updates: update_receiver,
            logs: log_receiver,
            commands: command_sender,
        };
        (session, Far { updates, logs, _commands: commands })
    }

    fn line(text: &str) -> LogLine {
        let instance = InstanceName::new("db".into(), 1);
        LogLine { at: epoch(), instance, stream: LogStream::Stdout, text: text.into(), dropped: 0 }
    }

    /// What is on standard output after `play` has had a session and the console that shows it.
    fn shown<T>(play: impl AsyncFnOnce(&mut Session, &mut Console<'_>, Far) -> T) -> (T, String) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut result = None;
        let (out, _) = captured(|streams| {
            let lines = Lines::Shown { format: LogFormat::default(), services: vec!["db".into()] };
            let options = Options { progress: Shown::Plain, lines, out: Palette::PLAIN, err: Palette::PLAIN };
            let streams = Streams { out: streams.out, err: streams.err };
            let mut console = Console::sized(streams, options, || Size { columns: 80, rows: 24 });
            let (mut session, far) = session();
            console.begin(&session.snapshot)?;
            result = Some(runtime.block_on(play(&mut session, &mut console, far)));
            Ok(())
        });
        (result.unwrap(), out)
    }

    #[test]
    fn lines_stand_before_the_exit_that_came_after_them() {
        let (followed, out) = shown(async |session, console, far| {
            let mut db = session.snapshot.instances[0].clone();
            db.state = InstanceState::Exited { code: 3, reason: None };
            far.updates.send(changed(1, &db)).await.unwrap();
            far.logs.send(line("one")).await.unwrap();
            far.logs.send(line("two")).await.unwrap();
            drop(far);
            follow(session, console, std::future::pending::<()>()).await.unwrap()
        });
        assert_eq!(followed, Followed::Ended);
        insta::assert_snapshot!(out, @r"
        Attaching to db-1
        db-1       | one
        db-1       | two
        db-1 exited with code 3
        ");
    }

    #[test]
    fn what_came_before_the_end_is_shown_and_the_rest_is_left() {
        let (followed, out) = shown(async |session, console, far| {
            far.logs.send(line("before")).await.unwrap();
            let followed = follow(session, console, std::future::ready(7)).await.unwrap();
            far.logs.send(line("later")).await.unwrap();
            follow(session, console, std::future::ready(8)).await.unwrap();
            followed
        });
        assert_eq!(followed, Followed::Until(7));
        insta::assert_snapshot!(out, @r"
        Attaching to db-1
        db-1       | before
        db-1       | later
        ");
    }

    #[test]
    fn a_flood_of_lines_does_not_hold_back_what_is_waited_for() {
        let (followed, _) = shown(async |session, console, far| {
            let flood = async {
                loop {
                    if far.logs.send(line("again")).await.is_err() {
                        break;
                    }
                }
            };
            let until = tokio::time::sleep(Duration::from_millis(20));
            tokio::select! {
                followed = follow(session, console, until) => followed.unwrap(),
                () = flood => Followed::Ended,
            }
        });
        assert_eq!(followed, Followed::Until(()));
    }

    #[test]
    fn a_lost_supervisor_ends_it() {
        let (followed, _) = shown(async |session, console, far| {
            far.updates.send(Update::Lost("it was killed".into())).await.unwrap();
            follow(session, console, std::future::pending::<()>()).await.unwrap()
        });
        assert_eq!(followed, Followed::Ended);
    }
}
