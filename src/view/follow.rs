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
                let Some(update) = update else { return Ok(Followed::Ended) };
                console.update(&update, Timestamp::now())?;
                if matches!(update, Update::Lost(_)) {
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

/// Shows the lines that are here now, and does not wait for more.
fn drain_logs(session: &mut Session, console: &mut Console<'_>) -> io::Result<()> {
    for _ in 0..session.logs.len() {
        let Ok(line) = session.logs.try_recv() else { break };
        console.line(&line, Timestamp::now())?;
    }
    Ok(())
}
