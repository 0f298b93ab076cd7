//! How a run is ended from outside: wishes that only grow stronger, seen by everything that runs for the instance.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// What is wished of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Wish {
    /// Let it run.
    Run,
    /// End after what is in flight, by then at the latest.
    Stop {
        /// When patience ends.
        deadline: Instant,
        /// The signal's number.
        signal: u8,
    },
    /// End now.
    Kill {
        /// The signal's number.
        signal: u8,
        /// Why, where it is not the user's wish.
        reason: Option<String>,
    },
}

impl Wish {
    fn strength(&self) -> u8 {
        match self {
            Self::Run => 0,
            Self::Stop { .. } => 1,
            Self::Kill { .. } => 2,
        }
    }
}

/// Wishes go in here.
#[derive(Debug, Clone)]
pub struct Switch(watch::Sender<Wish>);

impl Switch {
    /// A switch of a run that nobody wants to end yet.
    pub fn new() -> Self {
        Self(watch::Sender::new(Wish::Run))
    }

    /// Asks for the end; a second gentle wish moves the deadline forward only.
    pub fn stop(&self, grace: Duration, signal: u8) {
        let deadline = deadline(grace);
        self.wish(Wish::Stop { deadline, signal });
    }

    /// Ends it now.
    pub fn kill(&self, signal: u8, reason: Option<String>) {
        self.wish(Wish::Kill { signal, reason });
    }

    /// What is wished now and from now on.
    pub fn watch(&self) -> watch::Receiver<Wish> {
        self.0.subscribe()
    }

    fn wish(&self, wish: Wish) {
        self.0.send_if_modified(|current| {
            let sooner = match (&*current, &wish) {
                (Wish::Stop { deadline: now, .. }, Wish::Stop { deadline, .. }) => deadline < now,
                (current, wish) => wish.strength() > current.strength(),
            };
            if sooner {
                *current = wish;
            }
            sooner
        });
    }
}

/// Waits until anything but running is wished.
pub async fn wanted(watch: &mut watch::Receiver<Wish>) -> Wish {
    let wish = watch.wait_for(|wish| *wish != Wish::Run).await.map(|wish| wish.clone());
    match wish {
        Ok(wish) => wish,
        // Nobody is left to wish anything.
        Err(_) => std::future::pending().await,
    }
}

/// Waits until the run must end: it is killed, or its patience is over. Answers with the signal.
pub async fn overdue(watch: &mut watch::Receiver<Wish>) -> (u8, Option<String>) {
    loop {
        let wish = watch.borrow_and_update().clone();
        match wish {
            Wish::Kill { signal, reason } => return (signal, reason),
            Wish::Stop { deadline, .. } => tokio::select! {
                () = tokio::time::sleep_until(deadline) => return (SIGKILL, None),
                _ = watch.changed() => {}
            },
            Wish::Run => {
                if watch.changed().await.is_err() {
                    std::future::pending().await
                }
            }
        }
    }
}

/// The number of SIGKILL.
pub const SIGKILL: u8 = 9;
/// The number of SIGTERM.
pub const SIGTERM: u8 = 15;

/// What a signal means for a guest, which cannot catch any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It ends, with this number.
    Ends(u8),
    /// Nothing happens: the signal's default is to be ignored.
    Nothing,
    /// There is no such signal.
    Unknown,
}

/// What `SIGTERM`, `TERM` or `15` does.
pub fn effect(signal: &str) -> Effect {
    let name = signal.trim().to_ascii_uppercase();
    if let Ok(number) = name.parse::<u8>() {
        return match number {
            17 | 18 | 23 | 28 => Effect::Nothing,
            1..=64 => Effect::Ends(number),
            _ => Effect::Unknown,
        };
    }
    match name.strip_prefix("SIG").unwrap_or(&name) {
        "HUP" => Effect::Ends(1),
        "INT" => Effect::Ends(2),
        "QUIT" => Effect::Ends(3),
        "ABRT" => Effect::Ends(6),
        "KILL" => Effect::Ends(SIGKILL),
        "USR1" => Effect::Ends(10),
        "USR2" => Effect::Ends(12),
        "PIPE" => Effect::Ends(13),
        "ALRM" => Effect::Ends(14),
        "TERM" => Effect::Ends(SIGTERM),
        "CHLD" | "CONT" | "URG" | "WINCH" => Effect::Nothing,
        name => match name.strip_prefix("RTMIN").map(|more| more.trim_start_matches('+').parse::<u8>()) {
            Some(Ok(more)) if more <= 30 => Effect::Ends(34 + more),
            Some(Err(_)) if name == "RTMIN" => Effect::Ends(34),
            _ => Effect::Unknown,
        },
    }
}

fn deadline(grace: Duration) -> Instant {
    // A grace period beyond any clock is a year.
    let now = Instant::now();
    now.checked_add(grace).unwrap_or(now + Duration::from_secs(365 * 24 * 3600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn wishes_only_grow_stronger() {
        let switch = Switch::new();
        let mut watch = switch.watch();
        switch.stop(Duration::from_secs(10), SIGTERM);
        switch.stop(Duration::from_secs(60), SIGTERM);
        let start = Instant::now();
        assert!(matches!(wanted(&mut watch).await, Wish::Stop { signal: SIGTERM, .. }));
        assert_eq!(overdue(&mut watch).await, (SIGKILL, None));
        assert_eq!(start.elapsed(), Duration::from_secs(10));
        switch.kill(2, Some("why".into()));
        switch.stop(Duration::ZERO, SIGTERM);
        assert_eq!(overdue(&mut watch).await, (2, Some("why".into())));
    }

    #[test]
    fn signals_by_name_and_number() {
        assert_eq!(effect("SIGTERM"), Effect::Ends(15));
        assert_eq!(effect("int"), Effect::Ends(2));
        assert_eq!(effect("9"), Effect::Ends(9));
        assert_eq!(effect("SIGRTMIN+3"), Effect::Ends(37));
        assert_eq!(effect("SIGWINCH"), Effect::Nothing);
        assert_eq!(effect("SIGNONSENSE"), Effect::Unknown);
        assert_eq!(effect("0"), Effect::Unknown);
    }
}
