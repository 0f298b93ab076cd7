//! The end of a supervisor in the background that holds nothing and that nobody is at: the one-off it was started for has
//! ended, or whoever started it died before anything came of it.

use std::time::Duration;

use super::host::Road;
use crate::control::visitors::Visitors;
use crate::session::LogInterest;

/// How long whoever started it may take to say what for; it usually takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ends the supervisor once it is vacant. What is prepared for somebody who left is prepared first.
pub async fn leave_when_vacant(road: Road, visitors: Visitors) {
    let mut count = visitors.watch();
    let _ = tokio::time::timeout(PATIENCE, count.wait_for(|count| *count > 0)).await;
    let Ok(mut session) = road.session(LogInterest::default()).await else { return };
    loop {
        if *count.borrow_and_update() == 0 {
            let _pause = road.pause().await;
            if *count.borrow() == 0 {
                discard_unclaimed(&road).await;
                road.end_if_empty().await;
            }
        }
        tokio::select! {
            changed = count.changed() => if changed.is_err() { return },
            update = session.updates.recv() => if update.is_none() { return },
        }
    }
}

/// A one-off that was made is started by whoever had it made, and he is gone.
async fn discard_unclaimed(road: &Road) {
    for spec in road.engines().wasm().unstarted() {
        road.discard(&spec.container).await;
    }
}
